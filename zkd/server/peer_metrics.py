"""What the peer counts. What can be derived from its state is, when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from zkd.server.metrics import Dump, Metrics
from zkd.tree.nodes import NODE_COST

if TYPE_CHECKING:
    from zkd.server.peer import PeerProcess
    from zkd.storage.errors import RowDamaged
    from zkd.storage.reader import TreeReader
    from zkd.tree.state import TreeState

STALL_S = 0.005
"""A turn of a loop that takes longer is counted (`zkd_loop_stall_seconds`)."""


class PeerMetrics(Metrics):
    """The metrics of the peer; `turned` is called once a turn of its loop."""

    def __init__(self, peer: PeerProcess) -> None:
        name = peer.child.name
        super().__init__(name)
        self._peer = peer
        self._zxid = 0
        self._prepared = 0
        self._ephemerals_before = 0
        """Ephemerals of the tree on disk when the state began."""
        self._replayed = (0, 0)
        self._prepare = self.summary("prep_process_time")
        self._stalls = self.histogram("zkd_loop_stall_seconds")
        self._stale = self.counter("stale_sessions_expired")
        self._damages = self.counter("zkd_tree_damage_total")
        self._expired = self.counter_set("zkd_sessions_expired_total")
        self.gauge("global_sessions", lambda: len(peer.sessions))
        self.gauge("uptime", lambda: int((time.monotonic() - peer.began) * 1000))
        self._tree_gauge("znode_count", lambda tree: tree.node_count)
        self._tree_gauge("approximate_data_size", lambda tree: tree.data_bytes)
        self._tree_gauge("ephemerals_count", self._ephemerals)
        self._tree_gauge_by_process("zkd_pinned_bytes", lambda tree: tree.pinned_bytes)
        self._tree_gauge_by_process("zkd_cache_bytes", lambda tree: tree.cached_nodes * NODE_COST)
        for what in ("count", "bytes"):
            for kind, found in (("limit", self._quota_limits), ("usage", self._quota_usage)):
                self.gauge_set(f"quota_{what}_{kind}_per_namespace", _bound(found, what))

    def _tree_gauge(self, name: str, read: Callable[[TreeState], int]) -> None:
        peer = self._peer
        self.gauge(name, lambda: read(peer.tree) if peer.tree is not None else 0)

    def _tree_gauge_by_process(self, name: str, read: Callable[[TreeState], int]) -> None:
        peer, process = self._peer, self._peer.child.name
        self.gauge_set(name, lambda: {process: read(peer.tree) if peer.tree is not None else 0})

    # -- fed -----------------------------------------------------------------------------------

    def damaged(self, fault: RowDamaged) -> None:
        """Something in the tree's file is: say it, and count it."""
        self._damages.value += 1
        log = self._peer.log
        log.error(
            "tree.damaged", per=fault.what, what=fault.what, where=fault.where, mend=fault.mend
        )

    def loaded(self, base: TreeReader, tree: TreeState, zxid: int, took_s: float) -> None:
        """The state has been made from base and the log."""
        self._zxid = zxid
        self._ephemerals_before = sum(count for _, count in base.ephemeral_owners())
        self._replayed = (tree.ephemerals_created, tree.ephemerals_deleted)
        self.summary("dbinittime").add(round(took_s * 1000))

    def turned(self, took_s: float) -> None:
        """A turn of the loop has taken so long; what it prepared shares that."""
        fresh = self._peer.zxid - self._zxid
        if fresh:
            self._zxid = self._peer.zxid
            self._prepared += max(fresh, 0)
            self._prepare.add_many(int(took_s * 1000 / fresh), fresh)
        if took_s > STALL_S:
            self._stalls.add(took_s)

    def session_expired(self) -> None:
        """A session has been silent for too long."""
        self._stale.value += 1
        self._expired.add("timeout")

    # -- derived -------------------------------------------------------------------------------

    def dump(self) -> Dump:
        """All values, up to date."""
        peer, tree = self._peer, self._peer.tree
        given_back_s = peer.sessions.given_back_ms / 1000
        self.counter("zkd_stall_returned_seconds_total").value = given_back_s
        self.counter("prep_processor_request_queued").value = self._prepared
        self.counter("outstanding_changes_queued").value = self._prepared
        self.counter("outstanding_changes_removed").value = max(0, self._prepared - len(peer.held))
        if tree is not None:
            self.counter("digest_mismatches_count").value = tree.digest_mismatches
            created, deleted = self._replayed
            made = self.counter("zkd_ephemerals_created_total")
            made.value = tree.ephemerals_created - created
            gone = self.counter("zkd_ephemerals_deleted_total")
            gone.value = tree.ephemerals_deleted - deleted
        return super().dump()

    def reset(self) -> None:
        """What `srst` does."""
        self._prepared = 0
        super().reset()

    def _ephemerals(self, tree: TreeState) -> int:
        return self._ephemerals_before + tree.ephemerals_created - tree.ephemerals_deleted

    def _quota_limits(self, what: str) -> dict[str, int]:
        """Per top-level path; a hard limit goes before a soft one (QuotaMetricsUtils.java)."""
        tree = self._peer.tree
        found: dict[str, int] = {}
        for prefix, limits in tree.book.limits.items() if tree is not None else ():
            hard, soft = (
                (limits.count_hard, limits.count)
                if what == "count"
                else (limits.size_hard, limits.size)
            )
            name = namespace(prefix)
            found[name] = found.get(name, 0) + (hard if hard > -1 else soft)
        return found

    def _quota_usage(self, what: str) -> dict[str, int]:
        tree = self._peer.tree
        found: dict[str, int] = {}
        for prefix in tree.book.limits if tree is not None else ():
            usage = tree.book.usage_of(prefix) if tree is not None else None
            name = namespace(prefix)
            found[name] = found.get(name, 0) + (usage or {}).get(what, 0)
        return found


def _bound(found: Callable[[str], dict[str, int]], what: str) -> Callable[[], dict[str, int]]:
    return lambda: found(what)


def namespace(path: str) -> str:
    """The first component of a path; "" of the root."""
    return path.split("/", 2)[1]
