"""What storage counts. Batches are gathered after their word has gone out, and counted later."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zkd.server.metrics import Dump, Metrics
from zkd.tree import effects as fx

if TYPE_CHECKING:
    from zkd.server.storage import Storage

GATHERED_MAX: Final = 64
LOOKED_AT_MAX: Final = 8
"""So many transactions of a batch stand for all of them."""
TREND_S: Final = 3600.0
TREND_STEP_S: Final = 60.0
_TIME: Final = slice(20, 28)
"""Of an entry's TxnHeader."""


class StorageMetrics(Metrics):
    """The metrics of the storage process.

    The stages that Apache ZooKeeper has in its sync processor are one here: a batch waits for the
    end of the one before, and all of it takes as long as its commit.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__("storage")
        self._storage = storage
        config = storage.child.config
        self._folders = sorted({config.data_dir, config.data_log_dir})
        self._log, self._data = config.data_log_dir, config.data_dir
        self._gathered: list[tuple[float, int, int]] = []
        """(seconds of the commit, transactions, ms since the first was prepared)"""
        self._flushes = 0
        self._free: dict[Path, deque[tuple[float, int]]] = {one: deque() for one in self._folders}
        self._fsync = self.summary("fsynctime")
        self._fsync_seconds = self.histogram("zkd_fsync_seconds")
        self._flush_seconds = self.histogram("zkd_tree_flush_seconds")
        self._each_flush = self.summary("sync_processor_queue_flush_time_ms")
        self._each_wait = self.summary("sync_processor_queue_and_flush_time_ms")
        self._propagation = self.summary("propagation_latency")
        self._writes_by = self.summary_set("write_per_namespace")
        self.gauge("zkd_log_bytes", lambda: size_of(self._log, "log.db*"))
        self.gauge("zkd_tree_bytes", lambda: size_of(self._data, "tree-*.db*"))
        self.gauge("zkd_log_backlog_txns", lambda: storage.engine.tree.pinned_txns)
        self.gauge_set("zkd_sequence_counter", self._sequence)
        self.gauge_set("zkd_disk_free_bytes", self._disk_free)
        self.gauge_set("zkd_disk_full_seconds", self._disk_full)
        engine = storage.engine
        if not engine.created:
            self.summary("startup_txns_loaded").add(engine.replayed)
            self.summary("startup_txns_load_time").add(round(engine.recovery_s * 1000))

    # -- fed -----------------------------------------------------------------------------------

    def appended(self, batch: list[tuple[Any, ...]], took_s: float) -> None:
        """A batch has been committed and announced."""
        prepared_ms = int.from_bytes(batch[0][5][_TIME], "big", signed=True)
        late_ms = max(0, int(time.time() * 1000) - prepared_ms)
        self._gathered.append((took_s, len(batch), late_ms))
        count = len(batch)
        step = -(-count // LOOKED_AT_MAX)
        for at in range(0, count, step):
            self._look(batch[at][6], min(step, count - at))
        if len(self._gathered) >= GATHERED_MAX:
            self._count()

    def _look(self, effects: list[fx.Effect], times: int) -> None:
        """`DataTree.updateWriteStat`"""
        for effect in effects:
            kind, path = effect[0], effect[1]
            if kind > fx.CHANGED or len(path) < 2:
                continue
            size = len(path)
            if kind != fx.DELETED:
                size += len(effect[3] or b"")
            self._writes_by.add_many(path.split("/", 2)[1], size, times)

    def turned(self) -> None:
        """The tree on disk has moved on: perhaps by a flush."""
        tree = self._storage.engine.tree
        if tree.flushes != self._flushes:
            self._flushes = tree.flushes
            self._flush_seconds.add(tree.flush_s)
            self.summary("snapshottime").add(round(tree.flush_s * 1000))

    def _count(self) -> None:
        """Count the batches that have been gathered."""
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        times_ms = [round(took * 1000) for took, _, _ in gathered]
        sizes = [count for _, count, _ in gathered]
        self._fsync.add_all(times_ms)
        self._fsync_seconds.add_all([took for took, _, _ in gathered])
        self.summary("sync_process_time").add_all(times_ms)
        self.summary("sync_processor_batch_size").add_all(sizes)
        self.summary("sync_processor_queue_size").add_all(sizes)
        self.counter("sync_processor_request_queued").value += sum(sizes)
        for (_, count, late_ms), ms in zip(gathered, times_ms, strict=True):
            self._each_flush.add_many(ms, count)
            self._each_wait.add_many(ms, count)
            self._propagation.add_many(late_ms, count)

    # -- asked ---------------------------------------------------------------------------------

    def dump(self) -> Dump:
        """All values, up to date."""
        self._count()
        return super().dump()

    def reset(self) -> None:
        """What `srst` does."""
        self._count()
        super().reset()

    def _sequence(self) -> dict[str, int]:
        """The highest counter of all znodes that make sequential names (or had many children)."""
        path, counter = self._storage.engine.tree.counters.highest()
        return {path: counter} if path else {}

    def _disk_free(self) -> dict[str, int]:
        return {str(folder): free_bytes(folder) for folder in self._folders}

    def _disk_full(self) -> dict[str, float]:
        """Where the room shrinks: until it is gone, at the rate of the last hour."""
        now = time.monotonic()
        found: dict[str, float] = {}
        for folder, seen in self._free.items():
            free = free_bytes(folder)
            left_s = seconds_left(seen, now, free)
            if left_s is not None:
                found[str(folder)] = left_s
            if not seen or now - seen[-1][0] >= TREND_STEP_S:
                seen.append((now, free))
        return found


def seconds_left(seen: deque[tuple[float, int]], now: float, free: int) -> float | None:
    """How long `free` bytes last, at the rate since the oldest of `seen` (s, bytes) that is not
    older than an hour; None if that is too short a time, or nothing shrinks."""
    while seen and now - seen[0][0] > TREND_S:
        seen.popleft()
    if not seen or now - seen[0][0] < TREND_STEP_S or seen[0][1] <= free:
        return None
    return free * (now - seen[0][0]) / (seen[0][1] - free)


def free_bytes(folder: Path) -> int:
    """What this user may still write there."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def size_of(folder: Path, pattern: str) -> int:
    """Bytes of the files of a folder that match."""
    total = 0
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
