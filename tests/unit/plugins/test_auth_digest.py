"""The digest scheme (DigestAuthenticationProvider.java; client protocol section 11)."""

from __future__ import annotations

import base64
import hashlib

import pytest

import zkd_auth_digest as digest
from zkd.plugins.api import SUPER, AuthProvider, Origin

ORIGIN = Origin("127.0.0.1", 1)
ANN = "ann:" + base64.b64encode(hashlib.sha1(b"ann:secret").digest()).decode()


def provider(**config: str) -> AuthProvider:
    keys = {f"DigestAuthenticationProvider.{key}": value for key, value in config.items()}
    (made,) = digest.zkd_auth_providers(keys)
    return made


def test_a_digest_that_is_published() -> None:
    """The superDigest that Apache ZooKeeper's own tests use."""
    assert digest.generate_digest("super:test") == "super:D/InIHSb7yEEbrWz8b9l71RjZJU="


def test_a_packet_gives_the_digest_of_all_of_it_under_the_user_before_the_first_colon() -> None:
    assert provider().authenticate(b"ann:secret", ORIGIN) == (("digest", ANN),)
    (_, own_id) = provider().authenticate(b"ann:a:b", ORIGIN)[0]
    assert own_id == "ann:" + base64.b64encode(hashlib.sha1(b"ann:a:b").digest()).decode()


@pytest.mark.parametrize("data", [b"", b"ann", b":", b"\xff\xfe:x", "ä:ö".encode()])
def test_a_packet_never_fails(data: bytes) -> None:
    ((scheme, own_id),) = provider().authenticate(data, ORIGIN)
    assert scheme == "digest"
    assert ":" in own_id


def test_the_super_digest_makes_super() -> None:
    chosen = provider(superDigest=ANN)
    assert chosen.authenticate(b"ann:secret", ORIGIN) == (SUPER, ("digest", ANN))
    assert SUPER not in chosen.authenticate(b"ann:other", ORIGIN)
    assert SUPER not in provider(superDigest="").authenticate(b"", ORIGIN)


@pytest.mark.parametrize(
    ("java", "python"),
    [("SHA1", "sha1"), ("SHA-256", "sha256"), ("sha-512", "sha512"), ("SHA3-256", "sha3_256")],
)
def test_the_algorithm_can_be_chosen_by_javas_name(java: str, python: str) -> None:
    ((_, own_id),) = provider(digestAlg=java).authenticate(b"ann:secret", ORIGIN)
    hashed = hashlib.new(python, b"ann:secret").digest()
    assert own_id == "ann:" + base64.b64encode(hashed).decode()


def test_an_unknown_algorithm_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="digestAlg=CRC32 is unknown; known are MD5, SHA, SHA-1"):
        provider(digestAlg="CRC32")


def test_the_scheme_can_be_switched_off() -> None:
    assert digest.zkd_auth_providers({"DigestAuthenticationProvider.enabled": "false"}) == []


@pytest.mark.parametrize(
    ("acl_id", "valid"),
    [
        ("a:b", True),
        (":b", True),
        ("a:b:", True),
        ("a:b::", True),
        ("a", False),
        ("", False),
        (":", False),
        ("a:", False),
        ("a:b:c", False),
        ("a::b", False),
    ],
)
def test_an_id_has_two_parts_as_java_splits(acl_id: str, valid: bool) -> None:
    assert provider().is_valid(acl_id) is valid


def test_ids_match_when_they_are_equal() -> None:
    assert provider().matches(ANN, ANN)
    assert not provider().matches(ANN, "ann:x")
    assert not provider().matches("\ud800", "ä")


def test_names_and_redaction_show_the_user_only() -> None:
    assert provider().user_name(ANN) == "ann"
    assert provider().redact(ANN) == "ann:x"
