"""Early warnings of the storage process: said in the log long before something stops.

A disk that gets full, and a znode whose counter of sequential names nears 2147483647, behind which
clients see negative numbers. Each is told when it becomes worse, not all the time; the metrics
`zkd_disk_free_bytes` and `zkd_sequence_counter` have the numbers (conf/alerts.yaml).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkd.server.logs import Log

LOOK_EVERY_S = 5.0
COUNTER_MAX = 0x7FFF_FFFF
COUNTER_STEPS = (80, 90, 95, 99)
"""Per cent of COUNTER_MAX at which a counter is told of."""
LOW_SHARE = 0.05
LOW_BYTES_MAX = 1 << 30
"""A disk is low when less than this share of it is free, and less than so many bytes."""
ENOUGH = 1.2
"""It is no longer low with so many times that."""


def low_water(total: int) -> int:
    """Free bytes below which a disk of so many is low."""
    return min(int(total * LOW_SHARE), LOW_BYTES_MAX)


class EarlyWarnings:
    """Looks now and then; `look` costs nothing in between."""

    def __init__(self, log: Log, folders: Iterable[Path]) -> None:
        self._log = log
        self._low = dict.fromkeys(folders, False)
        self._told: tuple[str, int] = ("", 0)
        self._next = 0.0

    def look(self, now: float, counter: tuple[str, int]) -> None:
        """`counter`: path and value of the highest counter of creates."""
        if now < self._next:
            return
        self._next = now + LOOK_EVERY_S
        self._counter(*counter)
        for folder in self._low:
            disk = os.statvfs(folder)
            self.disk(folder, disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)

    def _counter(self, path: str, value: int) -> None:
        percent = value * 100 // COUNTER_MAX
        step = max((step for step in COUNTER_STEPS if percent >= step), default=0)
        if step and (path, step) != self._told:
            self._log.warning(
                "sequence.ceiling", path=path, counter=value, left=max(0, COUNTER_MAX - value),
                mend="create sequential znodes below another parent before it gets there",
            )  # fmt: skip
        self._told = (path, step)

    def disk(self, folder: Path, free: int, total: int) -> None:
        """Tell when a disk becomes low, and when it no longer is."""
        mark = low_water(total)
        if not self._low[folder] and free < mark:
            self._low[folder] = True
            self._log.warning(
                "disk.low", folder=str(folder), free=free, low_water=mark,
                mend="free some space, or move dataDir or dataLogDir to a larger disk",
            )  # fmt: skip
        elif self._low[folder] and free > mark * ENOUGH:
            self._low[folder] = False
            self._log.info("disk.enough", folder=str(folder), free=free)
