"""The metrics of one process, and how those of several become the server's.

A process asks its `Metrics` once for the objects that it feeds and keeps them; feeding is a plain
attribute (`counter.value += 1`) or one short call. `dump()` is what travels over the bus: a dict of
plain values that marshal takes. `merge` adds dumps up and is closed: what it gives can be merged
again. Everything shown comes from a merged dump: `mntr_lines`, `monitor`, `families`.

    value of a dump, by kind
    gauge, tally, counter     a number
    summary                   (count, sum, min, max, ((count, array('q') bytes of a sample), ...))
    sizes                     (last, min, max)
    histogram                 (counts per bucket, sum of seconds)
    a set                     {key: one of the above}

A summary without a data point is not in a dump, nor is a gauge that says None.
Not for several threads: each object is fed by one.
"""

from __future__ import annotations

import os
import resource
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import choices, random
from typing import Any, Final

from zkd.server.metrics_table import (
    BY_NAME,
    SECONDS,
    SETS,
    SUMMARIES,
    SUMMARY_SETS,
    TABLE,
    Kind,
    Spec,
)
from zkd.server.metrics_text import families, mntr_lines, monitor

Number = int | float
Dump = dict[str, Any]

SAMPLE_MAX: Final = 4096
"""Values that an ADVANCED summary keeps for its quantiles, as Apache ZooKeeper's."""

BASIC_SAMPLE_MAX: Final = 256

KEYS_MAX: Final = 1000
"""Keys of one set; what comes beyond is counted under OTHER: clients choose namespaces."""

OTHER: Final = "_other"

_LOW: Final = -(1 << 63)
_HIGH: Final = (1 << 63) - 1


class Counter:
    """`value` only grows: `counter.value += n` (40 ns) or `counter.add(n)` (80 ns)."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Number = 0

    def add(self, n: Number = 1) -> None:
        self.value += n

    def dump(self) -> Number:
        return self.value

    def reset(self) -> None:
        self.value = 0


class Summary:
    """Count, sum, least, greatest and a uniform sample of whole numbers (mostly ms).

    (`AvgMinMaxCounter.java`, `AvgMinMaxPercentileCounter.java`)
    """

    __slots__ = ("_room", "_sample", "count", "max", "min", "total")

    def __init__(self, sample_max: int = SAMPLE_MAX) -> None:
        self._room = sample_max
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self.total = 0
        self.min = _HIGH
        self.max = _LOW
        self._sample: list[int] = []

    def add(self, value: int) -> None:
        """One data point."""
        count = self.count = self.count + 1
        self.total += value
        if value < self.min:
            self.min = value
        if value > self.max:
            self.max = value
        if count <= self._room:
            self._sample.append(value)
        else:
            slot = int(random() * count)
            if slot < self._room:
                self._sample[slot] = value

    def add_many(self, value: int, times: int) -> None:
        """`times` equal data points, at the price of one: for a batch with one latency."""
        if times <= 0:
            return
        self.count += times
        self.total += value * times
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        sample, room = self._sample, self._room
        free = min(room - len(sample), times)
        if free > 0:
            sample.extend([value] * free)
            times -= free
        expected = times * room / self.count
        for _ in range(min(room, int(expected) + (random() < expected % 1))):
            sample[int(random() * room)] = value

    def add_all(self, values: list[int]) -> None:
        """Many data points, at a tenth of the price of as many `add`."""
        if not values:
            return
        self.count += len(values)
        self.total += sum(values)
        self.min = min(self.min, min(values))
        self.max = max(self.max, max(values))
        sample, room = self._sample, self._room
        free = room - len(sample)
        sample.extend(values[:free])
        rest = values[free:] if free < len(values) else []
        taken = min(len(rest), room, int(len(rest) * room / self.count + random()))
        for value in choices(rest, k=taken):
            sample[int(random() * room)] = value

    def dump(self) -> tuple[Any, ...] | None:
        if not self.count:
            return None
        sample = (self.count, array("q", self._sample).tobytes())
        return (self.count, self.total, self.min, self.max, (sample,))


class Sizes:
    """Last, least and greatest size in bytes; -1 before the first. (`BufferStats.java`)"""

    __slots__ = ("last", "max", "min")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.last = self.min = self.max = -1

    def add(self, size: int) -> None:
        self.last = size
        if size < self.min or self.min < 0:
            self.min = size
        if size > self.max:
            self.max = size

    def add_all(self, sizes: list[int]) -> None:
        """Many sizes, in order."""
        if sizes:
            self.add(min(sizes))
            self.add(max(sizes))
            self.last = sizes[-1]

    def dump(self) -> tuple[int, int, int]:
        return (self.last, self.min, self.max)


class Histogram:
    """Seconds, counted in the buckets SECONDS: adds up over processes and time."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def add_many(self, seconds: float, times: int) -> None:
        """`times` equal observations."""
        self.counts[bisect_left(SECONDS, seconds)] += times
        self.total += seconds * times

    def add_all(self, seconds: list[float]) -> None:
        """Many observations."""
        ordered = sorted(seconds)
        before = 0
        for bucket, bound in enumerate(SECONDS):
            upto = bisect_right(ordered, bound, before)
            self.counts[bucket] += upto - before
            before = upto
        self.counts[-1] += len(ordered) - before
        self.total += sum(ordered)

    def dump(self) -> tuple[list[int], float]:
        return (list(self.counts), self.total)


