"""The processes of one server: titles, single restarts, stopping, no orphans, readiness."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zkd import testing
from zkd.storage.check import check
from zkd.storage.reader import open_tree

START_LIMIT_S = 20.0


def eventually(what: Callable[[], object], limit_s: float = 20.0) -> None:
    """Wait until `what` is true; fail if it does not become so."""
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.01)


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


@contextmanager
def connected(server: testing.Server) -> Iterator[Any]:
    client = server.client()
    try:
        yield client
    finally:
        client.stop()
        client.close()


@pytest.fixture(name="server")
def _server() -> Iterator[testing.Server]:
    with testing.server(frontends="2") as server:
        yield server


def test_each_process_says_which_it_is(server: testing.Server) -> None:
    titles = sorted(title(pid).split(" [")[0] for pid in server.pids().values())
    assert titles == [
        "zkd: admin",
        "zkd: frontend 1",
        "zkd: frontend 2",
        "zkd: peer",
        "zkd: storage",
        "zkd: supervisor",
    ]


@pytest.mark.parametrize("name", ["frontend 1", "frontend 2", "peer", "storage", "admin"])
def test_a_process_that_dies_is_restarted_alone(server: testing.Server, name: str) -> None:
    with connected(server) as client:
        client.create("/before", b"1", ephemeral=True)
        session = client.client_id[0]
        before = server.pids()
        os.kill(before[name], signal.SIGKILL)
        eventually(lambda: server.pids().get(name, before[name]) != before[name])
        after = server.pids()
        assert {k: v for k, v in after.items() if k != name} == {
            k: v for k, v in before.items() if k != name
        }
        client.retry(client.ensure_path, "/after")
        assert client.retry(client.get, "/before")[0] == b"1"
        assert client.client_id[0] == session


def test_sigterm_stops_everything_within_two_seconds(server: testing.Server) -> None:
    with connected(server) as client:
        client.create("/kept", b"x")
    pids = server.pids()
    began = time.monotonic()
    os.kill(pids["supervisor"], signal.SIGTERM)
    eventually(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids.values()))
    assert time.monotonic() - began < 2.0
    server.restart()
    with connected(server) as client:
        assert client.get("/kept")[0] == b"x"


def test_a_small_server_takes_less_than_100_mib() -> None:
    """M365: the proportional share of all its processes, which share what the supervisor loaded."""
    with testing.server(frontends="1") as server, connected(server) as client:
        for i in range(200):
            client.create(f"/n{i}", b"x" * 100)
        assert sum(pss_bytes(pid) for pid in server.pids().values()) < 100 << 20


def pss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def test_no_process_outlives_the_supervisor(server: testing.Server) -> None:
    pids = server.pids()
    os.kill(pids["supervisor"], signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids.values()))


def test_a_taken_port_is_refused_and_its_holder_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "zkd", "serve"]
            + ["--set", f"clientPort={port}", "--set", f"dataDir={tmp_path / 'data'}"],
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S,
            check=False,
        )
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr


def test_a_second_server_on_the_same_data_is_refused(server: testing.Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zkd", "serve", "--set", "clientPort=0"]
        + ["--set", f"dataDir={server.data_dir}", "--set", "clientPortAddress=127.0.0.1"]
        + ["--set", f"runtime.dir={server.data_dir}/other"],
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "pid" in done.stderr


def test_digests_stay_right_when_the_peer_dies_behind_a_close_without_its_list() -> None:
    """closeSessionTxn.enabled=false: no closeSession carries a list or a digest, and the tree is
    flushed right behind one; what the new peer goes on from must still be the tree's digest."""
    settings = {"closeSessionTxn.enabled": "false", "flush.interval": "10ms", "frontends": "1"}
    with testing.server(settings) as server, connected(server) as watcher:
        with connected(server) as client:
            client.create("/held", b"x", ephemeral=True)
        eventually(lambda: watcher.exists("/held") is None)
        end = watcher.last_zxid
        eventually(lambda: tree_zxid(server) == end)
        server.kill("peer")
        watcher.retry(watcher.ensure_path, "/after")
        end = watcher.last_zxid
        eventually(lambda: tree_zxid(server) == end)
        assert check(server.data_dir, server.data_dir) == []


def tree_zxid(server: testing.Server) -> int:
    reader = open_tree(server.data_dir, server.data_dir, cache_bytes=1 << 20)
    try:
        return reader.zxid
    finally:
        reader.close()
