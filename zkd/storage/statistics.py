"""The numbers that metrics, four-letter words and `zkd status` show of storage.

Sizes are bytes, times seconds, zxids numbers; `_total` and `_count` only grow. `disk_*` is the
file system of the log.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zkd.storage.database import wal_path

if TYPE_CHECKING:
    from zkd.storage.engine import Engine

BOUNDS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class Timing:
    """How long commits took, and how large they were."""

    __slots__ = ("buckets", "count", "last_s", "max_s", "rows", "rows_max", "total_s")

    def __init__(self) -> None:
        self.count = self.rows = self.rows_max = 0
        self.total_s = self.last_s = self.max_s = 0.0
        self.buckets = [0] * (len(BOUNDS_S) + 1)

    def add(self, seconds: float, rows: int) -> None:
        """One commit."""
        self.count += 1
        self.rows += rows
        self.total_s += seconds
        self.last_s = seconds
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        if seconds > self.max_s:
            self.max_s = seconds
        if rows > self.rows_max:
            self.rows_max = rows


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def folder_bytes(folder: Path) -> int:
    """Bytes of the files directly in a folder."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total


def statistics(engine: Engine) -> dict[str, Any]:
    """Everything about one engine."""
    tree, log, timing = engine.tree, engine.log, engine.timing
    disk = os.statvfs(engine.log_dir)
    path, counter = tree.counters.highest()
    accepted, current = engine.epochs
    return {
        "durable": engine.durable,
        "committed": engine.committed,
        "incarnation": engine.incarnation,
        "generation": engine.generation,
        "accepted_epoch": accepted,
        "current_epoch": current,
        "full": engine.full,
        "must_synchronise": engine.must_synchronise,
        "replayed": engine.replayed,
        "recovery_s": engine.recovery_s,
        "tree_zxid": tree.zxid,
        "tree_synced": tree.synced,
        "tree_lag": tree.pinned_txns,
        "tree_lag_s": tree.unflushed_s,
        "pinned_bytes": tree.pinned_bytes,
        "node_count": tree.node_count,
        "data_bytes": tree.data_bytes,
        "digest": tree.digest,
        "tree_checkpoint_count": tree.checkpoints,
        "flush_count": tree.flushes,
        "last_flush_s": tree.flush_s,
        "tree_bytes": size_of(tree.path),
        "tree_wal_bytes": size_of(wal_path(tree.path)),
        "tree_wal_frames": tree.wal_frames,
        "highest_counter": counter,
        "highest_counter_path": path,
        "log_rows": engine.keeper.rows,
        "log_purged_to": log.meta.purged_to,
        "log_bytes": size_of(log.path),
        "log_wal_bytes": size_of(wal_path(log.path)),
        "log_wal_frames": log.wal_frames,
        "log_checkpoint_count": engine.keeper.checkpoints,
        "append_count": timing.count,
        "append_rows_total": timing.rows,
        "append_rows_max": timing.rows_max,
        "append_s_total": timing.total_s,
        "append_s_max": timing.max_s,
        "append_s_last": timing.last_s,
        "append_s_bounds": list(BOUNDS_S),
        "append_s_buckets": list(timing.buckets),
        "data_dir_bytes": folder_bytes(engine.data_dir),
        "log_dir_bytes": folder_bytes(engine.log_dir),
        "reserve_held": engine.reserve.held,
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "disk_total_bytes": disk.f_blocks * disk.f_frsize,
    }
