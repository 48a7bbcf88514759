"""What a merged dump of metrics looks like to people, scripts and exporters.

`mntr_lines`: the four-letter word, byte for byte as Apache ZooKeeper prints it: TAB-separated, in
the table's order, numbers as Java writes them. `monitor`: the AdminServer's command. `families`:
for exporters.
(`MonitorCommand.java`, `DefaultMetricsProvider.java`, `AvgMinMaxPercentileCounter.java`)
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from itertools import accumulate
from math import floor, inf
from typing import Any, Final

from zkd.plugins.api import HistogramValue, MetricFamily, MetricKind, SummaryValue, Value
from zkd.server.metrics_table import (
    BY_NAME,
    SECONDS,
    SETS,
    SUMMARIES,
    TABLE,
    Kind,
    Spec,
)

Number = int | float
Dump = dict[str, Any]

PERCENTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999))

_EMPTY: Final = (0, 0, 0, 0, ())
_UNFIT: Final = re.compile(r"[\s\x00-\x1f\x7f]")
"""What no key of a set may bring into a line; zkd's own keep to letters, digits, `_`, `.`, `-`."""

_UNFIT_OWN: Final = re.compile(r"[^A-Za-z0-9_.\-]+")


def mntr_lines(merged: Dump, head: Sequence[tuple[str, str]] = ()) -> str:
    """The whole answer to `mntr`. `head`: version, server_state, peer_state, ... without `zk_`."""
    lines = [f"zk_{name}\t{value}\n" for name, value in head]
    lines += [f"zk_{name}\t{java_number(value)}\n" for name, value in flatten(merged)]
    return "".join(lines)


def monitor(merged: Dump) -> dict[str, Number]:
    """The fields of the AdminServer's `monitor`."""
    return dict(flatten(merged))


def flatten(merged: Dump) -> Iterator[tuple[str, Number]]:
    """(name without `zk_`, number), in mntr's order. A counter that nobody fed is 0."""
    for spec in TABLE:
        if spec.hidden:
            continue
        if spec.kind in SETS:
            unfit = _UNFIT_OWN if spec.own else _UNFIT
            for key, value in sorted(merged.get(spec.name, {}).items()):
                yield from _lines(spec, f"{unfit.sub('_', key)}_{spec.name}", value)
        elif (value := _value(spec, merged)) is not None:
            yield from _lines(spec, spec.name, value)


def _value(spec: Spec, merged: Dump) -> Any:
    if spec.kind is Kind.DERIVED:
        return _derived(spec, merged)
    if spec.name in merged:
        return merged[spec.name]
    if spec.kind in SUMMARIES:
        return _EMPTY
    if spec.kind in (Kind.COUNTER, Kind.TALLY):
        return 0
    if spec.kind is Kind.HISTOGRAM:
        return ([0] * (len(SECONDS) + 1), 0.0)
    return spec.default


def _derived(spec: Spec, merged: Dump) -> Number | None:
    name, part = spec.source
    source = BY_NAME[name]
    value = merged.get(name)
    if source.kind is Kind.SIZES:
        if value is None:
            return source.default
        return int(value[("last", "min", "max").index(part)])
    count, total, low, high, _ = value or _EMPTY
    if part == "avg":
        return average(total, count)
    return int(low if part == "min" else high)


def _lines(spec: Spec, name: str, value: Any) -> Iterator[tuple[str, Number]]:
    kind = spec.kind
    if kind is Kind.HISTOGRAM:
        yield f"{name}_count", sum(value[0])
        yield f"{name}_sum", value[1]
    elif kind in (Kind.BASIC, Kind.ADVANCED, Kind.BASIC_SET, Kind.ADVANCED_SET):
        count, total, low, high, samples = value
        yield f"avg_{name}", average(total, count)
        yield f"min_{name}", low
        yield f"max_{name}", high
        yield f"cnt_{name}", count
        yield f"sum_{name}", total
        if kind in (Kind.ADVANCED, Kind.ADVANCED_SET):
            wanted = [quantile for _, quantile in PERCENTILES]
            for (word, _), found in zip(PERCENTILES, quantiles(samples, wanted), strict=True):
                yield f"{word}_{name}", floor(found + 0.5)
    else:
        yield name, value


