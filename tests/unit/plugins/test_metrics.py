"""Metrics: feeding, merging, and mntr against the names that Apache ZooKeeper 3.9.5 prints."""

from __future__ import annotations

import marshal
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkd.plugins.api import HistogramValue, MetricFamily, SummaryValue
from zkd.server.metrics import (
    KEYS_MAX,
    OTHER,
    SAMPLE_MAX,
    Metrics,
    Summary,
    families,
    merge,
    mntr_lines,
    monitor,
)
from zkd.server.metrics_table import BY_NAME, TABLE, Kind
from zkd.server.metrics_text import java_number, quantiles

GOLDEN = Path(__file__).parent / "golden"
LEADERS_GAUGES = (
    "synced_followers", "synced_non_voting_followers", "synced_observers", "pending_syncs",
    "leader_uptime", "learners", "quorum_size",
)  # fmt: skip


def lines(*dumps: dict[str, Any]) -> dict[str, str]:
    text = mntr_lines(merge(dumps))
    return dict(line.split("\t") for line in text.splitlines())


def served(metrics: Metrics) -> Metrics:
    """What each server's gauges give."""
    for name in (
        "ephemerals_count", "num_alive_connections", "outstanding_requests", "znode_count",
        "global_sessions", "watch_count", "approximate_data_size", "uptime",
    ):  # fmt: skip
        metrics.gauge(name, lambda: 1)
    return metrics


def test_the_table_has_each_name_once() -> None:
    assert len(BY_NAME) == len(TABLE)


def test_a_standalone_server_prints_the_golden_names_in_the_golden_order() -> None:
    metrics = served(Metrics("zkd: peer"))
    metrics.summary_set("read_per_namespace").add("a", 73)
    metrics.summary_set("write_per_namespace").add("a", 3)
    text = mntr_lines(metrics.dump(), [("version", "3.9.5"), ("server_state", "standalone")])
    golden = (GOLDEN / "mntr-3.9.5-standalone.txt").read_text().split()
    printed = [line.split("\t")[0] for line in text.splitlines()]
    assert [name for name in printed if name in golden] == golden
    for name in set(printed) - set(golden):
        assert re.match(r"zk_(op_count_|ttl_node_|zkd_|.*_zkd_)", name)


def test_a_leader_prints_the_golden_names_in_the_golden_order() -> None:
    metrics = served(Metrics("zkd: peer"))
    for name in LEADERS_GAUGES:
        metrics.gauge(name, lambda: 0)
    metrics.sizes("proposal_size").add(48)
    for sid in ("1", "2"):
        metrics.summary_set("learner_handler_qp_size").add(sid, 0)
        metrics.summary_set("learner_handler_qp_time_ms").add(sid, 0)
    for namespace in ("a", "zookeeper"):
        metrics.summary_set("write_per_namespace").add(namespace, 3)
    head = [("version", "3.9.5"), ("server_state", "leader"), ("peer_state", "leading - broadcast")]
    printed = [line.split("\t")[0] for line in mntr_lines(metrics.dump(), head).splitlines()]
    golden = (GOLDEN / "mntr-3.9.5-leader.txt").read_text().split()
    assert [name for name in printed if name in golden] == golden


def test_every_line_is_one_that_telegraf_reads() -> None:
    metrics = served(Metrics("zkd: frontend 1"))
    metrics.counter_set("zkd_acl_denied_total").add("create ephemeral\n")
    metrics.summary_set("read_per_namespace").add("a b\tc", 1)
    for line in mntr_lines(metrics.dump()).splitlines():
        assert re.fullmatch(r"zk_(\w[\w.\-]*)\t([\w.\-]+)", line)


def test_counters_and_tallies_add_up_over_processes() -> None:
    one, other = Metrics(), Metrics()
    one.counter("response_bytes").value += 5
    other.counter("response_bytes").add(7)
    other.counter("packets_sent").add()
    found = lines(one.dump(), other.dump())
    assert found["zk_response_bytes"] == "12"
    assert found["zk_packets_sent"] == "1"
    assert found["zk_packets_received"] == "0"


def test_asking_twice_gives_the_same_object_and_a_wrong_name_or_kind_is_refused() -> None:
    metrics = Metrics()
    assert metrics.counter("commit_count") is metrics.counter("commit_count")
    with pytest.raises(ValueError, match="no metric is called 'nonsense'"):
        metrics.counter("nonsense")
    with pytest.raises(ValueError, match="readlatency is a advanced"):
        metrics.counter("readlatency")
    with pytest.raises(ValueError, match="uptime is a gauge"):
        metrics.summary("uptime")


def test_a_basic_summary_has_five_lines() -> None:
    metrics = Metrics()
    for value in (2, 3, 5):
        metrics.summary("fsynctime").add(value)
    found = lines(metrics.dump())
    assert [found[f"zk_{part}_fsynctime"] for part in ("avg", "min", "max", "cnt", "sum")] == [
        "3.3333",
        "2",
        "5",
        "3",
        "10",
    ]
    assert "zk_p50_fsynctime" not in found


