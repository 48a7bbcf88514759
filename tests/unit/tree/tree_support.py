"""What the tests of the tree stand on: a tree in memory, a registry, requests.

`MemoryBase` installs effects as storage and front-ends do, and computes counts and digest afresh
from what it holds: nothing of the code under test is used for that.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from zkd.jute import records as rec
from zkd.jute.codec import buffer, int_, string
from zkd.jute.protocol import Op
from zkd.tree import effects as fx
from zkd.tree.acl import READ_ONLY, Identity
from zkd.tree.effects import Effect
from zkd.tree.prepare import Prepared, Preparer
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

VECTORS = Path(__file__).parents[2] / "vectors"

Node = tuple[bytes | None, bytes, bytes | None]

SESSION = 0x100000000000001
OTHER = 0x100000000000002
TTL_OWNER = -(1 << 56)

FIELDS = [
    "czxid",
    "mzxid",
    "ctime",
    "mtime",
    "version",
    "cversion",
    "aversion",
    "owner",
    "data_length",
    "children",
    "pzxid",
]


def stat_of(raw: bytes) -> dict[str, int]:
    """A raw stat's fields by name."""
    return dict(zip(FIELDS, struct.unpack(">qqqqiiiqiiq", raw), strict=True))


def raw_stat(**fields: int) -> bytes:
    """A raw stat; what is not named is 0."""
    return struct.pack(">qqqqiiiqiiq", *(fields.get(name, 0) for name in FIELDS))


class MemoryBase:
    """A tree in a dict."""

    def __init__(self, nodes: dict[str, Node] | None = None, zxid: int = 0) -> None:
        self.nodes: dict[str, Node] = dict(EMPTY) if nodes is None else nodes
        self.zxid = zxid
        self.live: dict[int, int] = {}
        self.looked_up: list[str] = []

    def copy(self) -> MemoryBase:
        """Another one, equal to this."""
        other = MemoryBase(dict(self.nodes), self.zxid)
        other.live = dict(self.live)
        return other

    def install(self, effects: Iterable[Effect], zxid: int) -> None:
        """Bring the tree up to `zxid`."""
        for effect in effects:
            self._install(effect)
        self.zxid = zxid

    def _install(self, effect: Effect) -> None:
        kind = effect[0]
        if kind == fx.CREATED:
            self.nodes[effect[1]] = (effect[3], effect[2], effect[4])
        elif kind == fx.DELETED:
            self.nodes.pop(effect[1], None)
        elif kind in (fx.CHANGED, fx.QUOTA):
            self.nodes[effect[1]] = (effect[3], effect[2], self.nodes[effect[1]][2])
        elif kind == fx.ACL:
            self.nodes[effect[1]] = (self.nodes[effect[1]][0], effect[2], effect[3])
        elif kind == fx.STAT:
            data, _, acl = self.nodes[effect[1]]
            self.nodes[effect[1]] = (data, effect[2], acl)
        elif kind == fx.SESSION:
            self.live[effect[1]] = effect[2]
        elif kind == fx.CLOSED:
            self.live.pop(effect[1], None)

    @property
    def digest(self) -> int:
        """Summed up anew."""
        total = 0
        for path, (data, raw, _) in self.nodes.items():
            if path.startswith("/zookeeper/"):
                continue
            stat = stat_of(raw)
            order = [
                "czxid",
                "mzxid",
                "pzxid",
                "ctime",
                "mtime",
                "version",
                "cversion",
                "aversion",
                "owner",
            ]
            packed = struct.pack(">qqqqqiiiq", *(stat[name] for name in order))
            text = b"" if path == "/" else path.encode()
            total += zlib.crc32(text + (data or b"") + packed)
        return total & 0xFFFFFFFFFFFFFFFF

    @property
    def node_count(self) -> int:
        return len(self.nodes)

    @property
    def data_bytes(self) -> int:
        return sum(len(path) + len(data or b"") for path, (data, _, _) in self.nodes.items())

    def node(self, path: str) -> Node | None:
        self.looked_up.append(path)
        return self.nodes.get(path)

    def last_child(self, path: str) -> str:
        below = "/" if path == "/" else path + "/"
        names = (one[len(below) :] for one in self.nodes if one.startswith(below))
        return max((name for name in names if "/" not in name), default="")

    def ephemerals(self, owner: int) -> list[str]:
        return [path for path, node in self.nodes.items() if stat_of(node[1])["owner"] == owner]

    def sessions(self) -> dict[int, int]:
        return dict(self.live)

    def specials(self) -> list[tuple[str, int]]:
        owners = ((path, stat_of(node[1])["owner"]) for path, node in self.nodes.items())
        return [(path, raw) for path, raw in owners if raw == -(1 << 63) or -(1 << 56) <= raw < 0]

    def quotas(self) -> list[tuple[str, bytes | None]]:
        return [
            (path, node[0])
            for path, node in self.nodes.items()
            if path.startswith("/zookeeper/quota/") and path.endswith("/zookeeper_limits")
        ]

    def usage(self, path: str) -> tuple[int, int]:
        below = "/" if path == "/" else path + "/"
        found = [
            len(node[0] or b"")
            for one, node in self.nodes.items()
            if one == path or one.startswith(below)
        ]
        return len(found), sum(found)


