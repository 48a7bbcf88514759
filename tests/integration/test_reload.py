"""SIGHUP: what may change while a server runs, does, in every process; the rest is told.

Every key that the table calls reloadable is changed at once, and where one can be seen from outside
its effect is looked at.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import wire
from tests.integration.test_processes import eventually, title
from zkd.config import keys
from zkd.config.pending import is_pending
from zkd.jute.protocol import Err

FIRST = {
    "clientPortAddress": "127.0.0.1",
    "frontends": "2",
    "4lw.commands.whitelist": "ruok",
    "maxClientCnxns": "100",
}


class Served:
    """A server of a file, which a test rewrites."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.folder = folder
        self.path = folder / "zoo.cfg"
        self.log = folder / "log"
        self.write()
        with self.log.open("wb") as out:
            command = [sys.executable, "-m", "zkd", "serve", str(self.path)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        eventually(lambda: "server.ready" in self.told())

    def told(self) -> str:
        return self.log.read_text()

    def write(self, **changes: str) -> None:
        own = {"clientPort": str(self.port), "dataDir": str(self.folder / "data")}
        lines = [f"{key}={value}" for key, value in (own | FIRST | changes).items()]
        self.path.write_text("\n".join(lines) + "\n")

    def reload(self, event: str = "reload.done") -> str:
        """The line that the server logs when it has reloaded, or why it has not."""
        before = self.told()
        os.kill(self.process.pid, signal.SIGHUP)
        eventually(lambda: event in self.told()[len(before) :])
        text = self.told()[len(before) :]
        return next(line for line in text.splitlines() if event in line)

    def word(self, word: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port)) as s:
            s.sendall(word)
            return b"".join(iter(lambda: s.recv(65536), b""))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(name="served")
def _served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    try:
        yield served
    finally:
        served.stop()


def test_limits_and_whitelists_change_at_once_in_every_front_end(served: Served) -> None:
    assert b"not in the whitelist" in served.word(b"stat")
    changes = {
        "4lw.commands.whitelist": "ruok,stat",
        "maxClientCnxns": "2",
        "slow.request.ms": "0",
        "watch.limit.connection": "1",
        "flush.interval": "20ms",
    }
    served.write(**changes)
    line = served.reload()
    assert [key for key in changes if key not in line] == []
    for _ in range(8):  # both front-ends have heard of it by the time that one of them says so
        eventually(lambda: b"Mode: standalone" in served.word(b"stat"))
    clients = [wire.Client(served.port) for _ in range(2)]
    eventually(lambda: refused(served))
    client = clients[0]
    assert client.call(wire.CREATE, wire.create("/n", b"", wire.OPEN, 0))[0] == 0
    eventually(lambda: "request.slow" in served.told())
    assert client.call(wire.EXISTS, wire.watched("/n", 1))[0] == 0
    assert client.call(wire.EXISTS, wire.watched("/other", 1))[0] == Err.QUOTA_EXCEEDED
    for one in clients:
        one.close()


def refused(served: Served) -> bool:
    connection = wire.Wire(served.port)
    connection.send(wire.connect_request())
    closed = connection.receive() is None
    connection.drop()
    return closed


def test_what_needs_a_restart_is_told_and_a_fault_changes_nothing(served: Served) -> None:
    served.write(tickTime="1234", maxClientCnxns="2")
    assert "tickTime" in served.reload("reload.needs_restart")
    served.write(tickTime="soon", maxClientCnxns="1")
    assert "tickTime" in served.reload("reload.refused")
    served.path.unlink()
    assert "cannot be read" in served.reload("reload.refused")
    clients = [wire.Client(served.port) for _ in range(2)]
    eventually(lambda: refused(served))
    assert clients[0].call(wire.CREATE, wire.create("/n", b"", wire.OPEN, 0))[0] == 0
    assert clients[1].call(wire.EXISTS, wire.watched("/n"))[0] == 0
    for one in clients:
        one.close()


def test_every_reloadable_key_changes_at_once_and_the_server_goes_on(served: Served) -> None:
    """All of them together; a process that is started afterwards has them, too."""
    (served.folder / "log.yaml").write_text("level: debug\n")
    special = {
        "log.config": str(served.folder / "log.yaml"),
        "4lw.loopback.networks": "127.0.0.0/8",
        "4lw.loopback.whitelist": "ruok",
        "4lw.commands.whitelist": "ruok,stat",
        "autopurge.purgeInterval": "2h",
    }
    wanted = [key for key in keys.TABLE if key.reloadable and not is_pending(key)]
    changes = {key.name: special.get(key.name) or another(key) for key in wanted}
    served.write(**changes)
    line = served.reload()
    assert [key for key in changes if key not in line] == []
    front_end = next(pid for pid in children(served.process.pid) if "frontend 1" in title(pid))
    os.kill(front_end, signal.SIGKILL)
    eventually(lambda: served.told().count("frontend.joined") >= 1)
    for _ in range(4):
        eventually(lambda: b"Mode: standalone" in served.word(b"stat"))
    client = wire.Client(served.port)
    assert client.call(wire.CREATE, wire.create("/n", b"", wire.OPEN, 0))[0] == 0
    client.close()
    assert served.told().count("process.died") == 1


def another(key: keys.Key) -> str:
    """A value that is not the default."""
    if isinstance(key.default, bool):
        return "false" if key.default else "true"
    return "0.5" if isinstance(key.default, float) else "77"


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
