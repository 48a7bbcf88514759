"""Metrics exporters, each in a thread of its own: one that blocks or fails hurts nobody.

`start` of an exporter is called until it succeeds, with a pause that doubles up to
BACK_OFF_MAX_S; before it is called again, `stop` clears away what the failed one left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from zkd.plugins.api import MetricsExporter, ReadMetrics
from zkd.plugins.guard import Faults
from zkd.plugins.loader import Loaded

BACK_OFF_S: Final = 1.0
BACK_OFF_MAX_S: Final = 60.0


class ExporterRunner:
    """Starts and stops all exporters. `read_metrics` must bear calls from any thread."""

    def __init__(
        self,
        exporters: Sequence[Loaded[MetricsExporter]],
        read_metrics: ReadMetrics,
        *,
        faults: Faults | None = None,
        back_off_s: float = BACK_OFF_S,
    ) -> None:
        self._faults = faults if faults is not None else Faults()
        self._read_metrics = read_metrics
        self._back_off_s = back_off_s
        self._stopping = threading.Event()
        self._running: set[str] = set()
        self._threads = [
            (
                loaded,
                threading.Thread(
                    target=self._run,
                    args=(loaded,),
                    name=f"exporter {loaded.item.name}",
                    daemon=True,
                ),
            )
            for loaded in exporters
        ]

    @property
    def running(self) -> frozenset[str]:
        """Names of the exporters whose `start` has returned."""
        return frozenset(self._running)

    def start(self) -> None:
        for _, thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop all; one that does not return in time is left behind and logged."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for loaded, thread in self._threads:
            if not thread.is_alive():
                continue
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._faults.report(
                    loaded.source, "late", f"exporter {loaded.item.name} did not stop in time"
                )

    def _run(self, loaded: Loaded[MetricsExporter]) -> None:
        exporter = loaded.item
        pause = self._back_off_s
        while not self._start_one(loaded):
            self._stop_one(loaded)
            if self._stopping.wait(pause):
                return
            pause = min(pause * 2, BACK_OFF_MAX_S)
        self._running.add(exporter.name)
        self._stopping.wait()
        self._running.discard(exporter.name)
        self._stop_one(loaded)

    def _start_one(self, loaded: Loaded[MetricsExporter]) -> bool:
        try:
            loaded.item.start(self._read_metrics)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
            self._faults.report(loaded.source, "raised", "raised in start", error)
            return False
        return True

    def _stop_one(self, loaded: Loaded[MetricsExporter]) -> None:
        try:
            loaded.item.stop()
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
            self._faults.report(loaded.source, "raised", "raised in stop", error)
