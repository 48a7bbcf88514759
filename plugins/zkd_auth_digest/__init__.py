"""The digest scheme: user and password, kept in ACLs as `user:base64(hash("user:password"))`.

An auth packet never fails here: whoever sends one simply is that user with that password. If its
digest equals `DigestAuthenticationProvider.superDigest`, the connection is also `super`.
(`org.apache.zookeeper.server.auth.DigestAuthenticationProvider`)

Configuration: `DigestAuthenticationProvider.enabled` (true), `.superDigest` (none), `.digestAlg`
(SHA1; any name that Java's MessageDigest and this Python both know).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from zkd.plugins.api import SUPER, AuthProvider, Config, Identity, Origin, flag, hookimpl

PREFIX: Final = "DigestAuthenticationProvider."

ALGORITHMS: Final = {
    "SHA": "sha1",
    "SHA1": "sha1",
    "SHA-1": "sha1",
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
    "SHA-512/224": "sha512_224",
    "SHA-512/256": "sha512_256",
    "SHA3-224": "sha3_224",
    "SHA3-256": "sha3_256",
    "SHA3-384": "sha3_384",
    "SHA3-512": "sha3_512",
    "MD5": "md5",
}
"""Java's names of digests, in capitals -> hashlib's."""


def hash_name(java_name: str) -> str:
    """hashlib's name of a digest that Java calls `java_name`. ValueError if there is none."""
    name = ALGORITHMS.get(java_name.strip().upper())
    if name is None:
        known = ", ".join(sorted(ALGORITHMS))
        raise ValueError(f"{PREFIX}digestAlg={java_name} is unknown; known are {known}")
    hashlib.new(name, usedforsecurity=False)
    return name


def generate_digest(id_password: str, algorithm: str = "sha1") -> str:
    """`user:password` -> `user:base64(hash("user:password"))`, as ACLs and superDigest hold it."""
    hashed = hashlib.new(algorithm, id_password.encode("utf-8", "replace"), usedforsecurity=False)
    user = id_password.partition(":")[0]
    return f"{user}:{base64.b64encode(hashed.digest()).decode('ascii')}"


class DigestProvider(AuthProvider):
    scheme = "digest"
    is_authenticated = True

    def __init__(self, algorithm: str = "sha1", super_digest: str | None = None) -> None:
        self._algorithm = algorithm
        self._super = None if super_digest is None else super_digest.encode()

    def authenticate(self, data: bytes, origin: Origin) -> Sequence[Identity]:
        digest = generate_digest(data.decode("utf-8", "replace"), self._algorithm)
        own = (self.scheme, digest)
        if self._super is not None and hmac.compare_digest(digest.encode(), self._super):
            return (SUPER, own)
        return (own,)

    def is_valid(self, acl_id: str) -> bool:
        """Two parts around one colon, as Java's `split(":")` counts: empty ends do not count."""
        return len(_java_split(acl_id)) == 2

    def matches(self, identity_id: str, acl_id: str) -> bool:
        return hmac.compare_digest(
            identity_id.encode("utf-8", "surrogatepass"), acl_id.encode("utf-8", "surrogatepass")
        )

    def user_name(self, identity_id: str) -> str:
        return identity_id.partition(":")[0]

    def redact(self, acl_id: str) -> str:
        user, colon, _ = acl_id.partition(":")
        return f"{user}:x" if colon else acl_id


def _java_split(text: str) -> list[str]:
    parts = text.split(":")
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts


@hookimpl
def zkd_auth_providers(config: Config) -> list[AuthProvider]:
    if not flag(config, PREFIX + "enabled", True):
        return []
    algorithm = hash_name(config.get(PREFIX + "digestAlg", "SHA1"))
    return [DigestProvider(algorithm, config.get(PREFIX + "superDigest") or None)]