def average(total: int, count: int) -> float:
    """Four decimals, halves up."""
    if not count:
        return 0.0
    return float(Decimal(total / count).quantize(Decimal("0.0001"), ROUND_HALF_UP))


def quantiles(samples: Sequence[tuple[int, bytes]], wanted: Sequence[float]) -> list[float]:
    """Values at `wanted` of several samples, each standing for (count) data points.

    One sample, or only complete ones: as Apache ZooKeeper's `UniformSnapshot` interpolates.
    Otherwise each value weighs what its sample stands for.
    """
    parts: list[tuple[int, list[int]]] = []
    for count, data in samples:
        values = array("q")
        values.frombytes(data)
        if values:
            parts.append((count, values.tolist()))
    if not parts:
        return [0.0] * len(wanted)
    if len(parts) == 1 or all(count == len(values) for count, values in parts):
        ordered = sorted(value for _, values in parts for value in values)
        return [_interpolated(ordered, q) for q in wanted]
    pairs = sorted((value, count / len(values)) for count, values in parts for value in values)
    return [_weighted(pairs, q) for q in wanted]


def _interpolated(ordered: Sequence[int], q: float) -> float:
    n = len(ordered)
    position = q * (n + 1)
    index = int(position)
    if index < 1:
        return float(ordered[0])
    if index >= n:
        return float(ordered[-1])
    low, high = ordered[index - 1], ordered[index]
    return low + (position - index) * (high - low)


def _weighted(pairs: Sequence[tuple[int, float]], q: float) -> float:
    sums = list(accumulate(weight for _, weight in pairs))
    goal = q * sums[-1]
    for (value, _), reached in zip(pairs, sums, strict=True):
        if reached >= goal:
            return float(value)
    return float(pairs[-1][0])


def java_number(value: Number) -> str:
    """As Java's Long.toString and Double.toString."""
    if isinstance(value, int):
        return str(int(value))
    if value != value or value in (inf, -inf):
        return {inf: "Infinity", -inf: "-Infinity"}.get(value, "NaN")
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{Decimal(repr(value)):f}" if "e" in repr(value) else repr(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    tail = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{tail}E{exponent + len(digits) - 1}"


# --- for exporters --------------------------------------------------------------------------

_SHOWN: Final[dict[Kind, MetricKind]] = {
    Kind.GAUGE: "gauge",
    Kind.TALLY: "gauge",
    Kind.DERIVED: "gauge",
    Kind.GAUGE_SET: "gauge",
    Kind.COUNTER: "counter",
    Kind.COUNTER_SET: "counter",
    Kind.BASIC: "summary",
    Kind.BASIC_SET: "summary",
    Kind.ADVANCED: "summary",
    Kind.ADVANCED_SET: "summary",
    Kind.HISTOGRAM: "histogram",
}


def families(merged: Dump) -> list[MetricFamily]:
    """All metrics of a merged dump, in the table's order; sets without a key are left out."""
    found: list[MetricFamily] = []
    for spec in TABLE:
        if spec.hidden:
            continue
        samples: dict[str, Value] = {}
        if spec.kind in SETS:
            for key, value in sorted(merged.get(spec.name, {}).items()):
                samples[key] = _shown(spec, value)
        elif (value := _value(spec, merged)) is not None:
            samples[""] = _shown(spec, value)
        if samples:
            shown = _SHOWN[spec.kind]
            found.append(MetricFamily(spec.name, shown, spec.help, spec.label, samples))
    return found


def _shown(spec: Spec, value: Any) -> Value:
    kind = _SHOWN[spec.kind]
    if kind == "summary":
        count, total, low, high, samples = value
        advanced = spec.kind in (Kind.ADVANCED, Kind.ADVANCED_SET)
        wanted = (0.5, 0.95, 0.99) if advanced else (0.5,)
        pairs = tuple(zip(wanted, quantiles(samples, wanted), strict=True)) if count else ()
        return SummaryValue(count, total, low, high, pairs)
    if kind == "histogram":
        bounds = (*SECONDS, inf)
        return HistogramValue(tuple(zip(bounds, accumulate(value[0]), strict=True)), value[1])
    number: Number = value
    return number