class CounterSet:
    """Counters by key."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, Number] = {}

    def add(self, key: str, n: Number = 1) -> None:
        values = self.values
        if key not in values and len(values) >= KEYS_MAX:
            key = OTHER
        values[key] = values.get(key, 0) + n

    def dump(self) -> dict[str, Number]:
        return dict(self.values)

    def reset(self) -> None:
        self.values = dict.fromkeys(self.values, 0)


class SummarySet:
    """Summaries by key."""

    __slots__ = ("_sample_max", "values")

    def __init__(self, sample_max: int) -> None:
        self._sample_max = sample_max
        self.values: dict[str, Summary] = {}

    def add(self, key: str, value: int) -> None:
        summary = self.values.get(key)
        if summary is None:
            summary = self._new(key)
        summary.add(value)

    def add_many(self, key: str, value: int, times: int) -> None:
        """`times` equal data points."""
        (self.values.get(key) or self._new(key)).add_many(value, times)

    def _new(self, key: str) -> Summary:
        if len(self.values) >= KEYS_MAX:
            key = OTHER
        return self.values.setdefault(key, Summary(self._sample_max))

    def dump(self) -> dict[str, Any]:
        return {key: summary.dump() for key, summary in self.values.items() if summary.count}

    def reset(self) -> None:
        for summary in self.values.values():
            summary.reset()


class Metrics:
    """All metrics that one process feeds. `process` names it in the sets of a label `process`.

    Asking twice for one name gives the same object. An unknown name, or one of another kind, is a
    ValueError: the table (metrics_table.py) is the only place where metrics are made.
    """

    def __init__(self, process: str = "") -> None:
        self._objects: dict[str, Any] = {}
        self._gauges: dict[str, Callable[[], Any]] = {}
        if process:
            self._watch_process(process)

    def _watch_process(self, process: str) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.gauge("open_file_descriptor_count", open_files)
        self.gauge("max_file_descriptor_count", lambda: limit)
        self.gauge_set("zkd_process_resident_bytes", lambda: {process: resident_bytes()})
        # The one counter that is read instead of fed: the kernel keeps it.
        self._gauges["zkd_process_cpu_seconds_total"] = lambda: {process: cpu_seconds()}

    def counter(self, name: str) -> Counter:
        """A counter or tally: feed `.value`."""
        made: Counter = self._make(name, (Kind.COUNTER, Kind.TALLY), Counter)
        return made

    def summary(self, name: str) -> Summary:
        """A summary of either kind. `latency` feeds avg_, min_ and max_latency."""
        advanced = _spec(name).kind is Kind.ADVANCED
        room = SAMPLE_MAX if advanced else BASIC_SAMPLE_MAX
        made: Summary = self._make(name, SUMMARIES, lambda: Summary(room))
        return made

    def sizes(self, name: str) -> Sizes:
        """`client_response_size` or `proposal_size` (a leader's only)."""
        made: Sizes = self._make(name, (Kind.SIZES,), Sizes)
        return made

    def histogram(self, name: str) -> Histogram:
        made: Histogram = self._make(name, (Kind.HISTOGRAM,), Histogram)
        return made

    def counter_set(self, name: str) -> CounterSet:
        made: CounterSet = self._make(name, (Kind.COUNTER_SET,), CounterSet)
        return made

    def summary_set(self, name: str) -> SummarySet:
        advanced = _spec(name).kind is Kind.ADVANCED_SET
        room = SAMPLE_MAX if advanced else BASIC_SAMPLE_MAX
        made: SummarySet = self._make(name, SUMMARY_SETS, lambda: SummarySet(room))
        return made

    def gauge(self, name: str, read: Callable[[], Number | None]) -> None:
        """`read` is called by dump; None: this process has no value now."""
        _spec(name, Kind.GAUGE)
        self._gauges[name] = read

    def gauge_set(self, name: str, read: Callable[[], Mapping[str, Number]]) -> None:
        _spec(name, Kind.GAUGE_SET)
        self._gauges[name] = read

    def drop(self, name: str) -> None:
        """Forget a gauge or sizes: what only a leader has."""
        self._gauges.pop(name, None)
        self._objects.pop(name, None)

    def _make(self, name: str, kinds: tuple[Kind, ...], new: Callable[[], Any]) -> Any:
        _spec(name, *kinds)
        if name not in self._objects:
            self._objects[name] = new()
        return self._objects[name]

    def dump(self) -> Dump:
        """All values, for marshal."""
        dump: Dump = {}
        for name, made in self._objects.items():
            if (value := made.dump()) is not None:
                dump[name] = value
        for name, read in self._gauges.items():
            if (value := read()) is not None:
                dump[name] = dict(value) if isinstance(value, Mapping) else value
        return dump

    def reset(self) -> None:
        """What `srst` does: everything of Apache ZooKeeper's except gauges. zkd's own go on."""
        for name, made in self._objects.items():
            if not BY_NAME[name].own:
                made.reset()


def _spec(name: str, *kinds: Kind) -> Spec:
    spec = BY_NAME.get(name)
    if spec is None:
        raise ValueError(f"no metric is called {name!r}")
    if kinds and spec.kind not in kinds:
        raise ValueError(f"{name} is a {spec.kind.value}")
    return spec


def merge(dumps: Iterable[Dump]) -> Dump:
    """The values of several processes as one dump. Names that no table knows are dropped."""
    merged: Dump = {}
    for dump in dumps:
        for name, value in dump.items():
            spec = BY_NAME.get(name)
            if spec is None:
                continue
            merged[name] = _add(spec, merged[name], value) if name in merged else value
    return merged


def _add(spec: Spec, one: Any, other: Any) -> Any:
    if spec.kind in SETS:
        both = dict(one)
        for key, value in other.items():
            both[key] = _add_one(spec, both[key], value) if key in both else value
        return both
    return _add_one(spec, one, other)


def _add_one(spec: Spec, one: Any, other: Any) -> Any:
    kind = spec.kind
    if kind in SUMMARIES or kind in SUMMARY_SETS:
        count, total, low, high, samples = one
        return (
            count + other[0],
            total + other[1],
            min(low, other[2]),
            max(high, other[3]),
            tuple(samples) + tuple(other[4]),
        )
    if kind is Kind.HISTOGRAM:
        return ([a + b for a, b in zip(one[0], other[0], strict=True)], one[1] + other[1])
    if kind is Kind.SIZES:
        return _add_sizes(one, other)
    if kind in (Kind.GAUGE, Kind.GAUGE_SET) and spec.merge != "sum":
        return max(one, other) if spec.merge == "max" else min(one, other)
    return one + other


def _add_sizes(one: Any, other: Any) -> tuple[int, int, int]:
    """`last` is the first process's that has one: which was later, nobody knows."""
    if one[0] < 0:
        return other[0], other[1], other[2]
    if other[0] < 0:
        return one[0], one[1], one[2]
    return (one[0], min(one[1], other[1]), max(one[2], other[2]))


def open_files() -> int:
    """File descriptors of this process. (Linux 6.2 and later say so at once.)"""
    folder = Path("/proc/self/fd")
    return folder.stat().st_size or sum(1 for _ in folder.iterdir())


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def cpu_seconds() -> float:
    """CPU time of this process, user and system."""
    return sum(os.times()[:2])


__all__ = [
    "TABLE",
    "Counter",
    "CounterSet",
    "Dump",
    "Histogram",
    "Metrics",
    "Sizes",
    "Summary",
    "SummarySet",
    "families",
    "merge",
    "mntr_lines",
    "monitor",
]
