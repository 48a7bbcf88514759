"""A file system that gets full under a running server (a small tmpfs; needs the right to mount).

Writes are refused by closing the writer's connection; reads go on, pings are answered, no session
expires; it ends by itself when there is room; nothing acknowledged is lost.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.exceptions import ConnectionLoss, NodeExistsError, OperationTimeoutError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry

from tests.chaos import wire
from zkd import cli, testing

SIZE_MIB = 24
SETTINGS = {"tickTime": "500", "minSessionTimeout": "1000", "flush.interval": "200"}
SESSION_S = 1.0
GIVEN_UP = (ConnectionLoss, OperationTimeoutError, KazooTimeoutError)
DATA = bytes(range(256)) * 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount: by hand only, as root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "zkd-test", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here ({done.stderr.strip()}): by hand only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use all the room that is left."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as out:
        for size in (65536, 4096):
            try:
                while True:
                    out.write(bytes(size))
            except OSError:
                continue
    return ballast


def eventually(what: Callable[[], object], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.01)


class Writer:
    """Writes one node after the other; what was acknowledged is in `done`."""

    def __init__(self, server: Any) -> None:
        self.client = server.client(timeout=SESSION_S)
        self.server = server
        self.number = 0
        self.done: dict[str, bytes] = {}

    def write(self) -> bool:
        """Whether it was acknowledged."""
        path = f"/n{self.number:05d}"
        self.number += 1
        data = path.encode() + DATA
        try:
            self.client.create(path, data)
        except GIVEN_UP:
            return False
        self.done[path] = data
        return True

    def until(self, acknowledged: bool, limit_s: float = 30.0) -> float:
        """Write until a write is (not) acknowledged; how long that took."""
        began = time.monotonic()
        eventually(lambda: self.write() is acknowledged, limit_s)
        return time.monotonic() - began


def new_session(server: Any) -> bytes:
    """What comes back when a client asks for a session, until the server closes or is silent."""
    with socket.create_connection((server.host, server.port), 5) as connection:
        connection.sendall(wire.connect_request(0, 1000, 0, bytes(16)))
        return connection.recv(100)


def check_all(server: Any, done: dict[str, bytes]) -> None:
    client = server.client()
    results = [(path, client.get_async(path)) for path in done]
    for path, result in results:
        assert result.get(20)[0] == done[path], path


def test_writes_are_refused_while_the_disk_is_full_and_nothing_else(disk: Path) -> None:
    with testing.server({**SETTINGS, "dataDir": str(disk / "data")}) as server:
        states: list[KazooState] = []
        witness = server.client(timeout=SESSION_S)
        witness.add_listener(states.append)
        mine = witness.create("/witness-", ephemeral=True, sequence=True)
        idle = server.client(timeout=SESSION_S)
        asleep = idle.create("/idle-", ephemeral=True, sequence=True)
        writer = Writer(server)
        first = writer.client.client_id[0]
        writer.until(acknowledged=True)
        for _ in range(2):
            ballast = fill(disk)
            writer.until(acknowledged=False)
            end = time.monotonic() + 2.5 * SESSION_S
            while time.monotonic() < end:
                assert witness.get(mine)[1].owner_session_id == witness.client_id[0]
                assert witness.exists(asleep) is not None
                time.sleep(0.02)
            fill(disk)
            with pytest.raises(GIVEN_UP):
                writer.client.create("/refused", DATA)
            assert new_session(server) == b"", "a session is a write, too"
            ballast.unlink()
            assert writer.until(acknowledged=True) < 5, "it goes on by itself"
            assert states == [], "the witness has not noticed anything"
            check_all(server, writer.done)
        assert idle.client_id[0] == idle.get(asleep)[1].owner_session_id
        assert writer.client.client_id[0] == first
        assert "session.expired" not in server.log.read_text()
        server.restart()
        check_all(server, writer.done)
        server.stop()
        assert cli.main(["check", "--data", str(disk / "data")]) == 0


def test_a_server_that_starts_on_a_full_disk_keeps_sessions_and_can_be_read(disk: Path) -> None:
    with testing.server({**SETTINGS, "dataDir": str(disk / "data")}) as server:
        client = server.client(timeout=SESSION_S)
        mine = client.create("/mine", b"x", ephemeral=True)
        session = client.client_id[0]
        ballast = fill(disk)
        server.kill("supervisor")
        (disk / "data" / "reserve").unlink(missing_ok=True)
        fill(disk)
        server.start()
        retry = KazooRetry(max_tries=-1, max_delay=0.2)
        eventually(lambda: client.connected)
        assert retry(client.get, mine)[1].owner_session_id == session
        with pytest.raises(GIVEN_UP):
            client.create("/refused", DATA)
        server.restart()  # stops and starts in order, too
        eventually(lambda: client.connected)
        assert retry(client.get, mine)[1].owner_session_id == session
        for name in ("peer", "frontend 1"):
            replaced(server, name)
            assert retry(client.get, mine)[1].owner_session_id == session
        ballast.unlink()
        eventually(lambda: created(client, "/after"))
        assert retry(client.get, mine)[1].owner_session_id == session
        assert "session.expired" not in server.log.read_text()


def replaced(server: Any, name: str) -> None:
    """Kill a process and wait for the next one."""
    pid = server.kill(name)
    eventually(lambda: server.pids().get(name, pid) != pid)


def created(client: Any, path: str) -> bool:
    try:
        client.create(path, b"y")
    except NodeExistsError:
        return True
    except GIVEN_UP:
        return False
    return True
