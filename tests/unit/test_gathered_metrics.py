"""What processes gather and count later gives the same as counting at once."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkd.admin.families import is_sound
from zkd.plugins.api import HistogramValue, MetricFamily, SummaryValue
from zkd.server.admin_metrics import as_families
from zkd.server.metrics import Histogram, Sizes, Summary, SummarySet
from zkd.server.storage_metrics import seconds_left

INF = float("inf")


@given(st.lists(st.lists(st.integers(-5, 5000), max_size=40), max_size=8))
def test_many_points_at_once_are_as_many_one_by_one(batches: list[list[int]]) -> None:
    at_once, one_by_one = Summary(16), Summary(16)
    for batch in batches:
        at_once.add_all(batch)
        for value in batch:
            one_by_one.add(value)
    for name in ("count", "total", "min", "max"):
        assert getattr(at_once, name) == getattr(one_by_one, name)
    assert len(at_once._sample) == len(one_by_one._sample)
    assert set(at_once._sample) <= {value for batch in batches for value in batch}


def test_a_sample_stays_uniform() -> None:
    """Of 100,000 points in batches of 1,000 each tenth has about a tenth of the sample."""
    summary = Summary(4096)
    for start in range(0, 100_000, 1000):
        summary.add_all(list(range(start, start + 1000)))
    tenths = [0] * 10
    for value in summary._sample:
        tenths[value // 10_000] += 1
    assert all(250 < count < 600 for count in tenths), tenths


@given(st.lists(st.floats(0, 20), max_size=50))
def test_many_observations_at_once(seconds: list[float]) -> None:
    at_once, one_by_one = Histogram(), Histogram()
    at_once.add_all(seconds)
    for value in seconds:
        one_by_one.add(value)
    assert at_once.counts == one_by_one.counts
    assert at_once.total == pytest.approx(one_by_one.total)


@given(st.lists(st.integers(0, 9999)))
def test_many_sizes_at_once(sizes: list[int]) -> None:
    at_once, one_by_one = Sizes(), Sizes()
    at_once.add_all(sizes)
    for size in sizes:
        one_by_one.add(size)
    assert at_once.dump() == one_by_one.dump()


def test_a_set_counts_equal_points() -> None:
    both = SummarySet(8)
    both.add_many("a", 7, 3)
    both.add("a", 1)
    assert both.dump()["a"][:4] == (4, 22, 1, 7)


@pytest.mark.parametrize(
    ("seen", "now", "free", "expected"),
    [
        ([], 100.0, 50, None),
        ([(0.0, 100)], 30.0, 50, None),
        ([(0.0, 100)], 100.0, 50, 100.0),
        ([(0.0, 100)], 100.0, 100, None),
        ([(0.0, 900), (3000.0, 100)], 4000.0, 50, 1000.0),
    ],
)
def test_the_time_until_a_disk_is_full(
    seen: list[tuple[float, int]], now: float, free: int, expected: float | None
) -> None:
    assert seconds_left(deque(seen), now, free) == expected


GOOD = MetricFamily("zkd_x_total", "counter", "help", "label", {"a": 1})


@pytest.mark.parametrize(
    ("family", "sound"),
    [
        (GOOD, True),
        (MetricFamily("zkd_s", "summary", "", samples={"": SummaryValue(1, 2, 2, 2)}), True),
        (
            MetricFamily("zkd_h", "histogram", "", samples={"": HistogramValue(((INF, 1),), 2)}),
            True,
        ),
        (MetricFamily("x", "gauge", ""), False),
        (MetricFamily("zkd_x y", "gauge", ""), False),
        (MetricFamily("zkd_x", "meter", ""), False),  # type: ignore[arg-type]
        (MetricFamily("zkd_x", "gauge", "", "1st"), False),
        (MetricFamily("zkd_x", "gauge", "", samples={"": "1"}), False),  # type: ignore[dict-item]
        (MetricFamily("zkd_x", "gauge", "", samples={1: 1}), False),  # type: ignore[dict-item]
        (MetricFamily("zkd_x", "summary", "", samples={"": 1}), False),
        (MetricFamily("zkd_x", "gauge", None), False),  # type: ignore[arg-type]
        ("zkd_x", False),
    ],
)
def test_only_sound_families_of_plugins_are_shown(family: object, sound: bool) -> None:
    assert is_sound(family) is sound


def test_observers_cannot_take_the_servers_names() -> None:
    mine = MetricFamily("zkd_fsync_seconds", "gauge", "", samples={"": 1})
    found = as_families([{"znode_count": 5}], 2, [mine, GOOD, GOOD])
    by_name = {family.name: family for family in found}
    assert len(by_name) == len(found)
    assert by_name["zkd_fsync_seconds"].kind == "histogram"
    assert by_name["zkd_x_total"] is GOOD
    assert by_name["znode_count"].samples == {"": 5}
    assert by_name["zkd_missing_processes"].samples == {"": 2}