def test_an_advanced_summary_has_quantiles_as_apache_rounds_them() -> None:
    """The values of a real server's mntr: 2 3 3 5 7 gives p50 3, the others 7."""
    metrics = Metrics()
    for value in (7, 3, 2, 5, 3):
        metrics.summary("updatelatency").add(value)
    found = lines(metrics.dump())
    parts = ("avg", "min", "max", "cnt", "sum", "p50", "p95", "p99", "p999")
    assert [found[f"zk_{part}_updatelatency"] for part in parts] == [
        "4.0", "2", "7", "5", "20", "3", "7", "7", "7",
    ]  # fmt: skip
    assert found["zk_p50_readlatency"] == "0"


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=300), st.integers(0, 300))
def test_two_processes_quantiles_are_those_of_all_their_values(values: list[int], cut: int) -> None:
    whole, one, other = Metrics(), Metrics(), Metrics()
    for n, value in enumerate(values):
        whole.summary("readlatency").add(value)
        (one if n < cut else other).summary("readlatency").add(value)
    assert lines(one.dump(), other.dump()) == lines(whole.dump())


def test_samples_that_stand_for_more_weigh_more() -> None:
    summary = Summary(10)
    summary.add_many(1, 9990)
    light = Summary(10)
    light.add_many(100, 10)
    samples = (*summary.dump()[4], *light.dump()[4])  # type: ignore[index]
    assert quantiles(samples, (0.5, 0.99, 0.9995)) == [1.0, 1.0, 100.0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3000)), max_size=12))
def test_add_many_counts_as_so_many_adds(points: list[tuple[int, int]]) -> None:
    summary = Summary()
    for value, times in points:
        summary.add_many(value, times)
    count = sum(times for _, times in points)
    dump = summary.dump()
    if not count:
        assert dump is None
        return
    assert dump is not None
    assert dump[0] == count
    assert dump[1] == sum(value * times for value, times in points)
    assert dump[2] == min(value for value, times in points if times)
    assert dump[3] == max(value for value, times in points if times)
    assert len(dump[4][0][1]) == 8 * min(count, SAMPLE_MAX)


def test_the_sample_is_uniform_over_all_values() -> None:
    random.seed(7)
    summary = Summary(1000)
    for value in range(100_000):
        summary.add(value)
    (median,) = quantiles(summary.dump()[4], (0.5,))  # type: ignore[index]
    assert 43_000 < median < 57_000


def test_latency_gauges_are_those_of_all_front_ends_together() -> None:
    one, other = Metrics(), Metrics()
    assert lines()["zk_avg_latency"] == "0.0"
    for value in (1, 2):
        one.summary("latency").add(value)
    other.summary("latency").add(30)
    found = lines(one.dump(), other.dump())
    assert [found[f"zk_{part}_latency"] for part in ("avg", "min", "max")] == ["11.0", "1", "30"]
    assert "zk_cnt_latency" not in found


def test_sizes_begin_with_minus_one_and_a_leaders_are_absent_elsewhere() -> None:
    one, other = Metrics(), Metrics()
    one.sizes("client_response_size")
    assert lines(one.dump())["zk_last_client_response_size"] == "-1"
    one.sizes("client_response_size").add(16)
    other.sizes("client_response_size").add(89)
    other.sizes("client_response_size").add(20)
    found = lines(one.dump(), other.dump())
    assert found["zk_min_client_response_size"] == "16"
    assert found["zk_max_client_response_size"] == "89"
    assert "zk_max_proposal_size" not in found
    one.sizes("proposal_size").add(5)
    assert lines(one.dump())["zk_max_proposal_size"] == "5"
    one.drop("proposal_size")
    assert "zk_max_proposal_size" not in lines(one.dump())


def test_gauges_add_up_or_give_the_greatest_as_the_table_says() -> None:
    one, other = Metrics(), Metrics()
    for name in ("watch_count", "uptime"):
        one.gauge(name, lambda: 3)
        other.gauge(name, lambda: 4)
    other.gauge("znode_count", lambda: None)
    found = lines(one.dump(), other.dump())
    assert found["zk_watch_count"] == "7"
    assert found["zk_uptime"] == "4"
    assert "zk_znode_count" not in found
    assert found["zk_connection_drop_probability"] == "0.0"


def test_sets_have_their_key_before_the_name() -> None:
    one, other = Metrics(), Metrics()
    one.summary_set("read_per_namespace").add("a", 73)
    other.summary_set("read_per_namespace").add("a", 1)
    one.gauge_set("quota_count_limit_per_namespace", lambda: {"a": 5})
    found = lines(one.dump(), other.dump())
    assert found["zk_avg_a_read_per_namespace"] == "37.0"
    assert found["zk_a_quota_count_limit_per_namespace"] == "5"


