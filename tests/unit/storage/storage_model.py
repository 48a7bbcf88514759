"""A tiny znode tree for the tests of storage: makes Txns, replays bodies, and remembers all.

It writes real transaction bodies (header, record, digest) and computes effects and digests on its
own, so that storage is not tested with the code that it works for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zkd.storage.engine import Engine
from zkd.storage.reader import Node, TreeReader, open_tree
from zkd.storage.schema import EMPTY_DIGEST, FRESH_NODES
from zkd.storage.settings import StorageSettings
from zkd.tree.effects import CHANGED, CLOSED, CREATED, DELETED, SESSION, STAT, Effect

STAT_STRUCT = struct.Struct(">qqqqiiiqiiq")
CREATE, DELETE, SET, NEW_SESSION, CLOSE, ERROR = 15, 2, 5, -10, -11, -1
MASK = (1 << 64) - 1
SMALL = StorageSettings(log_wal_bytes=64 * 1024, reserve_bytes=4096, log_retain=100_000)


def buf(data: bytes | None) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def make_body(
    zxid: int, kind: int, record: bytes, digest: int | None, session: int = 0, time: int = 0
) -> bytes:
    tail = b"" if digest is None else struct.pack(">iQ", 2, digest)
    return struct.pack(">qiqqi", session, 0, zxid, time, kind) + record + tail


def node_digest(path: str, data: bytes | None, stat: bytes) -> int:
    if path.startswith("/zookeeper/"):
        return 0
    s = STAT_STRUCT.unpack(stat)
    fields = struct.pack(">qqqqqiiiq", s[0], s[1], s[10], s[2], s[3], s[4], s[5], s[6], s[7])
    return zlib.crc32((b"" if path == "/" else path.encode()) + (data or b"") + fields)


@dataclass
class Model:
    """The tree after the last transaction; `lookup` finds what the model has not touched."""

    lookup: Callable[[str], Node | None] = {p: (d, s, a) for p, d, s, a in FRESH_NODES}.get
    owned: Callable[[int], list[str]] = lambda owner: []
    zxid: int = 0
    digest: int = EMPTY_DIGEST
    nodes: dict[str, Node | None] = field(default_factory=dict)
    sessions: dict[int, int] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Model:
        """The same tree, on its own."""
        return replace(
            self,
            nodes=dict(self.nodes),
            sessions=dict(self.sessions),
            owners=dict(self.owners),
        )

    def get(self, path: str) -> Node | None:
        if path not in self.nodes:
            self.nodes[path] = self.lookup(path)
        return self.nodes[path]

    def _put(self, path: str, data: bytes | None, stat: bytes, acl: bytes | None) -> None:
        self._drop(path)
        self.nodes[path] = (data, stat, acl)
        self.digest = (self.digest + node_digest(path, data, stat)) & MASK

    def _drop(self, path: str) -> None:
        old = self.get(path)
        if old is not None:
            self.digest = (self.digest - node_digest(path, old[0], old[1])) & MASK
        self.nodes[path] = None

    def _parent(self, path: str, zxid: int, children: int) -> Effect:
        parent = path.rpartition("/")[0] or "/"
        data, stat, acl = self.get(parent) or (None, bytes(68), None)
        s = list(STAT_STRUCT.unpack(stat))
        s[9] += children
        s[10] = zxid
        s[5] += children > 0
        new = STAT_STRUCT.pack(*s)
        self._put(parent, data, new, acl)
        return (STAT, parent, new)

    def apply(self, body: bytes) -> list[Effect]:
        session, _, zxid, time, kind = struct.unpack_from(">qiqqi", body)
        self.zxid = zxid
        if kind == ERROR:
            return []
        if kind == NEW_SESSION:
            timeout = struct.unpack_from(">i", body, 32)[0]
            self.sessions[session] = timeout
            return [(SESSION, session, timeout)]
        if kind == CLOSE:
            return self._close(session, zxid)
        size = struct.unpack_from(">i", body, 32)[0]
        at = 36 + size
        path = body[36:at].decode()
        if kind == DELETE:
            return self._delete(path, zxid)
        length = struct.unpack_from(">i", body, at)[0]
        data = None if length < 0 else body[at + 4 : at + 4 + length]
        at += 4 + max(length, 0)
        if kind == SET:
            old = self.get(path)
            assert old is not None
            s = list(STAT_STRUCT.unpack(old[1]))
            s[1], s[3], s[4], s[8] = zxid, time, s[4] + 1, len(data or b"")
            self._put(path, data, STAT_STRUCT.pack(*s), old[2])
            return [(CHANGED, path, STAT_STRUCT.pack(*s), data)]
        owner = session if body[at + 4] else 0
        stat = STAT_STRUCT.pack(zxid, zxid, time, time, 0, 0, 0, owner, len(data or b""), 0, zxid)
        self._put(path, data, stat, None)
        if owner:
            self.owners[path] = owner
        return [(CREATED, path, stat, data, None), self._parent(path, zxid, 1)]

    def _delete(self, path: str, zxid: int) -> list[Effect]:
        old = self.get(path)
        assert old is not None
        owner = STAT_STRUCT.unpack(old[1])[7]
        self._drop(path)
        self.owners.pop(path, None)
        return [(DELETED, path, owner), self._parent(path, zxid, -1)]

    def _close(self, session: int, zxid: int) -> list[Effect]:
        effects: list[Effect] = []
        mine = {p for p, owner in self.owners.items() if owner == session}
        for path in sorted(mine | {p for p in self.owned(session) if self.get(p) is not None}):
            effects += self._delete(path, zxid)
        self.sessions.pop(session, None)
        effects.append((CLOSED, session, self.digest))
        return effects

    # -- making transactions -------------------------------------------------------------------

    def _txn(self, kind: int, record: bytes, session: int = 0) -> tuple[Any, ...]:
        zxid = self.zxid + 1
        effects = self.apply(make_body(zxid, kind, record, None, session, zxid * 10))
        digest = None if kind == ERROR else self.digest
        body = make_body(zxid, kind, record, digest, session, zxid * 10)
        return (zxid, 0, 0, 0, 0, body, effects, None)

    def create(self, path: str, data: bytes | None = b"", session: int = 0) -> tuple[Any, ...]:
        flag = b"\1" if session else b"\0"
        record = buf(path.encode()) + buf(data) + bytes(4) + flag + bytes(4)
        return self._txn(CREATE, record, session)

    def set(self, path: str, data: bytes | None) -> tuple[Any, ...]:
        return self._txn(SET, buf(path.encode()) + buf(data) + bytes(4))

    def delete(self, path: str) -> tuple[Any, ...]:
        return self._txn(DELETE, buf(path.encode()))

    def error(self) -> tuple[Any, ...]:
        return self._txn(ERROR, struct.pack(">i", -101))

    def session(self, session: int, timeout: int = 4000) -> tuple[Any, ...]:
        return self._txn(NEW_SESSION, struct.pack(">i", timeout), session)

    def close(self, session: int) -> tuple[Any, ...]:
        return self._txn(CLOSE, struct.pack(">i", 0), session)


def effects_of(reader: TreeReader) -> Callable[[bytes], list[Effect]]:
    """What the engine replays with."""
    return Model(
        lookup=reader.node, owned=reader.ephemerals, zxid=reader.zxid, digest=reader.digest
    ).apply


def open_engine(folder: Path, settings: StorageSettings = SMALL, **more: Any) -> Engine:
    """An engine over `folder`/data and `folder`/log."""
    return Engine(folder / "data", folder / "log", settings, effects_of=effects_of, **more)


def work_until(engine: Engine, done: Callable[[], bool], limit: int = 20_000) -> None:
    """Run the engine's background work until `done`."""
    import time

    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline, "the engine never got there"
        if not engine.work(0.002):
            time.sleep(0.001)


def dump(folder: Path) -> dict[str, Node]:
    """The whole tree on disk."""
    reader = open_tree(folder / "data", folder / "log", cache_bytes=1 << 20)
    try:
        found: dict[str, Node] = {}
        place = ("", "")
        root = reader.node("/")
        assert root is not None
        found["/"] = root
        while rows := reader.scan(place, 500):
            for parent, name, *node in rows:
                found[f"{parent}/{name}"] = tuple(node)  # type: ignore[assignment]
            place = rows[-1][:2]
        return found
    finally:
        reader.close()


def expected(model: Model) -> dict[str, Node]:
    """What the tree should be after the model's last transaction (from a fresh start)."""
    fresh: dict[str, Node | None] = {p: (d, s, a) for p, d, s, a in FRESH_NODES}
    fresh.update(model.nodes)
    return {path: node for path, node in fresh.items() if node is not None}


def feed(engine: Engine, txns: Sequence[tuple[Any, ...]], size: int = 1) -> None:
    """Append in batches of `size`."""
    for i in range(0, len(txns), size):
        engine.append(list(txns[i : i + size]))
