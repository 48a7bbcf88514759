"""Paths, ACLs, owners and stats as values."""

from __future__ import annotations

import struct

import pytest
from tree_support import ALICE, ANYONE, SUPER, TTL_OWNER, Registry, raw_stat, stat_of

from zkd.jute.codec import Malformed
from zkd.jute.protocol import Err, Perm
from zkd.tree import acl, ephemeral, paths
from zkd.tree.errors import ClientRefusal
from zkd.tree.settings import TreeSettings
from zkd.tree.stat import client_stat, data_length, num_children, owner

EXTENDED = TreeSettings(extended_types_enabled=True)


@pytest.mark.parametrize(
    "path",
    ["/", "/a", "/a/b", "/a.b", "/.a", "/a..", "/...", "/a/...", "/ ", "/é", "/\u4e2d", "/a b"],
)
def test_valid_paths(path: str) -> None:
    assert paths.is_valid(path)
    assert paths.validate(path) == path


BAD_RANGES = [(0, 0x1F), (0x7F, 0x9F), (0xD800, 0xF8FF), (0xFFF0, 0xFFFF), (0x10000, 0x10FFFF)]


@pytest.mark.parametrize(
    "path",
    ["", "a", "a/b", "//", "/a/", "/a//b", "/.", "/..", "/./a", "/a/.", "/a/../b", "/a/.."]
    + [f"/é{chr(code)}" for bounds in BAD_RANGES for code in bounds]
    + [f"/a{chr(code)}b" for bounds in BAD_RANGES for code in bounds],
)
def test_invalid_paths(path: str) -> None:
    assert not paths.is_valid(path)
    with pytest.raises(ClientRefusal) as refused:
        paths.validate(path)
    assert refused.value.code == Err.BAD_ARGUMENTS


def test_every_character_is_judged_as_by_its_ranges() -> None:
    for code in range(0x10000):
        bad = any(low <= code <= high for low, high in BAD_RANGES) or chr(code) in "/."
        assert paths.is_valid("/" + chr(code)) != bad, hex(code)
        assert paths.is_valid("/é" + chr(code)) == (not bad or chr(code) == "."), hex(code)


def test_parents_and_namespaces() -> None:
    assert paths.parent_and_name("/a") == ("/", "a")
    assert paths.parent_and_name("/a/b") == ("/a", "b")
    assert paths.top_namespace("/a/b") == "a"
    assert paths.top_namespace("/") is None
    for path in ("a", "/a\0"):
        with pytest.raises(ClientRefusal):
            paths.parent_and_name(path)
    with pytest.raises(ClientRefusal):
        paths.validate(None)


# ---- ACLs

MIXED = acl.encode([(Perm.READ, "world", "anyone"), (Perm.ALL, "digest", "alice:hash")])


def test_none_stands_for_world_anyone_all() -> None:
    assert acl.compact(acl.WORLD_ALL) is None
    assert acl.expand(None) == acl.WORLD_ALL
    assert acl.parse(None) == ((31, "world", "anyone"),)
    assert acl.expand(MIXED) == acl.compact(MIXED) == MIXED
    assert acl.check(None, Perm.ADMIN, (), Registry())


@pytest.mark.parametrize(
    ("who", "perm", "granted"),
    [
        (ANYONE, Perm.READ, True),
        (ANYONE, Perm.WRITE, False),
        (ANYONE, Perm.READ | Perm.ADMIN, True),
        (ALICE, Perm.WRITE, True),
        (SUPER, Perm.ADMIN, True),
        ((), Perm.READ, True),
    ],
)
def test_any_wanted_permission_of_any_entry_grants(
    who: tuple[tuple[str, str], ...], perm: int, granted: bool
) -> None:
    assert acl.check(MIXED, perm, who, Registry()) == granted


def test_an_empty_list_grants_everything() -> None:
    assert acl.check(acl.encode([]), Perm.ADMIN, (), Registry())


