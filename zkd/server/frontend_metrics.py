"""What a front-end counts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from zkd.server.metrics import Metrics, merge

if TYPE_CHECKING:
    from zkd.plugins.guard import Faults
    from zkd.server.frontend import FrontEnd

DEFAULT_TRACE_MASK = 306


class FrontEndMetrics:
    """The metric objects of one front-end, and the plain counters that are too hot for one."""

    def __init__(self, fe: FrontEnd) -> None:
        self.fe = fe
        self.registry = registry = Metrics(fe.child.name)
        self.rejected = registry.counter("connection_rejected")
        self.connect_requests = registry.counter("connection_request_count")
        self.dropped = registry.counter("connection_drop_count")
        self.sessionless = registry.counter("sessionless_connections_expired")
        self.auth_failed = registry.counter("auth_failed_count")
        self.throttle_waits = registry.counter("request_throttle_wait_count")
        self.throttled_ops = registry.counter("throttled_ops")
        self.refused = registry.counter_set("zkd_requests_refused_total")
        self._update = registry.summary("updatelatency")
        self._read = registry.summary("readlatency")
        self._delivery = registry.histogram("zkd_watch_delivery_seconds")
        self.trace_mask = DEFAULT_TRACE_MASK
        self.packets_received = 0
        self.sent_before = 0
        """Packets sent on connections that have ended, less those before the last srst."""
        self.fast_reads = 0
        self.slow_reads = 0
        self._reads_counted = 0
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

    def count_faults(self, faults: Faults) -> None:
        """Count what the plugins of this process do wrong."""
        faults.feed(self.registry.counter_set("zkd_plugin_faults_total").add)

    def write(self, latency_ms: float) -> None:
        """A write has been answered."""
        self._update.add(int(latency_ms))

    def watch_events(self, events: int, since: float) -> None:
        """So many events have gone to their sockets; their commits were heard of at `since`."""
        self._delivery.add_many(time.monotonic() - since, events)

    @property
    def packets_sent(self) -> int:
        """Replies and events since the last srst, of living and past connections."""
        return self.sent_before + sum(c.sent for c in self.fe.connections.values())

    def latency(self) -> tuple[int, int, int, int]:
        """Count, sum, least and greatest in ms, over reads and writes."""
        self._count_reads()
        fed = [one for one in (self._read, self._update) if one.count]
        if not fed:
            return 0, 0, 0, 0
        count, total = sum(one.count for one in fed), sum(one.total for one in fed)
        return count, total, min(one.min for one in fed), max(one.max for one in fed)

    def _count_reads(self) -> None:
        """Reads are answered within the turn in which they arrive: 0 ms, counted in bulk."""
        reads = self.fast_reads + self.slow_reads
        self._read.add_many(0, reads - self._reads_counted)
        self._reads_counted = reads

    def reset(self) -> None:
        """Begin the server's statistics anew (srst)."""
        self._count_reads()
        self.packets_received = 0
        self.sent_before = -sum(c.sent for c in self.fe.connections.values())
        self.registry.reset()

    def dump(self) -> dict[str, Any]:
        """All metrics, up to date."""
        self._count_reads()
        registry, fe = self.registry, self.fe
        registry.counter("packets_received").value = self.packets_received
        registry.counter("packets_sent").value = self.packets_sent
        registry.counter("response_packet_cache_hits").value = self.fast_reads
        registry.counter("response_packet_cache_misses").value = self.slow_reads
        registry.counter("large_requests_rejected").value = fe.large.rejected
        registry.counter("zkd_watch_events_total").value = fe.served.events
        if fe.served.started:
            registry.counter("zkd_cache_hits_total").value = fe.served.view.hits
            registry.counter("zkd_cache_misses_total").value = fe.served.view.misses
        dump = registry.dump()
        both = [{"latency": dump[n]} for n in ("readlatency", "updatelatency") if n in dump]
        return dump | merge(both)
