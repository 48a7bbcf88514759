"""Nodes in memory: own changes over a base, a bounded cache, and the way back.

    node = own change above base.zxid, else what base holds

Own changes are pinned: never evicted, forgotten only when base has grown past them (`rebase`).
Changed paths are kept in buckets in the order of their transactions, so that forgetting costs what
is forgotten. Clean nodes, and the knowledge that a node is absent, live in a cache of two
generations within a budget: a full younger one becomes the older, a hit in the older goes into the
younger. `PNode`s are changed in place and belong here. One whose `stat` is empty is absent or
deleted.

Inside `begin` ... `commit` or `rollback` every change can be undone: a journal holds what was.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import Any, Final

from zkd.tree.base import Base
from zkd.tree.digest import path_data_crc, stat_digest
from zkd.tree.ephemeral import NORMAL, kind
from zkd.tree.paths import ROOT, SYSTEM_PREFIX
from zkd.tree.settings import TreeSettings
from zkd.tree.stat import owner

NODE_COST: Final = 420
"""Bytes of memory that one node takes here, without its path: measured on CPython 3.11."""

_BUCKET_TXNS: Final = 32
_BUCKET_PATHS: Final = 128
"""A bucket with so many paths, because of multis, ends before it has _BUCKET_TXNS."""
_RELEASED_A_TURN: Final = 128
"""Four paths a transaction, in portions that a client does not feel (docs/performance.md)."""
_RELEASED_AT_ONCE: Final = 32

_owner_unpack: Final = Struct(">44xq16x").unpack


class _Missing:
    pass


_MISSING: Final = _Missing()


class PNode:
    """A node as the peer keeps it: everything but the data.

    `born` is the transaction that created it, if that went through this state, else 0.
    `pcrc` is the CRC32 of path and data, None where no digest is kept (below /zookeeper/, or
    digests disabled); `digest` is then 0. `zxid` is the last transaction that changed the node,
    as far as that is known here. `top`: no child's name is above it (order of code points); None
    while that is not known.
    """

    __slots__ = ("acl", "born", "digest", "pcrc", "stat", "top", "zxid")

    def __init__(self, stat: bytes, acl: bytes | None, pcrc: int | None, digest: int) -> None:
        self.stat = stat
        self.acl = acl
        self.pcrc = pcrc
        self.digest = digest
        self.zxid = self.born = 0
        self.top: str | None = None


ABSENT: Final = PNode(b"", None, None, 0)
"""Stands in the cache for a node that is known not to exist. Never changed."""


class NodeStore:
    """See the module. `TreeState` adds the changes themselves."""

    def __init__(self, base: Base, cache_bytes: int, settings: TreeSettings) -> None:
        """`cache_bytes` bounds the clean nodes; pinned ones come on top (`pinned_bytes`)."""
        self.base = base
        self.settings = settings
        self.zxid = base.zxid
        self.digest = base.digest
        self.digest_known = settings.digest_enabled and base.digest != 0
        """False: the base does not know its digest, so `digest` means nothing."""
        self.node_count = base.node_count
        self.data_bytes = base.data_bytes

        self.own: dict[str, PNode] = {}
        self.floor = base.zxid
        self.bucket_end = 0
        self.pinned_bytes = 0
        self._bucket: set[str] = set()
        self._buckets: deque[tuple[int, set[str]]] = deque()

        self._young: dict[str, PNode] = {}
        self._old: dict[str, PNode] = {}
        self._young_bytes = 0
        self._young_limit = cache_bytes // 2

        self._digested = settings.digest_enabled
        self._ephemerals: dict[int, dict[str, None]] = {}  # own creations that still stand
        self._specials: dict[str, int] = {}
        self._journal: list[tuple[Any, ...]] | None = None
        self._saved: tuple[int, ...] = ()
        self.ephemerals_created = self.ephemerals_deleted = 0
        """Through this state; those of base are not among them."""

    # ---- looking up

    def get(self, path: str) -> PNode | None:
        """The node as it is now; None if there is none. Changed in place by what follows."""
        node = self.own.get(path)
        if node is None:
            node = self._young.get(path)
            if node is None:
                node = self._fetch(path)
        return node if node.stat else None

    def exists_below(self, parent: PNode, parent_path: str, path: str) -> bool:
        """Is there a node at `path`, a child of `parent`? Spares a look at base where it can.

        That it is absent is not remembered: it is about to be created."""
        if parent.stat[56:60] == b"\0\0\0\0":
            return False
        if self._beyond(parent, parent_path, path):
            return False
        node = self.own.get(path)
        if node is None:
            if parent.born > self.floor:
                return False  # base does not know the parent
            node = self._young.get(path)
            if node is None:
                node = self._old.get(path)
                if node is None:
                    node = self._load(path)
                if node.stat:
                    self._keep(path, node)
        return bool(node.stat)

    def _beyond(self, parent: PNode, parent_path: str, path: str) -> bool:
        """Is the name in `path` above all that were ever seen in this directory? So are those of
        sequential nodes, and of whatever else is numbered or dated."""
        if parent.top is None:
            if parent.zxid > self.floor:  # it may have children that base does not know yet
                return False
            parent.top = self.base.last_child(parent_path)
        return path[path.rfind("/") + 1 :] > parent.top

    def _fetch(self, path: str) -> PNode:
        node = self._old.get(path)
        if node is None:
            node = self._load(path)
        self._keep(path, node)
        return node

    def _load(self, path: str) -> PNode:
        if path[:1] != "/" or (path[-1] == "/" and path != ROOT):
            return ABSENT
        found = self.base.node(path)
        if found is None:
            return ABSENT
        data, stat, acl = found
        if not self._digested or path.startswith(SYSTEM_PREFIX):
            return PNode(stat, acl, None, 0)
        pcrc = path_data_crc(path, data)
        return PNode(stat, acl, pcrc, stat_digest(stat, pcrc))

    def _keep(self, path: str, node: PNode) -> None:
        """Put a clean node into the younger generation; swap generations when that is full."""
        self._young[path] = node
        self._young_bytes += NODE_COST + len(path)
        if self._young_bytes > self._young_limit:
            self._old = self._young
            self._young = {}
            self._young_bytes = 0

    @property
    def cached_nodes(self) -> int:
        """Clean and absent nodes in the cache."""
        return len(self._young) + len(self._old)

    # ---- by owner

    def ephemerals(self, session: int) -> set[str]:
        """The paths of a session's ephemerals."""
        own = self.own
        found = set(self._ephemerals.get(session, ()))
        for path in self.base.ephemerals(session):
            node = own.get(path)
            if node is None or (node.stat and owner(node.stat) == session):
                found.add(path)
        return found

    def specials(self) -> list[tuple[str, int]]:
        """Containers and TTL nodes: path, raw owner."""
        own = self.own
        standing = [
            (path, raw)
            for path, raw in self.base.specials()
            if (node := own.get(path)) is None or (node.stat and owner(node.stat) == raw)
        ]
        known = {path for path, _ in standing}
        standing.extend(one for one in self._specials.items() if one[0] not in known)
        return standing

    def _own_owner(self, path: str, raw: int) -> None:
        if kind(raw, self.settings) == NORMAL:
            self.ephemerals_created += 1
            paths = self._ephemerals.setdefault(raw, {})
            self.note(paths, path)
            paths[path] = None
        else:
            self.note(self._specials, path)
            self._specials[path] = raw

    def _disown(self, path: str, raw: int) -> None:
        paths: dict[str, Any] | None = self._ephemerals.get(raw)
        if paths is not None and path in paths:
            self.note(paths, path)
            del paths[path]
            if not paths and self._journal is None:
                del self._ephemerals[raw]
        elif path in self._specials:
            self.note(self._specials, path)
            del self._specials[path]

    # ---- pinning

    def _touch(self, path: str, node: PNode, zxid: int) -> None:
        if node.zxid <= self.floor:
            self._pin(path, node)
        node.zxid = zxid
        self._bucket.add(path)

    def _pin(self, path: str, node: PNode) -> None:
        if path not in self.own:
            self.pinned_bytes += NODE_COST + len(path)
        self.own[path] = node

    def turn(self) -> None:
        """Start the next bucket of changed paths; due when `zxid` has reached `bucket_end`."""
        if self._bucket:
            self._buckets.append((self.zxid, self._bucket))
            self._bucket = set()
        self.bucket_end = self.zxid + _BUCKET_TXNS
        if self._buckets and self._buckets[0][0] <= self.floor:
            self.release(_RELEASED_A_TURN)

    def rebase(self, base: Base) -> None:
        """`base` has grown: forget own changes that it holds now.

        Many are forgotten in several turns, by this and by later transactions, or by `release`.
        """
        self.base = base
        self.floor = base.zxid
        if self._bucket and self.zxid <= self.floor:
            self.turn()
        self.release()

    def release(self, paths: int = _RELEASED_AT_ONCE) -> bool:
        """Forget some more of what base holds; True if there is still something to forget."""
        own = self.own
        floor = self.floor
        waiting = self._buckets
        while waiting and waiting[0][0] <= floor:
            bucket = waiting[0][1]
            while bucket:
                if paths == 0:
                    return True
                paths -= 1
                path = bucket.pop()
                node = own.get(path)
                if node is not None and node.zxid <= floor:
                    self._unpin(path, node)
            waiting.popleft()
        return False

    def _unpin(self, path: str, node: PNode) -> None:
        del self.own[path]
        self.pinned_bytes -= NODE_COST + len(path)
        if node.stat:
            raw: int = _owner_unpack(node.stat)[0]
            if raw:
                self._disown(path, raw)
            self._keep(path, node)
        else:
            self._keep(path, ABSENT)

    # ---- undoing

    def begin(self) -> None:
        """From here on changes can be undone."""
        self._journal = []
        self._saved = (
            self.digest,
            self.node_count,
            self.data_bytes,
            self.pinned_bytes,
            self.ephemerals_created,
            self.ephemerals_deleted,
        )

    def commit(self) -> None:
        """Keep the changes since `begin`."""
        self._journal = None
        if len(self._bucket) >= _BUCKET_PATHS:
            self.bucket_end = 0

    def rollback(self) -> None:
        """Undo the changes since `begin`."""
        journal: list[tuple[Any, ...]] = self._journal or []
        journal.reverse()
        self._journal = None
        self.digest, self.node_count, self.data_bytes, self.pinned_bytes, *counts = self._saved
        self.ephemerals_created, self.ephemerals_deleted = counts
        for entry in journal:
            mapping, key, value, node, stat, acl, pcrc, digest, zxid = entry
            if value is _MISSING:
                mapping.pop(key, None)
            else:
                mapping[key] = value
            if node is not None:
                node.stat = stat
                node.acl = acl
                node.pcrc = pcrc
                node.digest = digest
                node.zxid = zxid

    def _save(self, path: str, node: PNode | None) -> None:
        assert self._journal is not None
        pinned = self.own.get(path, _MISSING)
        if node is None:
            self._journal.append((self.own, path, pinned, None, None, None, None, None, None))
        else:
            self._journal.append(
                (
                    self.own,
                    path,
                    pinned,
                    node,
                    node.stat,
                    node.acl,
                    node.pcrc,
                    node.digest,
                    node.zxid,
                )
            )

    def note(self, mapping: dict[str, Any], key: str) -> None:
        """Remember what `mapping` holds at `key`, before a change."""
        if self._journal is not None:
            value = mapping.get(key, _MISSING)
            self._journal.append((mapping, key, value, None, None, None, None, None, None))