def test_fix_up_reads_the_bytes_of_a_list() -> None:
    assert acl.fix_up(acl.WORLD_ALL, ANYONE, Registry()) is None
    auth = acl.encode([(Perm.READ, "auth", "ignored"), (Perm.ALL, "ip", "10.0.0.1")])
    assert acl.fix_up(auth, ALICE, Registry()) == acl.encode(
        [(Perm.READ, "digest", "alice:hash"), (Perm.ALL, "ip", "10.0.0.1")]
    )
    for empty in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\0"):
        with pytest.raises(ClientRefusal) as refused:
            acl.fix_up(empty, ALICE, Registry())
        assert refused.value.code == Err.INVALID_ACL
    with pytest.raises(Malformed):
        acl.fix_up(acl.WORLD_ALL[:-1], ANYONE, Registry())


def test_redaction_hides_the_hash_of_digests_alone() -> None:
    shown = acl.redact(acl.encode([(1, "digest", "u:a:b"), (1, "sasl", "u:x"), (1, "ip", "::1")]))
    assert shown == acl.encode([(1, "digest", "u:x"), (1, "sasl", "u:x"), (1, "ip", "::1")])
    assert acl.redact(None) == acl.WORLD_ALL


def test_long_lists_are_not_kept() -> None:
    long_list = acl.encode([(1, "ip", f"10.0.0.{number}") for number in range(200)])
    assert len(acl.parse(long_list)) == 200


# ---- owners and stats


@pytest.mark.parametrize(
    ("raw", "settings", "kind"),
    [
        (0, EXTENDED, ephemeral.VOID),
        (1, EXTENDED, ephemeral.NORMAL),
        (-(1 << 63), EXTENDED, ephemeral.CONTAINER),
        (-(1 << 63), TreeSettings(), ephemeral.CONTAINER),
        (TTL_OWNER | 5, EXTENDED, ephemeral.TTL),
        (TTL_OWNER | 5, TreeSettings(), ephemeral.NORMAL),
        (TTL_OWNER | ephemeral.MAX_TTL_MS, EXTENDED, ephemeral.TTL),
        (TTL_OWNER + ephemeral.MAX_TTL_MS + 1, EXTENDED, ephemeral.NORMAL),
        (-(1 << 62), EXTENDED, ephemeral.NORMAL),
        (-(1 << 62), TreeSettings(True, True, True), ephemeral.TTL),
    ],
)
def test_kinds_of_owners(raw: int, settings: TreeSettings, kind: int) -> None:
    assert ephemeral.kind(raw, settings) == kind


def test_ttl_owners_hold_their_ttl() -> None:
    assert struct.pack(">q", ephemeral.ttl_owner(1)).hex() == "ff00000000000001"
    assert ephemeral.ttl_ms(ephemeral.ttl_owner(ephemeral.MAX_TTL_MS)) == ephemeral.MAX_TTL_MS
    for bad in (0, -1, ephemeral.MAX_TTL_MS + 1):
        with pytest.raises(ValueError, match="ttl"):
            ephemeral.ttl_owner(bad)


def test_clients_see_changes_of_children_and_plain_owners() -> None:
    plain = raw_stat(czxid=4, owner=77, cversion=5, children=3, data_length=9)
    shown = stat_of(client_stat(plain, EXTENDED))
    assert shown == stat_of(plain) | {"cversion": 7}
    assert stat_of(client_stat(raw_stat(owner=-(1 << 63)), EXTENDED))["owner"] == 0
    ttl = raw_stat(owner=TTL_OWNER | 5)
    assert stat_of(client_stat(ttl, EXTENDED))["owner"] == 0
    assert client_stat(ttl, TreeSettings()) == ttl
    wrapped = raw_stat(cversion=0x7FFFFFFF, children=1)
    assert stat_of(client_stat(wrapped, EXTENDED))["cversion"] == -3
    simple = raw_stat(czxid=4, version=3)
    assert client_stat(simple, EXTENDED) is simple
    assert (owner(plain), num_children(plain), data_length(plain)) == (77, 3, 9)
