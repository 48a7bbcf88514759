"""What a front-end counts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from zkd.jute.protocol import Op
from zkd.server.metrics import Metrics, merge
from zkd.tree.errors import ClientRefusal

if TYPE_CHECKING:
    from zkd.plugins.guard import Faults
    from zkd.server.frontend import FrontEnd
    from zkd.storage.errors import RowDamaged

DEFAULT_TRACE_MASK = 306
STALL_S: Final = 0.005
"""A loop that is later than this has stalled."""
TIMER_S: Final = 0.001
"""How late a timer is at any time."""
SAMPLES_A_TICK: Final = 100
STAT_BYTES: Final = 68
LISTINGS: Final = frozenset({Op.GET_CHILDREN, Op.GET_CHILDREN2})
PATH_READS: Final = frozenset(
    {Op.EXISTS, Op.GET_DATA, Op.GET_ACL, Op.GET_CHILDREN, Op.GET_CHILDREN2}
)


class FrontEndMetrics:
    """The metric objects of one front-end, and the plain counters that are too hot for one.

    What each request would have to feed is gathered instead and counted at each tick: latencies of
    writes, sizes of replies. A read is answered within the turn in which it arrives, so its latency
    is how late the loop is; all reads between two ticks get that of the second. Of reads per
    namespace the total is exact, and the parts are those of the requests looked at.
    """

    def __init__(self, fe: FrontEnd) -> None:
        self.fe = fe
        self.registry = registry = Metrics(fe.child.name)
        self.rejected = registry.counter("connection_rejected")
        self.connect_requests = registry.counter("connection_request_count")
        self.dropped = registry.counter("connection_drop_count")
        self.shed = registry.counter("zkd_connections_shed_total")
        self.sessionless = registry.counter("sessionless_connections_expired")
        self.auth_failed = registry.counter("auth_failed_count")
        self.auth_failed_by = registry.counter_set("zkd_auth_failed_total")
        self.throttle_waits = registry.counter("request_throttle_wait_count")
        self.throttled_ops = registry.counter("throttled_ops")
        self._throttle_queue = registry.summary("request_throttle_queue_time_ms")
        self._stale = registry.counter("stale_requests")
        self.stale_dropped = registry.counter("stale_requests_dropped")
        self.not_serving = registry.counter("cnxn_closed_without_zk_server_running")
        self.refused = registry.counter_set("zkd_requests_refused_total")
        self.denied = registry.counter_set("zkd_acl_denied_total")
        self._update = registry.summary("updatelatency")
        self._update_seconds = registry.histogram("zkd_write_latency_seconds")
        self._latencies: list[float] = []
        self.write = self._latencies.append
        """A write has been answered, so many ms after it came."""
        self._read = registry.summary("readlatency")
        self._read_seconds = registry.histogram("zkd_read_latency_seconds")
        self._reads_by = registry.summary_set("read_per_namespace")
        self._stalls = registry.histogram("zkd_loop_stall_seconds")
        self._sizes = registry.sizes("client_response_size")
        self._replied: list[int] = []
        self.reply_size = self._replied.append
        """A reply of so many bytes, unless it is one that stood prepared: that was counted then."""
        fe.served.fired = {
            kind: registry.summary(f"node_{what}_watch_count")
            for kind, what in enumerate(("created", "deleted", "changed", "children"), 1)
        }
        self._delivery = registry.histogram("zkd_watch_delivery_seconds")
        self._damages = registry.counter("zkd_tree_damage_total")
        self.trace_mask = DEFAULT_TRACE_MASK
        self.packets_received = 0
        self.sent_before = 0
        """Packets sent on connections that have ended, less those before the last srst."""
        self.fast_reads = 0
        self.slow_reads = 0
        self._reads_counted = 0
        self._reads_sampled = 0
        self._sampled = ("", 0)
        """Namespace and size of the last read that was looked at."""
        self.samples = SAMPLES_A_TICK
        """So many requests are still looked at before the next tick."""
        self.bytes_received = 0
        self.bytes_sent = 0
        name = fe.child.name
        registry.gauge("num_alive_connections", lambda: len(fe.connections))
        registry.gauge("outstanding_requests", lambda: fe.in_flight)
        registry.gauge("watch_count", lambda: fe.served.watches.count)
        registry.gauge("connection_drop_probability", lambda: fe.admission.throttle.drop_chance)
        registry.gauge_set("zkd_pinned_bytes", lambda: {name: fe.served.pinned_bytes})
        registry.gauge_set(
            "zkd_cache_bytes",
            lambda: {name: fe.served.view.cache_bytes if fe.served.started else 0},
        )

    def throttled(self, waited_ms: int, *, stale: bool) -> None:
        """A request has waited so long in the throttle's line."""
        self._throttle_queue.add(waited_ms)
        if stale:
            self._stale.value += 1

    def damaged(self, fault: RowDamaged) -> None:
        """Something in the tree's file is: say it, and count it."""
        self._damages.value += 1
        self.fe.log.error(
            "tree.damaged", per=fault.what, what=fault.what, where=fault.where, mend=fault.mend
        )

    def count_faults(self, faults: Faults) -> None:
        """Count what the plugins of this process do wrong."""
        faults.feed(self.registry.counter_set("zkd_plugin_faults_total").add)

    def watch_events(self, events: int, since: float) -> None:
        """So many events have gone to their sockets; their commits were heard of at `since`."""
        self._delivery.add_many(time.monotonic() - since, events)

    @property
    def packets_sent(self) -> int:
        """Replies and events since the last srst, of living and past connections."""
        return self.sent_before + sum(c.sent for c in self.fe.connections.values())

    def latency(self) -> tuple[int, int, int, int]:
        """Count, sum, least and greatest in ms, over reads and writes."""
        self._count()
        fed = [one for one in (self._read, self._update) if one.count]
        if not fed:
            return 0, 0, 0, 0
        count, total = sum(one.count for one in fed), sum(one.total for one in fed)
        return count, total, min(one.min for one in fed), max(one.max for one in fed)

    def tick(self, late_s: float) -> None:
        """A few times a second: the loop has come so late to its tick."""
        late_s = max(0.0, late_s - TIMER_S)
        self._count(late_s)
        self.samples = SAMPLES_A_TICK
        if late_s > STALL_S:
            self._stalls.add(late_s)

    def _count(self, late_s: float = 0.0) -> None:
        """Count what has been gathered."""
        reads = self.fast_reads + self.slow_reads
        fresh = reads - self._reads_counted
        if fresh:
            self._reads_counted = reads
            self._read.add_many(int(late_s * 1000), fresh)
            self._read_seconds.add_many(late_s, fresh)
            self._attribute(reads)
        if self._latencies:
            self._update.add_all(list(map(int, self._latencies)))
            self._update_seconds.add_all([ms / 1000 for ms in self._latencies])
            self._latencies.clear()
        if self._replied:
            self._sizes.add_all(self._replied)
            self._replied.clear()

    def sample(self, data: bytes) -> None:
        """A buffer of requests: its first, if it reads a path, stands for all reads since the last
        look. (`DataTree.updateReadStat`)"""
        self.samples -= 1
        op, size = int.from_bytes(data[8:12], "big"), int.from_bytes(data[12:16], "big")
        if op not in PATH_READS or not 1 < size < len(data):
            return
        path = data[16 : 16 + size].decode("utf-8", "replace")
        view = self.fe.served.view
        try:
            node = view.get(path) if path[0] == "/" else None
        except ClientRefusal:
            return
        if node is None:
            return
        read = len(path) + STAT_BYTES
        if op == Op.GET_DATA:
            read += len(node.data or b"")
        elif op in LISTINGS and (names := view.children(path)):
            read += len(names) - 4 - 4 * int.from_bytes(names[:4], "big")
        self._sampled = (path.split("/", 2)[1], read)
        self._attribute(self.fast_reads + self.slow_reads)

    def _attribute(self, reads: int) -> None:
        """All reads up to now that nobody looked at were such as the last one looked at."""
        namespace, size = self._sampled
        if namespace:
            self._reads_by.add_many(namespace, size, reads - self._reads_sampled)
            self._reads_sampled = reads

    def reset(self) -> None:
        """Begin the server's statistics anew (srst)."""
        self._count()
        self.packets_received = self.bytes_received = self.bytes_sent = 0
        self.fe.served.event_bytes = 0
        self.sent_before = -sum(c.sent for c in self.fe.connections.values())
        self.registry.reset()

    def dump(self) -> dict[str, Any]:
        """All metrics, up to date."""
        self._count()
        registry, fe = self.registry, self.fe
        registry.counter("packets_received").value = self.packets_received
        registry.counter("packets_sent").value = self.packets_sent
        registry.counter("response_packet_cache_hits").value = self.fast_reads
        registry.counter("response_packet_cache_misses").value = self.slow_reads
        registry.counter("large_requests_rejected").value = fe.large.rejected
        registry.counter("bytes_received_count").value = self.bytes_received
        registry.counter("response_bytes").value = self.bytes_sent - fe.served.event_bytes
        registry.counter("watch_bytes").value = fe.served.event_bytes
        registry.counter("zkd_watch_events_total").value = fe.served.events
        registry.counter("zkd_watches_refused_total").value = fe.served.watches_refused
        if fe.served.started:
            registry.counter("zkd_cache_hits_total").value = fe.served.view.hits
            registry.counter("zkd_cache_misses_total").value = fe.served.view.misses
        dump = registry.dump()
        both = [{"latency": dump[n]} for n in ("readlatency", "updatelatency") if n in dump]
        return dump | merge(both)