EMPTY: dict[str, Node] = {
    "/": (b"", raw_stat(children=1), None),
    "/zookeeper": (b"", raw_stat(children=2), None),
    "/zookeeper/quota": (b"", raw_stat(), None),
    "/zookeeper/config": (b"", raw_stat(aversion=-1), READ_ONLY),
}


class Registry:
    """Digest and ip ids, compared as text; digest is authenticated."""

    def is_valid(self, scheme: str, id_: str) -> bool:
        return scheme == "ip" or (scheme == "digest" and id_.count(":") == 1)

    def matches(self, identities: tuple[Identity, ...], scheme: str, id_: str) -> bool:
        return (scheme, id_) in identities

    def is_authenticated(self, scheme: str) -> bool:
        return scheme == "digest"


ANYONE: tuple[Identity, ...] = (("ip", "127.0.0.1"),)
ALICE: tuple[Identity, ...] = (("ip", "127.0.0.1"), ("digest", "alice:hash"))
SUPER: tuple[Identity, ...] = (("ip", "127.0.0.1"), ("super", ""))

OPEN = rec.WORLD_ALL


def entry(perms: int, scheme: str | None, id_: str | None) -> rec.ACL:
    """One entry of an ACL."""
    return rec.ACL(perms, rec.Id(scheme, id_))


class Server:
    """A state and its preparer; counts zxids and time by itself."""

    def __init__(
        self,
        settings: TreeSettings | None = None,
        base: MemoryBase | None = None,
        cache_bytes: int = 1 << 20,
    ) -> None:
        self.settings = settings or TreeSettings()
        self.base = base or MemoryBase()
        self.state = TreeState(self.base, cache_bytes=cache_bytes, settings=self.settings)
        self.preparer = Preparer(self.state, self.settings, Registry())
        self.zxid = self.base.zxid
        self.time_ms = 1_700_000_000_000
        self.log: list[Prepared] = []

    def ask(
        self,
        op: int,
        body: bytes,
        *,
        session: int = SESSION,
        identities: tuple[Identity, ...] = ANYONE,
        error: int = 0,
    ) -> Prepared:
        """Prepare one request."""
        self.zxid += 1
        self.time_ms += 7
        prepared = self.preparer.prepare(
            op, body, session, self.zxid & 0xFFFF, identities, self.zxid, self.time_ms, error
        )
        if prepared[1]:
            self.log.append(prepared)
        else:  # it could not be decoded: no transaction, and the zxid is free
            self.zxid -= 1
        return prepared

    def create(
        self,
        path: str | None,
        data: bytes | None = b"",
        *,
        flags: int = 0,
        acl: tuple[rec.ACL, ...] | None = OPEN,
        op: int = Op.CREATE,
        session: int = SESSION,
        identities: tuple[Identity, ...] = ANYONE,
        error: int = 0,
    ) -> Prepared:
        """create, create2, createContainer."""
        body = rec.CreateRequest(path, data, acl, flags).encode()
        return self.ask(op, body, session=session, identities=identities, error=error)

    def create_ttl(self, path: str, ttl: int, flags: int = 5) -> Prepared:
        """createTTL."""
        return self.ask(Op.CREATE_TTL, rec.CreateTTLRequest(path, b"t", OPEN, flags, ttl).encode())

    def set_data(self, path: str | None, data: bytes | None, version: int = -1) -> Prepared:
        """setData."""
        return self.ask(Op.SET_DATA, string(path) + buffer(data) + int_(version))

    def delete(self, path: str | None, version: int = -1) -> Prepared:
        """delete."""
        return self.ask(Op.DELETE, string(path) + int_(version))

    def set_acl(
        self,
        path: str | None,
        acl: tuple[rec.ACL, ...] | None,
        version: int = -1,
        identities: tuple[Identity, ...] = ANYONE,
    ) -> Prepared:
        """setACL."""
        return self.ask(
            Op.SET_ACL, rec.SetACLRequest(path, acl, version).encode(), identities=identities
        )

    def stat(self, path: str) -> dict[str, int]:
        """The raw stat of a node that exists."""
        node = self.state.get(path)
        assert node is not None, path
        return stat_of(node.stat)