def test_the_keys_of_a_set_are_bounded() -> None:
    metrics = Metrics()
    for n in range(KEYS_MAX + 5):
        metrics.counter_set("zkd_requests_refused_total").add(f"r{n}")
        metrics.summary_set("read_per_namespace").add(f"n{n}", 1)
    dump = metrics.dump()
    assert dump["zkd_requests_refused_total"][OTHER] == 5
    assert dump["read_per_namespace"][OTHER][0] == 5
    assert len(dump["read_per_namespace"]) == KEYS_MAX + 1


def test_a_dump_travels_as_plain_values_and_merging_goes_on_from_a_merged_one() -> None:
    metrics = served(Metrics("zkd: frontend 1"))
    metrics.summary("readlatency").add(3)
    metrics.histogram("zkd_read_latency_seconds").add(0.003)
    metrics.sizes("client_response_size").add(5)
    metrics.summary_set("read_per_namespace").add("a", 1)
    dump = marshal.loads(marshal.dumps(metrics.dump()))
    assert lines(merge([dump, dump]), dump) == lines(dump, dump, dump)
    assert merge([{"of_a_newer_process": 1}]) == {}


def test_srst_resets_what_apache_resets() -> None:
    metrics = served(Metrics())
    metrics.counter("packets_sent").add()
    metrics.summary("readlatency").add(3)
    metrics.counter_set("quota_exceeded_error_per_namespace").add("a")
    metrics.summary_set("read_per_namespace").add("a", 1)
    metrics.counter("zkd_watch_events_total").add()
    metrics.reset()
    found = lines(metrics.dump())
    assert found["zk_packets_sent"] == found["zk_cnt_readlatency"] == "0"
    assert found["zk_max_readlatency"] == "0"
    assert found["zk_a_quota_exceeded_error_per_namespace"] == "0"
    assert found["zk_znode_count"] == "1"
    assert found["zk_zkd_watch_events_total"] == "1"


def test_a_process_knows_its_own_memory_files_and_time() -> None:
    dump = Metrics("zkd: peer").dump()
    assert dump["zkd_process_resident_bytes"]["zkd: peer"] > 1_000_000
    assert dump["open_file_descriptor_count"] >= 3
    assert dump["max_file_descriptor_count"] >= dump["open_file_descriptor_count"]
    assert dump["zkd_process_cpu_seconds_total"]["zkd: peer"] > 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (-1, "-1"), (True, "1"), (0.0, "0.0"), (0.5, "0.5"), (3.6667, "3.6667"),
        (123456.7891, "123456.7891"), (9999999.0, "9999999.0"), (1e7, "1.0E7"),
        (12345678.5, "1.23456785E7"), (0.001, "0.001"), (0.0001, "1.0E-4"),
        (-0.00025, "-2.5E-4"), (float("inf"), "Infinity"), (float("nan"), "NaN"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_java_writes_them(value: float, text: str) -> None:
    assert java_number(value) == text


def test_monitor_has_the_same_names_with_numbers() -> None:
    metrics = Metrics()
    metrics.summary("readlatency").add(3)
    fields = monitor(metrics.dump())
    assert fields["avg_readlatency"] == 3.0
    assert fields["response_bytes"] == 0


def test_exporters_get_families() -> None:
    metrics = Metrics()
    metrics.summary("readlatency").add(3)
    metrics.summary_set("read_per_namespace").add("a", 73)
    metrics.histogram("zkd_read_latency_seconds").add(0.003)
    metrics.counter("packets_sent").add(4)
    found = {family.name: family for family in families(metrics.dump())}
    assert found["packets_sent"].kind == "gauge"
    assert found["commit_count"] == MetricFamily(
        "commit_count", "counter", "as in Apache ZooKeeper", "", {"": 0}
    )
    summary = found["readlatency"].samples[""]
    assert summary == SummaryValue(1, 3, 3, 3, ((0.5, 3.0), (0.95, 3.0), (0.99, 3.0)))
    assert found["read_per_namespace"].label == "key"
    assert list(found["read_per_namespace"].samples) == ["a"]
    histogram = found["zkd_read_latency_seconds"].samples[""]
    assert isinstance(histogram, HistogramValue)
    assert histogram.buckets[4] == (0.0025, 0)
    assert histogram.buckets[5] == (0.005, 1)
    assert histogram.buckets[-1] == (float("inf"), 1)
    assert "latency" not in found
    assert "ack_latency" not in found


def test_histograms_only_carry_zkds_names_and_end_in_their_unit() -> None:
    for spec in TABLE:
        if spec.kind is Kind.HISTOGRAM:
            assert re.fullmatch(r"zkd_\w+_seconds", spec.name)
        if spec.own and spec.kind in (Kind.COUNTER, Kind.COUNTER_SET):
            assert spec.name.endswith("_total")
