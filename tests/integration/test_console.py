"""What an operator sees and does on the server's machine: sessions, shedding, early warnings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
import yaml

from tests.conformance import wire
from tests.integration.test_processes import eventually
from zkd import cli
from zkd.cli.console import ask
from zkd.config import load
from zkd.server.early import EarlyWarnings, low_water
from zkd.server.metrics_table import TABLE
from zkd.storage.sums import stat_sum
from zkd.testing.throwaway import Server

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `zkd` in this process: (exit status, what it printed)."""

    def command(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return command


def server_of_two(folder: Path) -> Server:
    """With the folder of sockets where the command line finds it: beside the data's default."""
    return Server({"frontends": "2", "runtime.dir": str(folder)})


def configuration(server: Server, folder: Path) -> Path:
    path = folder / "zoo.cfg"
    path.write_text(
        f"dataDir={server.data_dir}\nclientPort={server.port}\nruntime.dir={folder / 'run'}\n"
    )
    return path


def test_the_sessions_of_all_front_ends_with_their_ephemerals(tmp_path: Path, run: Run) -> None:
    with server_of_two(tmp_path / "run") as server:
        clients = [wire.Client(server.port, timeout_s=10) for _ in range(6)]
        for i, client in enumerate(clients[:2]):
            for j in range(i + 1):
                body = wire.create(f"/e{i}{j}", b"", wire.OPEN, 1)
                assert client.call(wire.CREATE, body)[0] == 0
        config = configuration(server, tmp_path)
        status, text = run("sessions", config, "--json")
        assert status == 0
        found = {int(one["session"], 16): one for one in json.loads(text)["sessions"]}
        assert set(found) == {client.session.session & (1 << 64) - 1 for client in clients}
        assert found[clients[1].session.session]["ephemerals"] == ["/e10", "/e11"]
        assert all(one["client"].startswith("127.0.0.1:") for one in found.values())
        assert all(0 < one["expires_in_ms"] <= 40_000 for one in found.values())
        status, text = run("sessions", config, "--session", hex(clients[1].session.session))
        assert status == 0
        assert text.splitlines()[-2:] == ["/e10", "/e11"]
        clients[1].drop()  # away, and its session is not over
        eventually(lambda: not session(run, config, clients[1])["client"])
        assert session(run, config, clients[1])["ephemerals"] == ["/e10", "/e11"]
        assert run("sessions", config, "--session", "0x77")[0] == 2
        for client in clients:
            client.drop()


def session(run: Run, config: Path, client: wire.Client) -> dict[str, Any]:
    _, text = run("sessions", config, "--json", "--session", hex(client.session.session))
    [one] = json.loads(text)["sessions"]
    return dict(one)


def test_shed_clients_keep_their_sessions_and_come_back(tmp_path: Path, run: Run) -> None:
    with server_of_two(tmp_path / "run") as server:
        clients = [wire.Client(server.port) for _ in range(40)]
        config = configuration(server, tmp_path)
        status, text = run("shed", "--percent", 50, config, "--json")
        assert status == 0
        told = json.loads(text)
        assert told["closed"] + told["left"] == 40
        assert 19 <= told["closed"] <= 21, "of each front-end the half"
        closed = [client for client in clients if _is_closed(client)]
        assert len(closed) == told["closed"]
        for client in closed:
            again = client.session
            back = wire.Client(server.port, session=again.session, password=again.password)
            assert back.session.session == again.session
            back.drop()
        for client in clients:
            client.drop()
        assert "clients.shed" in server.log.read_text()


def _is_closed(client: wire.Client) -> bool:
    try:
        client.call(wire.PING)
    except ConnectionError:
        return True
    return False


def test_without_a_running_server_it_is_said(tmp_path: Path, run: Run) -> None:
    for command in (("sessions",), ("shed", "--percent", "10")):
        status, text = run(*command, "--data", tmp_path / "none")
        assert status == 2
        assert "no server is running on this data" in text


def test_a_counter_near_its_end_is_told_with_its_path_and_then_wraps(tmp_path: Path) -> None:
    """M7, M8: the counter is preset, as three years of creating would."""
    with server_of_two(tmp_path / "run") as server:
        client = server.client()
        client.create("/queue")
        server.stop()
        preset(server.data_dir / "tree-1.db", "/queue", 0x7FFF_FFFF - 2)
        server.start()
        eventually(lambda: "sequence.ceiling" in server.log.read_text())
        line = next(x for x in server.log.read_text().splitlines() if "sequence.ceiling" in x)
        assert "path=/queue" in line
        assert "left=2" in line
        metrics = ask(load(configuration(server, tmp_path)), ("storage",), {"parts": ["metrics"]})
        assert "/queue" in repr(metrics["storage"]["metrics"])
        made = [client.retry(client.create, "/queue/n-", sequence=True) for _ in range(4)]
        assert [path.removeprefix("/queue/n-") for path in made] == [
            "2147483645",
            "2147483646",
            "2147483647",
            "-2147483648",
        ]


def preset(tree: Path, path: str, counter: int) -> None:
    """Give a node this counter of creates."""
    db = apsw.Connection(str(tree))
    parent, _, name = path.rpartition("/")
    find = "SELECT stat FROM node WHERE parent = ? AND name = ?"
    row: Any = db.execute(find, (parent, name)).fetchone()
    stat = row[0][:36] + counter.to_bytes(4, "big") + row[0][40:]
    db.execute(
        "UPDATE node SET stat = ?, stat_sum = ? WHERE parent = ? AND name = ?",
        (stat, stat_sum(path, stat), parent, name),
    )
    db.execute("DELETE FROM meta WHERE key = 'counters'")  # the scan finds it again
    db.close()


class Heard:
    """A log that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **fields: object) -> None:
        self.events.append(event)

    info = warning


def test_a_disk_is_told_when_it_becomes_low_and_when_it_no_longer_is(tmp_path: Path) -> None:
    log = Heard()
    early = EarlyWarnings(log, [tmp_path])  # type: ignore[arg-type]
    total = 100 << 30
    mark = low_water(total)
    assert mark == 1 << 30
    assert low_water(1 << 30) == (1 << 30) // 20
    for free in (mark, mark - 1, mark - 2, mark + 1, mark * 2, mark - 1):
        early.disk(tmp_path, free, total)
    assert log.events == ["disk.low", "disk.enough", "disk.low"]


def test_alerts_are_on_metrics_that_there_are() -> None:
    rules = yaml.safe_load((ROOT / "conf" / "alerts.yaml").read_text())["groups"][0]["rules"]
    names = {spec.name for spec in TABLE}
    for rule in rules:
        words = set(rule["expr"].replace("(", " ").replace("[", " ").split())
        assert [word for word in words if word.startswith("zkd_")] != []
        assert {word for word in words if word.startswith("zkd_")} <= names
        assert {"summary", "action"} <= set(rule["annotations"])
