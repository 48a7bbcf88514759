"""Metrics for Prometheus over HTTP, with the names of Apache ZooKeeper's provider.

Names have no `zk_`; a set has the label `key`; summaries have quantiles. Apache ZooKeeper's
counters keep their plain names, which Prometheus' text format cannot call counters (those end in
`_total`): they are `untyped`. zkd's own (`zkd_*`) are real counters and histograms.
(`org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider`)

Configuration: `metricsProvider.httpHost` (0.0.0.0), `.httpPort` (7000; -1: none), `.httpsPort`
(-1) with `.ssl.keyStore.location` (PEM: certificate and key), `.ssl.trustStore.location` (PEM) and
`.ssl.need.client.auth` (true).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from zkd.plugins.api import (
    Config,
    HistogramValue,
    MetricFamily,
    MetricsExporter,
    ReadMetrics,
    SummaryValue,
    Value,
    flag,
    hookimpl,
)

PREFIX: Final = "metricsProvider."
PORT: Final = 7000
WAKE_S: Final = 0.02


def to_prometheus(family: MetricFamily) -> Metric:
    """One of zkd's metrics as prometheus-client holds it."""
    add = _ADD[family.kind]
    metric = _empty(family)
    for key, value in family.samples.items():
        add(metric, {family.label: key} if family.label else {}, value)
    return metric


def _empty(family: MetricFamily) -> Metric:
    labels = [family.label] if family.label else []
    if family.kind == "gauge":
        return GaugeMetricFamily(family.name, family.help, labels=labels)
    if family.kind == "summary":
        return SummaryMetricFamily(family.name, family.help, labels=labels)
    if family.kind == "histogram":
        return HistogramMetricFamily(family.name, family.help, labels=labels)
    if family.name.endswith("_total"):
        return CounterMetricFamily(family.name, family.help, labels=labels)
    return Metric(family.name, family.help, "unknown")


def _add_number(metric: Metric, labels: dict[str, str], value: Value) -> None:
    assert isinstance(value, (int, float))
    name = metric.name + "_total" if metric.type == "counter" else metric.name
    metric.add_sample(name, labels, value)


def _add_summary(metric: Metric, labels: dict[str, str], value: Value) -> None:
    assert isinstance(value, SummaryValue)
    for quantile, found in value.quantiles:
        metric.add_sample(metric.name, {**labels, "quantile": repr(quantile)}, found)
    metric.add_sample(metric.name + "_count", labels, value.count)
    metric.add_sample(metric.name + "_sum", labels, value.sum)


def _add_histogram(metric: Metric, labels: dict[str, str], value: Value) -> None:
    assert isinstance(value, HistogramValue)
    for bound, count in value.buckets:
        metric.add_sample(metric.name + "_bucket", {**labels, "le": _bound(bound)}, count)
    metric.add_sample(metric.name + "_count", labels, value.buckets[-1][1])
    metric.add_sample(metric.name + "_sum", labels, value.sum)


def _bound(bound: float) -> str:
    return "+Inf" if bound == inf else repr(bound)


_ADD: Final[dict[str, Callable[[Metric, dict[str, str], Value], None]]] = {
    "gauge": _add_number,
    "counter": _add_number,
    "summary": _add_summary,
    "histogram": _add_histogram,
}


class ZkdCollector(Collector):
    """Asks zkd anew at every scrape."""

    def __init__(self, read_metrics: ReadMetrics) -> None:
        self._read_metrics = read_metrics

    def collect(self) -> Iterator[Metric]:
        for family in self._read_metrics():
            yield to_prometheus(family)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen. `certificate`, `key`, `authorities`: PEM files; none: plain HTTP."""

    host: str
    port: int
    certificate: str | None = None
    authorities: str | None = None
    client_certificate_needed: bool = False


class PrometheusExporter(MetricsExporter):
    name = "prometheus"

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self._endpoints = endpoints
        self._servers: list[tuple[WSGIServer, threading.Thread]] = []

    @property
    def ports(self) -> list[int]:
        """The ports that are listened on, in the order of the end points."""
        return [int(server.server_port) for server, _ in self._servers]

    def start(self, read_metrics: ReadMetrics) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Undescribed(read_metrics))
        for end in self._endpoints:
            server, thread = start_http_server(
                end.port,
                end.host,
                registry,
                certfile=end.certificate,
                keyfile=end.certificate,
                client_cafile=end.authorities,
                client_auth_required=end.client_certificate_needed,
            )
            self._servers.append((server, thread))

    def stop(self) -> None:
        while self._servers:
            server, thread = self._servers.pop()
            _shut_down(server)
            server.server_close()
            thread.join()


def _shut_down(server: WSGIServer) -> None:
    """End the server's loop now, not when it next looks (twice a second): connections wake it."""
    end = threading.Thread(target=server.shutdown, daemon=True)
    end.start()
    address = (str(server.server_address[0]), server.server_port)
    while end.is_alive():
        with contextlib.suppress(OSError):
            socket.create_connection(address, WAKE_S).close()
        end.join(WAKE_S)


class _Undescribed(ZkdCollector):
    """Registering must not ask for the metrics: the server may not be ready."""

    def describe(self) -> list[Any]:
        return []


@hookimpl
def zkd_metrics_exporters(config: Config) -> list[MetricsExporter]:
    host = config.get(PREFIX + "httpHost", "0.0.0.0").strip()
    plain = int(config.get(PREFIX + "httpPort", PORT))
    secure = int(config.get(PREFIX + "httpsPort", -1))
    endpoints = [Endpoint(host, plain)] if plain >= 0 else []
    if secure >= 0:
        endpoints.append(_secure_endpoint(config, host, secure))
    return [PrometheusExporter(endpoints)] if endpoints else []


def _secure_endpoint(config: Config, host: str, port: int) -> Endpoint:
    store = config.get(PREFIX + "ssl.keyStore.location", "").strip()
    if not store.endswith(".pem"):
        raise ValueError(
            f"{PREFIX}httpsPort={port} needs {PREFIX}ssl.keyStore.location=FILE.pem "
            "with certificate and key"
        )
    return Endpoint(
        host,
        port,
        certificate=store,
        authorities=config.get(PREFIX + "ssl.trustStore.location") or None,
        client_certificate_needed=flag(config, PREFIX + "ssl.need.client.auth", True),
    )
