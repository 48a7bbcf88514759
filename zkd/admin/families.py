"""Whether the metrics of a plugin can be shown: one bad family must not spoil a whole answer. Pure.

What is dropped: another type than MetricFamily, a name that does not begin with `zkd_` or is no
metric's, an unknown kind, a label that is no name, samples of another form than the kind's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from zkd.plugins.api import HistogramValue, MetricFamily, SummaryValue

_NAME: Final = re.compile(r"zkd_[A-Za-z0-9_]+")
_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*|")
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "gauge": (int, float),
    "counter": (int, float),
    "summary": SummaryValue,
    "histogram": HistogramValue,
}


def is_sound(family: object) -> bool:
    """Whether this is a family of a plugin, with fields and samples of the right types."""
    if not isinstance(family, MetricFamily):
        return False
    kind, samples = family.kind, family.samples
    return (
        _matches(_NAME, family.name)
        and _matches(_LABEL, family.label)
        and isinstance(family.help, str)
        and isinstance(kind, str)
        and kind in _TYPES
        and isinstance(samples, Mapping)
        and all(isinstance(key, str) for key in samples)
        and all(isinstance(value, _TYPES[kind]) for value in samples.values())
    )


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None
