"""Exporters: the runner, and the Prometheus exporter over real HTTP."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

import zkd_metrics_prometheus as prometheus
from zkd.admin.exporters import ExporterRunner
from zkd.plugins.api import MetricsExporter, ReadMetrics
from zkd.plugins.guard import Faults, Source
from zkd.plugins.loader import Loaded
from zkd.server.metrics import Metrics, families

DEADLINE_S = 20.0


class Exporter(MetricsExporter):
    def __init__(self, name: str = "test", failures: int = 0) -> None:
        self.name = name
        self.failures = failures
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def start(self, read_metrics: ReadMetrics) -> None:
        self.calls.append("start")
        assert self.gate.wait(DEADLINE_S)
        if self.failures:
            self.failures -= 1
            raise OSError("port taken")

    def stop(self) -> None:
        self.calls.append("stop")


def loaded(exporter: MetricsExporter) -> Loaded[MetricsExporter]:
    return Loaded(Source(f"metrics.{exporter.name}", "acme", "1"), exporter)


def await_(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.002)


def test_an_exporter_that_fails_is_started_again_and_cleared_away_before() -> None:
    exporter, faults = Exporter(failures=2), Faults()
    runner = ExporterRunner([loaded(exporter)], list, faults=faults, back_off_s=0.001)
    runner.start()
    await_(lambda: runner.running == {"test"})
    runner.stop(DEADLINE_S)
    assert exporter.calls == ["start", "stop", "start", "stop", "start", "stop"]
    assert faults.counts == {("metrics.test", "raised"): 2}


def test_one_that_blocks_holds_up_no_other_and_is_named_when_it_does_not_stop() -> None:
    blocked, good, faults = Exporter("blocked"), Exporter("good"), Faults()
    blocked.gate.clear()
    runner = ExporterRunner([loaded(blocked), loaded(good)], list, faults=faults)
    runner.start()
    await_(lambda: runner.running == {"good"})
    runner.stop(0.05)
    assert good.calls == ["start", "stop"]
    assert faults.counts == {("metrics.blocked", "late"): 1}
    blocked.gate.set()


@pytest.fixture
def scrape() -> Iterator[Callable[[Metrics], str]]:
    exporters: list[prometheus.PrometheusExporter] = []

    def start(metrics: Metrics) -> str:
        config = {"metricsProvider.httpHost": "127.0.0.1", "metricsProvider.httpPort": "0"}
        (exporter,) = prometheus.zkd_metrics_exporters(config)
        assert isinstance(exporter, prometheus.PrometheusExporter)
        exporters.append(exporter)
        exporter.start(lambda: families(metrics.dump()))
        (port,) = exporter.ports
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    yield start
    for exporter in exporters:
        exporter.stop()


def test_metrics_are_scraped_with_apaches_names(scrape: Callable[[Metrics], str]) -> None:
    metrics = Metrics("zkd: peer")
    metrics.gauge("znode_count", lambda: 7)
    metrics.counter("commit_count").add(3)
    metrics.counter("op_count_total").add(4)
    metrics.counter("zkd_watch_events_total").add(5)
    metrics.summary("readlatency").add(2)
    metrics.summary("fsynctime").add(1)
    metrics.summary_set("read_per_namespace").add("a", 73)
    metrics.counter_set("zkd_sessions_expired_total").add("timeout")
    metrics.histogram("zkd_read_latency_seconds").add(0.003)
    text = scrape(metrics)
    for line in (
        "# TYPE znode_count gauge\nznode_count 7.0\n",
        "# TYPE commit_count untyped\ncommit_count 3.0\n",
        "# TYPE op_count_total counter\nop_count_total 4.0\n",
        "# TYPE zkd_watch_events_total counter\nzkd_watch_events_total 5.0\n",
        '# TYPE readlatency summary\nreadlatency{quantile="0.5"} 2.0\n'
        'readlatency{quantile="0.95"} 2.0\nreadlatency{quantile="0.99"} 2.0\n'
        "readlatency_count 1.0\nreadlatency_sum 2.0\n",
        'fsynctime{quantile="0.5"} 1.0\nfsynctime_count 1.0\n',
        'read_per_namespace_sum{key="a"} 73.0\n',
        'zkd_sessions_expired_total{reason="timeout"} 1.0\n',
        'zkd_read_latency_seconds_bucket{le="0.0025"} 0.0\n',
        'zkd_read_latency_seconds_bucket{le="+Inf"} 1.0\nzkd_read_latency_seconds_count 1.0\n',
    ):
        assert line in text
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names)) > 150


def test_no_port_no_exporter_and_a_secure_one_needs_a_certificate() -> None:
    assert prometheus.zkd_metrics_exporters({"metricsProvider.httpPort": "-1"}) == []
    with pytest.raises(ValueError, match=r"httpsPort=7001 needs metricsProvider\.ssl\.keyStore"):
        prometheus.zkd_metrics_exporters({"metricsProvider.httpsPort": "7001"})
