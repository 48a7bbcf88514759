"""`zkd status`: what is read from the answers to four-letter words, and how it is shown."""

from __future__ import annotations

import json

import pytest

from tests.apache import free_port
from zkd import cli
from zkd.cli import status
from zkd.errors import OperatorError

SRVR = """Zookeeper version: 3.9.5-zkd-0.1.0, built on 2026-11-22 18:12 UTC
Latency min/avg/max: 0/0.8714/7
Received: 83
Sent: 86
Connections: 1
Outstanding: 0
Zxid: 0x19
Mode: standalone
Node count: 6
"""
MNTR = """zk_version\t3.9.5
zk_uptime\t90061000
zk_watch_count\t3
zk_approximate_data_size\t2048
zk_frontend_1_zkd_process_resident_bytes\t31457280
zk_frontend_1_zkd_process_cpu_seconds_total\t1.25
zk_missing_processes\t1
"""


def test_srvr_is_read() -> None:
    facts = status.parse_srvr(SRVR)
    assert facts["version"] == "3.9.5-zkd-0.1.0, built on 2026-11-22 18:12 UTC"
    assert (facts["mode"], facts["zxid"], facts["node_count"]) == ("standalone", "0x19", 6)
    assert facts["latency_avg_ms"] == 0.8714


def test_mntr_is_read() -> None:
    facts, processes = status.parse_mntr(MNTR)
    assert facts == {
        "uptime_ms": 90061000,
        "watch_count": 3,
        "data_bytes": 2048,
        "missing_processes": 1,
    }
    assert processes == {"frontend 1": {"resident_bytes": 31457280.0, "cpu_seconds": 1.25}}


def test_the_table_has_a_column_a_server() -> None:
    good = status.Status("a:1", serving=True, facts=status.parse_srvr(SRVR))
    facts, good.processes = status.parse_mntr(MNTR)
    good.facts |= facts
    bad = status.Status("b:2", error="Connection refused")
    table = {row[0]: row[1:] for row in status.rows([good, bad])}
    assert table["Serving"] == ["yes", "no: Connection refused"]
    assert table["Up"] == ["1 d 1 h", ""]
    assert table["Latency min/avg/max ms"] == ["0/0.8714/7", ""]
    assert table["Data"] == ["2.0 KiB", ""]
    assert table["frontend 1"] == ["30.0 MiB, 1.2 s CPU", ""]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", ("host", 2181)),
        ("host:1", ("host", 1)),
        ("[::1]:2", ("::1", 2)),
        ("[::1]", ("::1", 2181)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert status.address_of(text) == address


@pytest.mark.parametrize("text", ["", ":1", "host:x", "host:70000", "::1"])
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(OperatorError):
        status.address_of(text)


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0 s"), (59000, "59 s"), (61000, "1 m 1 s"), (3600000, "1 h 0 m")]
)
def test_durations(ms: int, text: str) -> None:
    assert status.duration(ms) == text


def test_a_server_that_is_not_there_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert cli.main(["status", "-s", f"127.0.0.1:{port}", "--json"]) == 1
    (server,) = json.loads(capsys.readouterr().out)["servers"]
    assert server == {
        "server": f"127.0.0.1:{port}",
        "serving": False,
        "error": "Connection refused",
        "processes": {},
    }
