"""Writes and fsyncs that fail under a running server, and files that storage refuses to open again.

Storage ends at the first failure and is started again; nothing acknowledged is lost, no session
ends. If it cannot start again, reads go on and writes are refused, until it can.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from kazoo.exceptions import ConnectionLoss, NodeExistsError, OperationTimeoutError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState

from zkd import testing
from zkd.testing.throwaway import Server

SETTINGS = {"tickTime": "500", "minSessionTimeout": "1000"}
GIVEN_UP = (ConnectionLoss, OperationTimeoutError, KazooTimeoutError)


def eventually(what: Callable[[], object], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


class Witness:
    """A client with a short session and an ephemeral, which records what becomes of it."""

    def __init__(self, server: Server) -> None:
        self.states: list[KazooState] = []
        self.client = server.client(timeout=1.0)
        self.client.add_listener(self.states.append)
        self.session = self.client.client_id[0]
        self.path = self.client.create("/witness-", ephemeral=True, sequence=True)

    def lives(self) -> None:
        """The session is the first one, and its ephemeral is there."""
        assert KazooState.LOST not in self.states
        assert self.client.client_id[0] == self.session
        assert self.client.retry(self.client.get, self.path)[1].owner_session_id == self.session


def write_all(client: Any, names: range) -> list[str]:
    """Create nodes one after the other, again after a lost connection: those acknowledged."""
    done = []
    for i in names:
        path = f"/n{i:04d}"
        while True:
            try:
                client.create(path, path.encode())
            except NodeExistsError:
                pass
            except GIVEN_UP:
                continue
            break
        done.append(path)
    return done


@pytest.mark.parametrize(
    "point",
    [
        "log.before-commit=eio:25",
        "log.after-commit=eio:25",
        "tree.before-commit=eio:3",
        "log.before-insert=enospc:25",
        "tree.slice=enospc:3:2",
    ],
)
def test_a_failing_write_costs_nothing_acknowledged_and_no_session(
    folder: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKD_FAILPOINTS", point)
    settings = {**SETTINGS, "dataDir": str(folder), "flush.interval": "50"}
    with testing.server(settings) as server:
        witness = Witness(server)
        first = server.pids()["storage"]
        client = server.client()
        done = write_all(client, range(70))
        sign = "a write or an fsync failed" if "eio" in point else "log.full"
        end = time.monotonic() + 20
        while sign not in server.log.read_text():
            assert time.monotonic() < end, "the fail point was not reached"
            done += write_all(client, range(len(done), len(done) + 10))
        done += write_all(client, range(len(done), len(done) + 10))
        witness.lives()
        log = server.log.read_text()
        if "eio" in point:
            assert server.pids()["storage"] != first
            assert witness.states == [], "its connection was kept"
        assert "Traceback" not in log
        assert "session.expired" not in log
        monkeypatch.delenv("ZKD_FAILPOINTS")
        server.restart()
        client = server.client()
        for path in done:
            assert client.get(path)[0] == path.encode()


def storage_gone(server: Server) -> bool:
    return "storage" not in server.pids()


@contextmanager
def supervisor_stopped(server: Server) -> Iterator[None]:
    """Nobody is started meanwhile."""
    pid = server.pids()["supervisor"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_storage_that_cannot_start_again_is_waited_for_while_reads_go_on(folder: Path) -> None:
    settings = {**SETTINGS, "dataDir": str(folder), "flush.interval": "1h"}
    with testing.server(settings) as server:
        witness, writer = Witness(server), server.client(timeout=1.0)
        done = write_all(writer, range(30))
        with supervisor_stopped(server):
            os.kill(server.pids()["storage"], signal.SIGKILL)
            eventually(lambda: storage_gone(server))
            kept = folder.with_name("kept")
            kept.mkdir()
            for file in folder.glob("log.*"):
                shutil.copy2(file, kept)
            db = apsw.Connection(str(folder / "log.db"))
            db.execute("DELETE FROM txn WHERE zxid > 20")
            db.close()
            supervisor_began = cpu_s(server.pids()["supervisor"])
        refused = threading.Event()

        def write() -> None:
            try:
                writer.set("/n0000", b"is refused")
            except GIVEN_UP:
                refused.set()

        thread = threading.Thread(target=write)
        thread.start()
        eventually(lambda: "storage.away" in server.log.read_text())
        thread.join(10)
        assert refused.is_set(), "a write is refused, not kept waiting"
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert witness.client.retry(witness.client.get, "/n0007")[0] == b"/n0007"
            time.sleep(0.05)
        witness.lives()
        log = server.log.read_text()
        assert "was durable" in log
        assert "`zkd check --accept-log-end`" in log
        starts = log.count("process.died name=storage")
        assert 3 <= starts <= 12, "it is tried again, at longer and longer intervals"
        assert cpu_s(server.pids()["supervisor"]) - supervisor_began < 2.0
        with supervisor_stopped(server):
            eventually(lambda: storage_gone(server))
            for damaged in folder.glob("log.*"):
                damaged.unlink()
            for good in kept.iterdir():
                shutil.copy2(good, folder)
        done += write_all(writer, range(30, 40))
        witness.lives()
        client = server.client()
        for path in done:
            assert client.get(path)[0] in (path.encode(), b"is refused")
        assert "session.expired" not in server.log.read_text()
