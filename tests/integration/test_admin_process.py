"""The admin process of a real server: scrapes, observers, plugins that misbehave, its death."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.apache import four_letters, free_port
from tests.integration.plugged import PluginFolder, until
from tests.integration.plugged import plugins as plugins
from zkd.admin.observers import LogPurged
from zkd.server.admin_metrics import Starts, lag
from zkd.server.observed import ObservedLog
from zkd.storage.log import LOG_NAME, LogWriter
from zkd.testing import server as zkd_server
from zkd.testing.throwaway import Server

PROVIDER = "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"
RECORDER = """
    import os
    from zkd.plugins.api import CommitObserver, hookimpl

    class Recorder(CommitObserver):
        name = "recorder"
        from_oldest = True
        def __init__(self, path):
            self.path = path
        def on_commit(self, batch):
            with open(self.path, "a") as file:
                for commit in batch:
                    paths = ",".join(one.path for one in commit.changes if one.path)
                    file.write(f"{commit.zxid} {paths}\\n")

    @hookimpl
    def zkd_commit_observers(config):
        return [Recorder(config["plugin.observer.recorder.file"])]
    """


def exporting(port: int, **more: object) -> dict[str, object]:
    return {
        "metricsProvider.className": PROVIDER,
        "metricsProvider.httpHost": "127.0.0.1",
        "metricsProvider.httpPort": port,
        **more,
    }


class Scraped:
    """A server with its metrics on a port of their own."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    def text(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def samples(self) -> dict[str, float]:
        lines = (line for line in self.text().splitlines() if not line.startswith("#"))
        pairs = (line.rpartition(" ") for line in lines)
        return {name: float(value) for name, _, value in pairs}

    def up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def scraped() -> Iterator[Scraped]:
    port = free_port()
    with zkd_server(exporting(port, frontends=2)) as server:
        found = Scraped(server, port)
        until(found.up)
        yield found


def test_a_scrape_has_apaches_names_with_sensible_values(scraped: Scraped) -> None:
    clients = [scraped.server.client() for _ in range(2)]
    for number, client in enumerate(clients):
        client.create(f"/seen{number}", b"12345")
        client.create(f"/seen{number}/e", ephemeral=True)
        client.get(f"/seen{number}", watch=lambda event: None)
    samples = scraped.samples()
    assert samples["num_alive_connections"] == 2
    assert samples["global_sessions"] == 2
    assert samples["ephemerals_count"] == 2
    assert samples["watch_count"] == 2
    assert samples["znode_count"] == 9
    assert samples["outstanding_requests"] == 0
    assert samples["approximate_data_size"] > 10
    assert 10 < samples["open_file_descriptor_count"] < samples["max_file_descriptor_count"]
    assert samples["packets_received"] >= 8
    assert samples["updatelatency_count"] >= 6
    assert samples["fsynctime_count"] >= 6
    assert samples['updatelatency{quantile="0.99"}'] < 10_000
    assert samples["zkd_missing_processes"] == 0
    for process in ("supervisor", "frontend 1", "frontend 2", "peer", "storage", "admin"):
        assert samples[f'zkd_process_resident_bytes{{process="{process}"}}'] > 1 << 20


def test_a_scrape_has_the_names_of_mntr(scraped: Scraped) -> None:
    mntr = four_letters(scraped.server.port, "mntr")
    plain = set(re.findall(r"(?m)^zk_((?!avg_|min_|max_|cnt_|sum_|p\d|\w*_zkd_|zkd_)\w+)\t", mntr))
    shown = {name.partition("{")[0] for name in scraped.samples()}
    assert plain - shown - {"version", "server_state"} == set()


def test_many_may_ask_at_once(scraped: Scraped) -> None:
    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(lambda _: scraped.samples(), range(24)))
    assert all(samples["zkd_missing_processes"] == 0 for samples in texts)
    assert all(samples["znode_count"] > 0 for samples in texts)


def test_the_commit_counter_shows_in_a_scrape(scraped: Scraped) -> None:
    client = scraped.server.client()
    client.create("/counted", b"")
    for _ in range(4):
        client.set("/counted", b"x")
    name = 'zkd_namespace_changes_total{namespace="counted"}'
    until(lambda: scraped.samples().get(name) == 5)
    assert scraped.samples()['zkd_observer_lag_txns{observer="commit_counter"}'] == 0


def test_a_process_that_does_not_answer_is_left_out(scraped: Scraped) -> None:
    storage = scraped.server.pids()["storage"]
    os.kill(storage, signal.SIGSTOP)
    try:
        began = time.monotonic()
        samples = scraped.samples()
        took = time.monotonic() - began
    finally:
        os.kill(storage, signal.SIGCONT)
    assert took < 3
    assert samples["zkd_missing_processes"] == 1
    assert samples["znode_count"] > 0
    assert samples["fsynctime_count"] == 0


def test_by_default_it_listens_nowhere(zookeeper: Server) -> None:
    zookeeper.client().create("/a")
    until(lambda: "plugins.loaded" in zookeeper.log.read_text())
    admin = zookeeper.pids()["admin"]
    links = (str(link.readlink()) for link in Path(f"/proc/{admin}/fd").iterdir())
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = {row.split()[9] for row in tables.splitlines()[1:] if row.split()[3] == "0A"}
    assert inodes & listening == set()


