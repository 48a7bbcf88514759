"""The words of the generator: paths, ACLs, data, versions, good ones and bad ones.

Few names and a small tree, so that requests meet: most name a node that exists.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.conformance.meaning import Entry
from tests.conformance.shadow import Shadow, digest_id

NAMES: tuple[bytes, ...] = (b"a", b"b", b"c", b"dd", "é".encode(), b"x y", "字".encode())
USERS: tuple[bytes, ...] = (b"ann:one", b"bob:two", b"ann:other", b"nocolon", b":", b"")

BAD_PATHS: tuple[bytes | None, ...] = (
    None, b"", b"a", b"a/b", b"//", b"//a", b"/a//b", b"/a/", b"/a/b/", b"/.", b"/..", b"/a/.",
    b"/a/../b", b"/a/./b", b"/./a", b"/a\x00", b"/a\x00b", b"/\x01", b"/a\x1f", b"/a\x7f",
    "/\x80".encode(), "/\x9f".encode(), "/\ud7ff".encode(), "/\ue000".encode(),
    "/\uf8ff".encode(), "/\uf900".encode(), "/\uffef".encode(), "/\ufff0".encode(),
    "/\uffff".encode(), "/\U0001f600".encode(), b"/\xed\xa0\x80", b"/\xff", b"/\xc0\x80",
    b"/a\xe2\x82", b"/...", b"/.a", b"/a.", b"/a/...", b"/a b", b"/\xc2\xa0", b"/" + b"n" * 300,
    b"/zookeeper/", b"/zookeeper/nothing", b"/zookeeper/config/x", b"zookeeper",
)  # fmt: skip

VERSIONS = (-1, -1, -1, 0, 0, 1, 2, -2, 7, 2147483647, -2147483648)
TIMEOUTS_MS = (0, -1, 1, 1000, 30000, 700000, 900000, 2147483647, -2147483648)
TTLS_MS = (1000000, 1099511627775, 1099511627776, 0, -1, -5, 5000000000, 9223372036854775807)

# Anything else in a quota node ends an Apache ZooKeeper at the next write below the quota.
QUOTA_PREFIX = b"/zookeeper_"
QUOTAS = (
    b"count=3,bytes=100",
    b"count=-1,bytes=-1,byteHardLimit=60,countHardLimit=-1",
    b"count=-1,bytes=-1,byteHardLimit=-1,countHardLimit=5",
    b"count=9,bytes=900,byteHardLimit=2000,countHardLimit=20",
    b"count=0,bytes=0",
)

OPEN: tuple[Entry, ...] = ((31, b"world", b"anyone"),)
ODD_ACLS: tuple[tuple[Entry, ...] | None, ...] = (
    None,
    (),
    ((1, b"world", b"anyone"),),
    ((30, b"world", b"anyone"),),
    ((0, b"world", b"anyone"),),
    ((-1, b"world", b"anyone"),),
    ((31, b"world", b"other"),),
    ((31, b"", b""),),
    ((31, b"nosuch", b"x"),),
    ((31, b"super", b""),),
    ((31, b"sasl", b"someone"),),
    ((31, b"x509", b"CN=someone"),),
    ((31, b"digest", b"nocolon"),),
    ((31, b"digest", b"a:b:c"),),
    ((31, b"digest", b""),),
    ((31, b"auth", b""),),
    ((31, b"auth", b"ignored"), (1, b"world", b"anyone")),
    ((1, b"ip", b"127.0.0.1"),),
    ((31, b"ip", b"127.0.0.0/8"), (1, b"world", b"anyone")),
    ((31, b"ip", b"10.0.0.0/8"),),
    ((31, b"ip", b"127.0.0.1/33"),),
    ((31, b"ip", b"127.0.0.1/"),),
    ((31, b"ip", b"127.0.0.1/-1"),),
    ((31, b"ip", b"not an address"),),
    ((31, b"ip", b"1.2.3"),),
    ((31, b"ip", b"1.2.3.400"),),
    ((31, b"world", b"anyone"), (31, b"world", b"anyone")),
    ((31, b"world", b"anyone"), (7, b"world", b"anyone")),
)
IPV6_ACLS: tuple[tuple[Entry, ...], ...] = (
    ((31, b"ip", b"::1"),),
    ((31, b"ip", b"::1/128"),),
    ((31, b"ip", b"::/0"), (1, b"world", b"anyone")),
    ((31, b"ip", b"::1/129"),),
    ((31, b"ip", b"1::2::3"),),
    ((31, b"ip", b"::ffff:127.0.0.1"),),
    ((31, b"ip", b"fe80::1%lo"),),
    ((31, b"ip", b"1:2:3:4:5:6:7:8"),),
    ((31, b"ip", b"1:2:3:4:5:6:7:8:9"),),
)
ACCOUNTS = tuple(digest_id(user) for user in USERS[:3])


def name(rng: random.Random) -> bytes:
    return rng.choice(NAMES)


def child(rng: random.Random, parent: bytes) -> bytes:
    return parent.rstrip(b"/") + b"/" + name(rng)


def path(rng: random.Random, shadow: Shadow) -> bytes | None:
    """Mostly a node that exists, sometimes a neighbour of one, seldom nonsense."""
    dice = rng.random()
    if dice < 0.04:
        return rng.choice(BAD_PATHS)
    existing = rng.choice(list(shadow.nodes))
    return existing if dice < 0.75 else child(rng, existing)


def new_path(rng: random.Random, shadow: Shadow) -> bytes | None:
    """Something to create: under an existing node, at most five levels deep."""
    if rng.random() < 0.06:
        return rng.choice(BAD_PATHS)
    nodes = list(shadow.nodes)
    parents = [p for p in nodes if p.count(b"/") < 5 and not p.startswith(b"/zookeeper")]
    if rng.random() < 0.01:
        parents = nodes
    return child(rng, rng.choice(parents))


def data(rng: random.Random) -> bytes | None:
    dice = rng.random()
    if dice < 0.1:
        return None
    if dice < 0.2:
        return b""
    if dice < 0.22:
        return rng.randbytes(8) * rng.choice((512, 8750))
    return rng.randbytes(2) * rng.randrange(1, 12)


def acl(
    rng: random.Random, odd: Sequence[tuple[Entry, ...] | None] = ODD_ACLS
) -> tuple[Entry, ...] | None:
    dice = rng.random()
    if dice < 0.7:
        return OPEN
    if dice < 0.8:
        everyone = ((rng.randrange(32), b"world", b"anyone"),) if rng.random() < 0.5 else ()
        return ((rng.randrange(32), b"digest", rng.choice(ACCOUNTS)), *everyone)
    return rng.choice(odd)


def paths(rng: random.Random, shadow: Shadow) -> Sequence[bytes | None]:
    """A list for setWatches; null entries are left to damaged bodies."""
    return [path(rng, shadow) or b"" for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
