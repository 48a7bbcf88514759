"""What the admin process counts itself, and how all processes' metrics become one list.

Beside its own memory and CPU those of the supervisor, which is not on the bus; how often each
process has been started, kept in dataDir/process-starts.json; how far the observers are behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zkd.plugins.api import MetricFamily
from zkd.plugins.guard import Faults
from zkd.server.metrics import Dump, Metrics, families, merge
from zkd.server.metrics_table import BY_NAME

if TYPE_CHECKING:
    from zkd.server.admin import Admin

STARTS_NAME: Final = "process-starts.json"
COUNTER_BITS: Final = 0xFFFF_FFFF


class AdminMetrics:
    """The metrics of the admin process."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._metrics = Metrics(admin.child.name)
        self._starts = Starts(admin.config.data_dir / STARTS_NAME)
        self._metrics.gauge_set("zkd_observer_lag_txns", self._lags)

    def count_starts(self, lives: dict[str, int]) -> None:
        """Some of these lives are new."""
        self._starts.count(lives)

    def count_faults(self, faults: Faults) -> None:
        """Count what the plugins of this process do wrong."""
        faults.feed(self._metrics.counter_set("zkd_plugin_faults_total").add)

    def dump(self) -> Dump:
        """All values, up to date."""
        self._metrics.counter_set("zkd_process_starts_total").values = dict(self._starts.counts)
        return merge([self._metrics.dump(), supervisor_dump(os.getppid())])

    def _lags(self) -> dict[str, int]:
        observers = self._admin.observers
        if observers is None:
            return {}
        committed = self._admin.committed
        return {one.name: lag(one.zxid, committed) for one in observers.statistics()}


def lag(zxid: int, committed: int) -> int:
    """How many transactions lie between two zxids; of an earlier epoch only the later one's."""
    if zxid >> 32 == committed >> 32:
        return max(0, committed - zxid)
    return committed & COUNTER_BITS if zxid < committed else 0


class Starts:
    """How often each process has begun a life, over all starts of the server. A restart that
    nobody saw (the admin process was down itself, twice) is not counted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.counts: dict[str, int] = {}
        self._lives: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            for name, (count, life) in json.loads(path.read_text()).items():
                self.counts[str(name)], self._lives[str(name)] = int(count), int(life)

    def count(self, lives: dict[str, int]) -> None:
        """Count the lives that are new, and keep the sum; a full disk only costs its memory."""
        new = {name: life for name, life in lives.items() if life != self._lives.get(name)}
        if not new:
            return
        self._lives.update(new)
        for name in new:
            self.counts[name] = self.counts.get(name, 0) + 1
        text = json.dumps({name: [n, self._lives[name]] for name, n in self.counts.items()})
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_text(text + "\n")
            fresh.replace(self._path)


def supervisor_dump(pid: int) -> Dump:
    """Memory and CPU of the supervisor, from /proc; nothing if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, IndexError, ValueError):
        return {}
    seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return {
        "zkd_process_resident_bytes": {"supervisor": pages * resource.getpagesize()},
        "zkd_process_cpu_seconds_total": {"supervisor": seconds},
    }


def as_families(
    dumps: Sequence[dict[str, Any]], missing: int, others: Sequence[MetricFamily]
) -> list[MetricFamily]:
    """The server's metrics, how many processes are `missing` in them, and the observers' own; a
    name of zkd's, or one that occurs twice, is not an observer's to use."""
    found = families(merge(dumps))
    found.append(
        MetricFamily(
            "zkd_missing_processes",
            "gauge",
            "processes that did not tell their metrics in time",
            samples={"": missing},
        )
    )
    taken = {family.name for family in found} | set(BY_NAME)
    for family in others:
        if family.name not in taken:
            taken.add(family.name)
            found.append(family)
    return found