def test_its_death_is_nobodys_business(plugins: PluginFolder, tmp_path: Path) -> None:
    """Clients go on; the observer gets every transaction in order, what it had handled since its
    cursor was kept once more."""
    plugins.add("observer.recorder", RECORDER)
    record = tmp_path / "record"
    with zkd_server({"plugin.observer.recorder.file": record}) as server:
        client = server.client()
        for number in range(30):
            client.create(f"/n{number}")
            if number % 10 == 5:
                until(lambda: "admin" in server.pids())
                server.kill("admin")
        until(lambda: record.exists() and "/n29\n" in record.read_text())
        assert client.client_state == "CONNECTED"
        rows = [line.split(" ") for line in record.read_text().splitlines()]
        first_seen = list(dict.fromkeys(row[1] for row in rows if row[1].startswith("/n")))
        assert first_seen == [f"/n{number}" for number in range(30)]
        assert "process.died name=admin" in server.log.read_text()


def test_plugins_that_block_or_raise_are_named_and_hold_up_nobody(plugins: PluginFolder) -> None:
    plugins.add(
        "observer.bad",
        """
        import threading
        from zkd.plugins.api import CommitObserver, MetricFamily, hookimpl

        class Blocks(CommitObserver):
            name = "blocks"
            def on_commit(self, batch):
                threading.Event().wait()

        class Raises(CommitObserver):
            name = "raises"
            def on_commit(self, batch):
                raise RuntimeError("no room for commits")
            def metrics(self):
                return [MetricFamily("zkd_fine", "gauge", "", samples={"": 1}),
                        MetricFamily("zkd_rubbish", "gauge", "", samples={"": "one"})]

        @hookimpl
        def zkd_commit_observers(config):
            return [Blocks(), Raises()]
        """,
    )
    plugins.add(
        "metrics.bad",
        """
        import threading
        from zkd.plugins.api import MetricsExporter, hookimpl

        class Blocks(MetricsExporter):
            name = "blocks"
            def start(self, read_metrics):
                threading.Event().wait()
            def stop(self):
                pass

        class Raises(Blocks):
            name = "raises"
            def start(self, read_metrics):
                raise RuntimeError("nobody to export to")

        @hookimpl
        def zkd_metrics_exporters(config):
            return [Blocks(), Raises()]
        """,
    )
    plugins.add("observer.unwell", "raise RuntimeError('unwell from the start')")
    port = free_port()
    with zkd_server(exporting(port, **{"metrics.exporters": "bad"})) as server:
        scraped = Scraped(server, port)
        until(scraped.up)
        until(lambda: 'zkd_observer_lag_txns{observer="blocks"}' in scraped.samples())
        client = server.client()
        for number in range(20):
            client.create(f"/n{number}")
        name = 'zkd_plugin_faults_total{plugin="observer.bad"}'
        until(lambda: scraped.samples().get(name, 0) >= 2)
        samples = scraped.samples()
        assert samples["zkd_fine"] == 1
        assert "zkd_rubbish" not in samples
        until(lambda: scraped.samples()['zkd_observer_lag_txns{observer="blocks"}'] > 0)
        until(lambda: samples_of_counter(scraped) == 20)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2
        told = server.log.read_text()
    for text in (
        "plugin observer.bad (acme-observer-bad 1.0) raised in on_commit",
        "no room for commits",
        "plugin metrics.bad (acme-metrics-bad 1.0) raised in start",
        "nobody to export to",
        "plugin observer.unwell (acme-observer-unwell 1.0) is not used",
        "observer blocks did not end",
        "exporter blocks did not stop in time",
    ):
        assert text in told, text
    assert "process.killed" not in told


def samples_of_counter(scraped: Scraped) -> float:
    changes = re.compile(r'zkd_namespace_changes_total\{namespace="n\d+"\}')
    return sum(value for name, value in scraped.samples().items() if changes.fullmatch(name))


def test_an_import_that_blocks_does_not_delay_the_stop(plugins: PluginFolder) -> None:
    plugins.add("observer.slow", "import time\ntime.sleep(60)\n")
    with zkd_server() as server:
        server.client().create("/a")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2
        assert "process.killed" not in server.log.read_text()


def test_purged_rows_are_told_as_such(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / LOG_NAME, cache_bytes=1 << 20)
    writer.append([(zxid, bytes(12) + zxid.to_bytes(8, "big") + b"body") for zxid in range(1, 8)])
    log = ObservedLog(tmp_path)
    assert [zxid for zxid, _ in log.read(0, 3)] == [1, 2, 3]
    writer.purge(4, 10)
    with pytest.raises(LogPurged) as purged:
        log.read(2, 3)
    assert purged.value.upto == 4
    assert [zxid for zxid, _ in log.read(4, 10)] == [5, 6, 7]
    assert log.history() == writer.meta.id.hex()
    writer.close()


def test_the_history_of_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert ObservedLog(tmp_path).history() is None


def test_starts_are_counted_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "starts.json"
    Starts(path).count({"peer": 1, "storage": 2})
    starts = Starts(path)
    starts.count({"peer": 1, "storage": 5})
    starts.count({"peer": 1, "storage": 5})
    assert Starts(path).counts == {"peer": 1, "storage": 2}
    path.write_text('{"peer": 1}')
    assert Starts(path).counts == {}


@pytest.mark.parametrize(
    ("zxid", "committed", "expected"),
    [(5, 9, 4), (9, 9, 0), (10, 9, 0), (1 << 32 | 7, 2 << 32 | 3, 3), (2 << 32 | 3, 1 << 32, 0)],
)
def test_lag_counts_transactions(zxid: int, committed: int, expected: int) -> None:
    assert lag(zxid, committed) == expected
