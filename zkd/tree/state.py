"""The tree after the last transaction prepared or applied.

The same methods change the tree for preparation and for replay, so both give the same effects,
digests and counts. Where nodes are kept, pinned and undone is in nodes.py.

Source of what each change does: `DataTree.java` of Apache ZooKeeper 3.9.5 (createNode, deleteNode,
setData, setACL, killSession). One thing differs: the counter of creates is compared as a 32-bit
serial number, so that it goes on after 2147483647 (there it stops, and names are used again).
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final

from zkd.tree import apply as replay
from zkd.tree import effects as fx
from zkd.tree.base import Base
from zkd.tree.digest import MASK, digest_order, stat_digest
from zkd.tree.effects import Effect
from zkd.tree.ephemeral import NORMAL, kind
from zkd.tree.errors import ClientRefusal
from zkd.tree.nodes import ABSENT, NODE_COST, NodeStore, PNode
from zkd.tree.paths import ROOT, SYSTEM_PREFIX
from zkd.tree.quotas import QuotaBook
from zkd.tree.settings import TreeSettings
from zkd.tree.stat import STAT, data_length

__all__ = ["ABSENT", "NODE_COST", "PNode", "TreeState"]

crc32: Final = zlib.crc32
_order: Final = digest_order
_stat_pack: Final = STAT.pack
_parent_unpack: Final = Struct(">36xi16xi8x").unpack  # cversion, numChildren
_parent_pack: Final = Struct(
    ">36si16siq"
).pack  # .. cversion .. numChildren pzxid
_children_pack: Final = Struct(">56si8s").pack
_data_pack: Final = Struct(
    ">8sq8sqi16si12s"
).pack  # czxid mzxid .. mtime version .. length ..
_length_pack: Final = Struct(">52si12s").pack
_aversion_pack: Final = Struct(">40si24s").pack
_pzxid_unpack: Final = Struct(">60xq").unpack
_pzxid_pack: Final = Struct(">60sq").pack
_owner_unpack: Final = Struct(">44xq16x").unpack


class TreeState(NodeStore):
    """See the module. Not for use by several threads.

    `zxid`, `digest` (unsigned 64 bit), `node_count`, `data_bytes` and `sessions` (id to timeout in
    ms) are those after the last transaction. `get(path)` gives a node, `ephemerals(session)` paths,
    `pinned_bytes` the memory of own changes; `rebase(base)` forgets what base holds.
    """

    def __init__(self, base: Base, *, cache_bytes: int, settings: TreeSettings) -> None:
        """`cache_bytes` bounds the clean nodes; pinned ones come on top (`pinned_bytes`)."""
        super().__init__(base, cache_bytes, settings)
        self.sessions: dict[int, int] = dict(base.sessions())
        self.digest_mismatches = 0
        self.last_mismatch: tuple[int, int, int] | None = None  # zxid, digest told, digest here
        self.book = QuotaBook(self)
        self._limits = self.book.limits

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
            digest = crc32(_order(stat, stat[60:], stat[16:52]), pcrc)
            node = PNode(stat, acl, pcrc, digest)
            before = parent.digest
            after = crc32(_order(pstat, pstat[60:], pstat[16:52]), parent.pcrc or 0)
            parent.digest = after
            self.digest = (self.digest + digest - before + after) & MASK
        else:
            node = PNode(stat, acl, None, 0)
            if parent.pcrc is not None:
                self._redigest(parent)
        node.zxid = node.born = zxid
        node.top = ""
        if parent.top is not None:
            name = path[path.rfind("/") + 1 :]
            if name > parent.top:
                parent.top = name
        count_before = len(own)
        own[path] = node
        if len(own) > count_before:
            self.pinned_bytes += NODE_COST + len(path)
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
            after = crc32(_order(stat, stat[60:], stat[16:52]), pcrc)
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
            after = crc32(_order(pstat, pstat[60:], pstat[16:52]), parent.pcrc)
            self.digest = (self.digest - node.digest - parent.digest + after) & MASK
            parent.digest = after
        self._touch(parent_path, parent, zxid)

        self.node_count -= 1
        self.data_bytes -= len(path) + size
        effects.append((fx.DELETED, path, raw_owner))
        effects.append((fx.STAT, parent_path, pstat))
        if raw_owner:
            self.ephemerals_deleted += kind(raw_owner, self.settings) == NORMAL
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

        A path that is gone still moves its parent's pzxid. QUOTA comes last, once a subtree. An
        ephemeral whose row on disk is damaged stays: nothing says what to do with its parent.
        """
        usage: dict[str, None] = {}
        for path in [*paths, *sorted(self.ephemerals(session).difference(paths))]:
            slash = path.rfind("/")
            parent_path = path[:slash] or ROOT
            try:
                parent = self.get(parent_path)
                node = self.get(path)
            except ClientRefusal:  # the base has told
                continue
            if slash < 0 or parent is None:
                continue
            if node is None:
                self.raise_pzxid(parent_path, parent, zxid, effects)
                continue
            prefix = self._delete(path, node, parent_path, parent, zxid, effects)
            if prefix is not None:
                usage[prefix] = None
        self.sessions.pop(session, None)
        effects.append((fx.CLOSED, session, self.digest if self.digest_known else 0))
        for prefix in usage:
            self.book.publish(prefix, zxid, effects)

    def _redigest(self, node: PNode) -> None:
        if node.pcrc is not None:
            after = stat_digest(node.stat, node.pcrc)
            self.digest = (self.digest - node.digest + after) & MASK
            node.digest = after

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
