"""Audit events on their way to the sinks: a front-end hands one over and never waits.

Each sink has a bounded queue and a thread, so one that blocks costs neither the front-end nor
another sink more than its own events: what does not fit is dropped, counted and logged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final

from zkd.plugins.api import AuditEvent, AuditSink
from zkd.plugins.guard import Faults
from zkd.plugins.loader import Loaded

QUEUE_MAX: Final = 10_000

PERMISSIONS: Final = ((4, "c"), (8, "d"), (1, "r"), (2, "w"), (16, "a"))
"""In the order in which Apache ZooKeeper writes them."""


class AuditDispatcher:
    """Hands events to all sinks. `emit` and `stop` are for one thread, the front-end's loop.

    `on_drop(sink name)` is called by `emit` for each dropped event (a metric).
    """

    def __init__(
        self,
        sinks: Sequence[Loaded[AuditSink]],
        *,
        faults: Faults | None = None,
        queue_max: int = QUEUE_MAX,
        on_drop: Callable[[str], None] | None = None,
    ) -> None:
        self._faults = faults if faults is not None else Faults()
        self._queue_max = queue_max
        self._on_drop = on_drop
        self._lines = [_Line(loaded, self._faults) for loaded in sinks]
        self.dropped = 0

    @property
    def active(self) -> bool:
        """Whether there is a sink: without one, make no events."""
        return bool(self._lines)

    def emit(self, event: AuditEvent) -> None:
        """Queue one event for every sink. Never blocks, never raises."""
        for line in self._lines:
            if line.queue.qsize() < self._queue_max:
                line.queue.put(event)
                continue
            self.dropped += 1
            name = line.loaded.item.name
            self._faults.report(
                line.loaded.source, "dropped", f"sink {name} is too slow: an audit event is lost"
            )
            if self._on_drop is not None:
                self._on_drop(name)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Write out what is queued, close the sinks; leave behind what does not end in time."""
        for line in self._lines:
            line.queue.put(None)
        deadline = time.monotonic() + timeout_s
        for line in self._lines:
            line.thread.join(max(0.0, deadline - time.monotonic()))
            if line.thread.is_alive():
                left = line.queue.qsize()
                self._faults.report(
                    line.loaded.source,
                    "late",
                    f"sink {line.loaded.item.name} did not end; {left} audit events are lost",
                )
        self._lines = []


class _Line:
    """The queue and the thread of one sink."""

    def __init__(self, loaded: Loaded[AuditSink], faults: Faults) -> None:
        self.loaded = loaded
        self.queue: SimpleQueue[AuditEvent | None] = SimpleQueue()
        self._faults = faults
        self.thread = threading.Thread(
            target=self._run, name=f"audit {loaded.item.name}", daemon=True
        )
        self.thread.start()

    def _run(self) -> None:
        sink = self.loaded.item
        while (event := self.queue.get()) is not None:
            try:
                sink.write(event)
            except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
                self._faults.report(self.loaded.source, "raised", "raised in write", error)
        try:
            sink.close()
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
            self._faults.report(self.loaded.source, "raised", "raised in close", error)


def acl_text(entries: Sequence[tuple[int, str | None, str | None]]) -> str:
    """An ACL as audit lines show it: `scheme:id:cdrwa` of each entry, nothing between them.

    Hand in redacted ids. (`ZKUtil.aclToString`)
    """
    return "".join(
        f"{scheme or ''}:{own_id or ''}:" + "".join(c for bit, c in PERMISSIONS if perms & bit)
        for perms, scheme, own_id in entries
    )
