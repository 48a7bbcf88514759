"""The tree after the last transaction prepared or applied.

    node = own change above base.zxid, else what base holds

Own changes are pinned: never evicted, forgotten only when base has grown past them (`rebase`).
Clean nodes, and the knowledge that a node is absent, live in a cache of two generations within a
budget. `PNode`s are changed in place and belong to this state. A node whose `stat` is empty is
absent or deleted.

The same methods change the tree for preparation and for replay, so both give the same effects,
digests and counts. Inside `begin` ... `commit` or `rollback` every change can be undone.

Source of what each change does: `DataTree.java` of Apache ZooKeeper 3.9.5 (createNode, deleteNode,
setData, setACL, killSession). One thing differs: the counter of creates is compared as a 32-bit
serial number, so that it goes on after 2147483647 (there it stops, and names are used again).
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import Any, Final
from zlib import crc32

from zkd.tree import apply as replay
from zkd.tree import effects as fx
from zkd.tree.base import Base
from zkd.tree.digest import MASK, path_data_crc, stat_digest
from zkd.tree.effects import Effect
from zkd.tree.ephemeral import NORMAL, kind
from zkd.tree.paths import ROOT, SYSTEM_PREFIX
from zkd.tree.quotas import QuotaBook
from zkd.tree.settings import TreeSettings
from zkd.tree.stat import STAT, data_length, owner

NODE_COST: Final = 420
"""Bytes of memory that one node takes here, without its path: measured on CPython 3.11."""

_BUCKET_TXNS: Final = 256
_RELEASED_AT_ONCE: Final = 16

_stat_pack = STAT.pack
_parent_unpack = Struct(">36xi16xi8x").unpack  # cversion, numChildren
_parent_pack = Struct(">36si16siq").pack  # up to cversion, cversion, up to numChildren, it, pzxid
_children_pack = Struct(">56si8s").pack
_data_pack = Struct(">8sq8sqi16si12s").pack  # czxid mzxid ctime mtime version .. dataLength ..
_length_pack = Struct(">52si12s").pack
_aversion_pack = Struct(">40si24s").pack
_pzxid_unpack = Struct(">60xq").unpack
_pzxid_pack = Struct(">60sq").pack
_owner_unpack = Struct(">44xq16x").unpack


class PNode:
    """A node as the peer keeps it: everything but the data.

    `born` is the transaction that created it, if that went through this state, else 0.
    `pcrc` is the CRC32 of path and data, None where no digest is kept (below /zookeeper/, or
    digests disabled); `digest` is then 0. `zxid` is the last transaction that changed the node,
    as far as that is known here.
    """

    __slots__ = ("acl", "born", "digest", "pcrc", "stat", "zxid")

    def __init__(self, stat: bytes, acl: bytes | None, pcrc: int | None, digest: int) -> None:
        self.stat = stat
        self.acl = acl
        self.pcrc = pcrc
        self.digest = digest
        self.zxid = self.born = 0


ABSENT: Final = PNode(b"", None, None, 0)
"""Stands in the cache for a node that is known not to exist. Never changed."""


class TreeState:
    """See the module. Not for use by several threads."""

    def __init__(self, base: Base, *, cache_bytes: int, settings: TreeSettings) -> None:
        """`cache_bytes` bounds the clean nodes; pinned ones come on top (`pinned_bytes`)."""
        self.base = base
        self.settings = settings
        self.zxid = base.zxid
        self.digest = base.digest
        self.node_count = base.node_count
        self.data_bytes = base.data_bytes
        self.sessions: dict[int, int] = dict(base.sessions())
        self.digest_mismatches = 0
        self.last_mismatch: tuple[int, int, int] | None = None  # zxid, digest told, digest here

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
        self._saved: tuple[int, int, int, int] = (0, 0, 0, 0)
        self.book = QuotaBook(self)
        self._limits = self.book.limits

    # ---- looking up

    def get(self, path: str) -> PNode | None:
        """The node as it is now; None if there is none. Changed in place by what follows."""
        node = self.own.get(path)
        if node is None:
            node = self._young.get(path)
            if node is None:
                node = self._fetch(path)
        return node if node.stat else None

    def exists_below(self, parent: PNode, path: str) -> bool:
        """Is there a node at `path`, a child of `parent`? Spares a look at base where it can."""
        if parent.stat[56:60] == b"\0\0\0\0":
            return False
        node = self.own.get(path)
        if node is None:
            if parent.born > self.floor:
                return False  # base does not know the parent
            node = self._young.get(path)
            if node is None:
                node = self._fetch(path)
        return bool(node.stat)

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

    # ---- changing

    def create(
        self,
        path: str,
        parent_path: str,
        parent: PNode,
        data: bytes | None,
        acl: bytes | None,
        raw_owner: int,
        cversion: int,
        zxid: int,
        time_ms: int,
        effects: list[Effect],
    ) -> None:
        """Add a node that is absent, below `parent`, whose counter of creates becomes `cversion`.

        The parent's counter and pzxid move together, and only forward.
        """
        own = self.own
        if self._journal is not None:
            self._save(path, None)
            self._save(parent_path, parent)
        size = len(data) if data else 0
        stat = _stat_pack(zxid, zxid, time_ms, time_ms, 0, 0, 0, raw_owner, size, 0, zxid)
        old = parent.stat
        count, children = _parent_unpack(old)
        if 0 < (cversion - count & 0xFFFFFFFF) < 0x80000000:
            pstat = _parent_pack(old, cversion, old[40:56], children + 1, zxid)
        else:
            pstat = _children_pack(old, children + 1, old[60:])
        parent.stat = pstat

        if self._digested and not path.startswith(SYSTEM_PREFIX):
            pcrc = crc32(path.encode())
            if data:
                pcrc = crc32(data, pcrc)
            digest = crc32(stat[0:16] + stat[60:68] + stat[16:52], pcrc)
            node = PNode(stat, acl, pcrc, digest)
            before = parent.digest
            after = crc32(pstat[0:16] + pstat[60:68] + pstat[16:52], parent.pcrc or 0)
            parent.digest = after
            self.digest = (self.digest + digest - before + after) & MASK
        else:
            node = PNode(stat, acl, None, 0)
            if parent.pcrc is not None:
                self._redigest(parent)
        node.zxid = node.born = zxid
        if path not in own:
            self.pinned_bytes += NODE_COST + len(path)
        own[path] = node
        if parent.zxid <= self.floor:
            self._pin(parent_path, parent)
        parent.zxid = zxid
        add = self._bucket.add
        add(path)
        add(parent_path)

        self.node_count += 1
        self.data_bytes += len(path) + size
        effects.append((fx.CREATED, path, stat, data, acl))
        effects.append((fx.STAT, parent_path, pstat))
        if raw_owner:
            self._own_owner(path, raw_owner)
        if self._limits or node.pcrc is None:
            self.book.created(path, data, zxid, effects)

    def set_data(
        self,
        path: str,
        node: PNode,
        data: bytes | None,
        version: int,
        zxid: int,
        time_ms: int,
        effects: list[Effect],
    ) -> None:
        """Replace the data of a node that exists."""
        if self._journal is not None:
            self._save(path, node)
        old = node.stat
        size = len(data) if data else 0
        stat = _data_pack(old, zxid, old[16:24], time_ms, version, old[36:52], size, old[56:68])
        node.stat = stat
        if node.pcrc is not None:
            pcrc = crc32(path.encode()) if path != ROOT else 0
            if data:
                pcrc = crc32(data, pcrc)
            node.pcrc = pcrc
            before = node.digest
            after = crc32(stat[0:16] + stat[60:68] + stat[16:52], pcrc)
            node.digest = after
            self.digest = (self.digest - before + after) & MASK
        if node.zxid <= self.floor:
            self._pin(path, node)
        node.zxid = zxid
        self._bucket.add(path)
        grown = size - int.from_bytes(old[52:56])
        self.data_bytes += grown
        effects.append((fx.CHANGED, path, stat, data))
        if self._limits or node.pcrc is None:
            self.book.changed(path, data, grown, zxid, effects)

    def set_acl(
        self,
        path: str,
        node: PNode,
        acl: bytes | None,
        aversion: int,
        zxid: int,
        effects: list[Effect],
    ) -> None:
        """Replace the ACL of a node that exists."""
        if self._journal is not None:
            self._save(path, node)
        node.stat = stat = _aversion_pack(node.stat, aversion, node.stat[44:])
        node.acl = acl
        self._redigest(node)
        self._touch(path, node, zxid)
        effects.append((fx.ACL, path, stat, acl))

    def delete(
        self,
        path: str,
        node: PNode,
        parent_path: str,
        parent: PNode,
        zxid: int,
        effects: list[Effect],
    ) -> None:
        """Remove a node that exists and has no children."""
        prefix = self._delete(path, node, parent_path, parent, zxid, effects)
        if prefix is not None:
            self.book.publish(prefix, zxid, effects)

    def _delete(
        self,
        path: str,
        node: PNode,
        parent_path: str,
        parent: PNode,
        zxid: int,
        effects: list[Effect],
    ) -> str | None:
        """`delete` without QUOTA; returns the subtree whose usage has changed."""
        if self._journal is not None:
            self._save(path, node)
            self._save(parent_path, parent)
        old = node.stat
        raw_owner: int = _owner_unpack(old)[0]
        size = int.from_bytes(old[52:56])
        node.stat = b""
        node.acl = None
        self._touch(path, node, zxid)

        pstat = parent.stat
        count, children = _parent_unpack(pstat)
        pzxid = _pzxid_unpack(pstat)[0]
        if zxid > pzxid:
            pzxid = zxid
        pstat = _parent_pack(pstat, count, pstat[40:56], children - 1, pzxid)
        parent.stat = pstat
        if parent.pcrc is not None:
            after = crc32(pstat[0:16] + pstat[60:68] + pstat[16:52], parent.pcrc)
            self.digest = (self.digest - node.digest - parent.digest + after) & MASK
            parent.digest = after
        self._touch(parent_path, parent, zxid)

        self.node_count -= 1
        self.data_bytes -= len(path) + size
        effects.append((fx.DELETED, path, raw_owner))
        effects.append((fx.STAT, parent_path, pstat))
        if raw_owner:
            self._disown(path, raw_owner)
        if self._limits or node.pcrc is None:
            return self.book.deleted(path, size)
        return None

    def set_stat(self, path: str, node: PNode, stat: bytes, zxid: int, effect: Effect) -> Effect:
        """Give a node another stat; returns `effect`, which says so."""
        if self._journal is not None:
            self._save(path, node)
        self.data_bytes += data_length(stat) - data_length(node.stat)
        node.stat = stat
        self._redigest(node)
        self._touch(path, node, zxid)
        return effect

    def raise_pzxid(self, path: str, node: PNode, zxid: int, effects: list[Effect]) -> None:
        """Replay of a delete that had already happened: only the parent's pzxid may move."""
        if zxid > _pzxid_unpack(node.stat)[0]:
            stat = _pzxid_pack(node.stat, zxid)
            effects.append(self.set_stat(path, node, stat, zxid, (fx.STAT, path, stat)))

    def raise_cversion(
        self, path: str, node: PNode, cversion: int, zxid: int, effects: list[Effect]
    ) -> None:
        """Replay of a create that had already happened: the parent's counter may move."""
        old = node.stat
        count, children = _parent_unpack(old)
        if 0 < (cversion - count & 0xFFFFFFFF) < 0x80000000:
            stat = _parent_pack(old, cversion, old[40:56], children, zxid)
            effects.append(self.set_stat(path, node, stat, zxid, (fx.STAT, path, stat)))

    def set_length(self, path: str, node: PNode, data: bytes, zxid: int) -> Effect:
        """Other data without any other trace: a usage node is brought up to date."""
        stat = _length_pack(node.stat, len(data), node.stat[56:])
        return self.set_stat(path, node, stat, zxid, (fx.QUOTA, path, stat, data))

    def create_session(self, session: int, timeout_ms: int, effects: list[Effect]) -> None:
        """A session begins."""
        self.sessions[session] = timeout_ms
        effects.append((fx.SESSION, session, timeout_ms))

    def close_session(
        self, session: int, paths: list[str], zxid: int, effects: list[Effect]
    ) -> None:
        """A session ends: `paths` go first, in that order, then all others that it owns.

        A path that is gone still moves its parent's pzxid. QUOTA comes last, once a subtree.
        """
        usage: dict[str, None] = {}
        for path in [*paths, *sorted(self.ephemerals(session).difference(paths))]:
            slash = path.rfind("/")
            parent_path = path[:slash] or ROOT
            parent = self.get(parent_path)
            if slash < 0 or parent is None:
                continue
            node = self.get(path)
            if node is None:
                self.raise_pzxid(parent_path, parent, zxid, effects)
                continue
            prefix = self._delete(path, node, parent_path, parent, zxid, effects)
            if prefix is not None:
                usage[prefix] = None
        self.sessions.pop(session, None)
        effects.append((fx.CLOSED, session))
        for prefix in usage:
            self.book.publish(prefix, zxid, effects)

    def _own_owner(self, path: str, raw: int) -> None:
        if kind(raw, self.settings) == NORMAL:
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

    def _redigest(self, node: PNode) -> None:
        if node.pcrc is not None:
            after = stat_digest(node.stat, node.pcrc)
            self.digest = (self.digest - node.digest + after) & MASK
            node.digest = after

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
            self.release(2)

    def rebase(self, base: Base) -> None:
        """`base` has grown: forget own changes that it holds now.

        Many are forgotten in several turns, by this and by later transactions, or by `release`.
        """
        self.base = base
        self.floor = base.zxid
        if self._bucket and self.zxid <= self.floor:
            self.turn()
        self.release()

    def release(self, buckets: int = _RELEASED_AT_ONCE) -> bool:
        """Forget some more of what base holds; True if there is still something to forget."""
        own = self.own
        floor = self.floor
        waiting = self._buckets
        while waiting and waiting[0][0] <= floor:
            if buckets == 0:
                return True
            buckets -= 1
            for path in waiting.popleft()[1]:
                node = own.get(path)
                if node is not None and node.zxid <= floor:
                    self._unpin(path, node)
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
        self._saved = (self.digest, self.node_count, self.data_bytes, self.pinned_bytes)

    def commit(self) -> None:
        """Keep the changes since `begin`."""
        self._journal = None

    def rollback(self) -> None:
        """Undo the changes since `begin`."""
        journal = self._journal or []
        self._journal = None
        self.digest, self.node_count, self.data_bytes, self.pinned_bytes = self._saved
        for mapping, key, value, node, stat, acl, pcrc, digest, zxid in reversed(journal):
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

    # ---- replay

    def apply(self, body: bytes) -> list[Effect]:
        """Apply a committed transaction; its effects. Raises Malformed."""
        return self.process(body).effects

    def process(self, body: bytes) -> replay.Applied:
        """Apply a committed transaction: header, error, effects, results. Raises Malformed.

        Replaying what the tree already holds is harmless. A digest in the transaction that
        differs from the tree's is counted, nothing else.
        """
        applied = replay.process(self, body)
        if applied.zxid > self.zxid:
            self.zxid = applied.zxid
            if self.zxid >= self.bucket_end:
                self.turn()
        told = applied.digest
        if told is not None and self._digested and told != self.digest:
            self.digest_mismatches += 1
            self.last_mismatch = (applied.zxid, told, self.digest)
        return applied


class _Missing:
    pass


_MISSING: Final = _Missing()
