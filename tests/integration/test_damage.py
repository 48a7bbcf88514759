"""Damaged files and a real server: its start refuses and names a command, or goes on as designed;
the command is run, the server starts, and what is there is looked at.

One server is run once and killed; each test damages a copy of its files. Its history: a first life
that was stopped in order (all in log.db's and the tree's main files), a snapshot, then a second
life whose transactions are in the WAL of log.db alone, the tree being flushed every hour.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest
from kazoo.exceptions import DataInconsistency, RolledBackError

from tests.chaos import nemesis
from tests.integration.test_processes import eventually
from zkd import cli, testing
from zkd.storage.log import LogReader
from zkd.storage.reader import TreeReader
from zkd.testing.throwaway import Server, ServerFailed

FIRST, SECOND = 30, 40
SETTINGS = {"flush.interval": "1h", "tickTime": "500"}
FRAME = 24 + 4096


@dataclass
class Image:
    """A killed server's files, and what it had acknowledged: path -> (zxid, data)."""

    folder: Path
    done: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    snapshot: Path = Path()
    first_end: int = 0
    """The last zxid of the first life."""
    wal_end: int = 0
    """Bytes of the log's WAL that are in use."""
    copies: int = 0

    @property
    def last(self) -> int:
        return max(zxid for zxid, _ in self.done.values())

    def copy(self) -> Path:
        """Fresh files to damage."""
        self.copies += 1
        target = self.folder / f"copy{self.copies}"
        shutil.copytree(self.folder / "image", target)
        return target

    def expected(self, upto: int) -> dict[str, bytes]:
        return {path: data for path, (zxid, data) in self.done.items() if zxid <= upto}


def fill(image: Image, server: Server, names: range) -> None:
    client = server.client()
    for i in names:
        data = f"value {i}".encode() * 8
        _, stat = client.create(f"/n{i:03d}", data, include_data=True)
        image.done[f"/n{i:03d}"] = (stat.czxid, data)


@pytest.fixture(scope="module", name="image")
def _image() -> Iterator[Image]:
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="zkd-damage-", dir=memory if usable else None))
    image = Image(folder)
    data = folder / "image"
    try:
        with testing.server({**SETTINGS, "dataDir": str(data)}) as server:
            fill(image, server, range(FIRST))
            server.stop()
            image.snapshot = folder / "kept.zkd"
            assert cli.main(["snapshot", "--data", str(data), "--output", str(image.snapshot)]) == 0
            image.first_end = log_end(data)
            server.start()
            fill(image, server, range(FIRST, FIRST + SECOND))
            pids = server.pids()
            nemesis.kill_tree(pids["supervisor"])
        assert image.first_end < image.last <= log_end(data)
        for shm in data.glob("*-shm"):
            shm.unlink()
        image.wal_end = used(data / "log.db-wal")
        yield image
    finally:
        shutil.rmtree(folder)


def log_end(data: Path) -> int:
    reader = LogReader(data / "log.db")
    try:
        return reader.last()
    finally:
        reader.close()


def used(wal: Path) -> int:
    """Bytes of a WAL's frames of its present salt."""
    content = wal.read_bytes()
    salt = content[16:24]
    at = 32
    while content[at + 8 : at + 16] == salt:
        at += FRAME
    return at


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def find(path: Path, text: bytes) -> int:
    """The last place of a text in a file."""
    at = path.read_bytes().rindex(text)
    assert at > 0
    return at


@pytest.fixture
def run(image: Image, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run `zkd` in this process: (exit status, all that it printed)."""

    def command(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return command


def refusal(data: Path) -> str:
    """What a server says that refuses to start with these files."""
    with pytest.raises(ServerFailed) as failed, testing.server({**SETTINGS, "dataDir": str(data)}):
        pass
    text = str(failed.value)
    assert "Traceback" not in text
    assert "to mend it: " in text
    return text


def contents(data: Path, log: list[str] | None = None) -> dict[str, bytes]:
    """Start the server and read everything in it by a client; it must accept a write, too."""
    with testing.server({**SETTINGS, "dataDir": str(data)}) as server:
        client = server.client()
        found = {
            f"/{name}": client.get(f"/{name}")[0]
            for name in client.get_children("/")
            if name not in ("zookeeper", "goes-on")
        }
        client.ensure_path("/goes-on")
        client.set("/goes-on", b"again")
        if log is not None:
            log.append(server.log.read_text())
    return found


def accepted(data: Path, run: Callable[..., tuple[int, str]]) -> dict[str, Any]:
    """`zkd check --accept-log-end`, which must succeed; what it says was given up."""
    status, text = run("check", "--data", data, "--accept-log-end", "--json")
    assert status == 0, text
    told: dict[str, Any] = json.loads(text)
    assert told["sound"]
    return dict(told["accepted"])


Run = Callable[..., tuple[int, str]]


def test_undamaged_files_are_sound_and_everything_is_there(image: Image, run: Run) -> None:
    data = image.copy()
    assert run("check", "--data", data) == (0, f"{data}: sound\n")
    status, text = run("check", "--data", data, "--accept-log-end")
    assert status == 0
    assert "nothing had to be given up" in text
    assert contents(data) == image.expected(image.last)


@pytest.mark.parametrize("part", [0.5, 1.0], ids=["middle", "end"])
def test_a_bit_flipped_in_the_logs_wal(image: Image, run: Run, part: float) -> None:
    data = image.copy()
    frames = (image.wal_end - 32) // FRAME
    flip(data / "log.db-wal", 32 + (int(frames * part) - 1) * FRAME + 200)
    text = refusal(data)
    assert "was durable" in text
    assert "`zkd check --accept-log-end`" in text
    status, told = run("check", "--data", data)
    assert status == 1
    assert "--accept-log-end" in told
    given_up = accepted(data, run)
    end, promised = int(given_up["log_end"], 16), int(given_up["promised"], 16)
    assert image.first_end < end < image.last <= promised
    assert contents(data) == image.expected(end)


def test_rows_missing_at_the_end(image: Image, run: Run) -> None:
    data = image.copy()
    db = apsw.Connection(str(data / "log.db"))
    db.execute("DELETE FROM txn WHERE zxid > ?", (image.last - 10,))
    db.close()
    assert "was durable" in refusal(data)
    status, text = run("check", "--data", data, "--accept-log-end")
    assert status == 0
    assert f"given up: every transaction above {image.last - 10:#x}" in text
    assert contents(data) == image.expected(image.last - 10)


def test_a_bit_flipped_in_the_logs_main_file_above_the_tree(image: Image, run: Run) -> None:
    data = image.copy()
    db = apsw.Connection(str(data / "log.db"))
    db.execute("SELECT count(*) FROM txn").fetchall()
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    bad = f"/n{FIRST + 20:03d}"
    flip(data / "log.db", find(data / "log.db", bad.encode()) + 10)
    text = refusal(data)
    assert "does not agree with its checksum" in text
    assert "`zkd check --accept-log-end`" in text
    status, told = run("check", "--data", data, "--accept-log-end")
    assert status == 0
    assert "/n060" in told, "what could be read of the lost is named"
    end = image.done[bad][0] - 1
    assert f"given up: every transaction above {end:#x}" in told
    assert contents(data) == image.expected(end)


def test_a_bit_flipped_in_what_the_tree_holds_already(image: Image, run: Run) -> None:
    data = image.copy()
    flip(data / "log.db", find(data / "log.db", b"/n010") + 10)
    status, text = run("check", "--data", data)
    assert status == 1
    assert "the tree holds it" in text
    whole = image.expected(image.last)
    assert contents(data) == whole
    status, text = run("check", "--data", data, "--accept-log-end")
    assert status == 0, text
    assert "no change is lost" in text
    assert run("check", "--data", data)[0] == 0
    assert contents(data) == whole


def test_a_log_that_is_no_database_any_more(image: Image, run: Run) -> None:
    data = image.copy()
    (data / "log.db-wal").unlink()
    flip(data / "log.db", 3)
    text = refusal(data)
    assert "the file is damaged" in text
    assert "`zkd restore SNAPSHOT --replace`" in text
    assert run("check", "--data", data)[0] == 1
    status, text = run("restore", image.snapshot, "--data", data)
    assert status == 2
    assert "there is data of a server already" in text
    status, text = run("restore", data / "tree-1.db", "--data", data, "--replace")
    assert status == 0, text
    assert contents(data) == image.expected(image.first_end)


def test_a_bit_flipped_in_the_tree(image: Image, run: Run) -> None:
    data = image.copy()
    flip(data / "tree-1.db", 4096 + 3)
    text = refusal(data)
    assert "the file is damaged" in text
    assert "`zkd check` names the damaged file" in text
    status, text = run("check", "--data", data)
    assert status == 1
    assert f"{data}/tree-1.db: " in text
    assert "`zkd restore SNAPSHOT --keep-log`" in text
    status, text = run("restore", image.snapshot, "--data", data, "--keep-log")
    assert status == 0, text
    assert run("check", "--data", data)[0] == 0
    assert contents(data) == image.expected(image.last), "the log gave back what came later"


def test_a_bit_flipped_in_a_znodes_data_is_found_by_check(image: Image, run: Run) -> None:
    data = image.copy()
    flip(data / "tree-1.db", find(data / "tree-1.db", b"value 7value 7"))
    status, text = run("check", "--data", data)
    assert status == 1
    assert "digest: stored" in text
    status, text = run("restore", data / "tree-1.db", "--data", data, "--replace")
    assert status == 2
    assert "is not sound" in text
    assert run("restore", image.snapshot, "--data", data, "--keep-log")[0] == 0
    assert contents(data) == image.expected(image.last)


def damaged_server(image: Image, sql: str) -> testing.Server:
    """A server on files of which one row was changed in place, below its checksum."""
    data = image.copy()
    db = apsw.Connection(str(data / "tree-1.db"))
    db.execute(sql)
    assert db.changes() == 1
    db.close()
    return Server({**SETTINGS, "dataDir": str(data), "frontends": "2"})


@pytest.mark.parametrize(
    ("sql", "path"),
    [
        ("UPDATE node SET data = CAST('valve 7' AS BLOB) WHERE name = 'n007'", "/n007"),
        ("UPDATE node SET stat = zeroblob(68) WHERE name = 'n007'", "/n007"),
        ("UPDATE node SET acl = x'00000001' WHERE name = 'n007'", "/n007"),
        ("UPDATE node SET acl = NULL WHERE name = 'config'", "/zookeeper/config"),
    ],
    ids=["data", "stat", "acl", "system"],
)
def test_a_damaged_row_is_refused_to_whoever_asks_and_nobody_else_is_disturbed(
    image: Image, sql: str, path: str
) -> None:
    with damaged_server(image, sql) as server:
        client, other = server.client(), server.client()
        pids = server.pids()
        for _ in range(2):
            for request in (client.get, client.exists, client.get_children, client.get_acls):
                with pytest.raises(DataInconsistency):
                    request(path)
        with pytest.raises(DataInconsistency):
            client.set(path, b"x")
        if not path.startswith("/zookeeper"):
            with pytest.raises(DataInconsistency):
                client.delete(path)
            with pytest.raises(DataInconsistency):
                client.create(path + "/below")
        steps = client.transaction()
        steps.create("/all-or-nothing")
        steps.set_data(path, b"x")
        results = steps.commit()
        assert isinstance(results[0], RolledBackError)
        assert isinstance(results[1], DataInconsistency)
        assert other.exists("/all-or-nothing") is None
        assert other.get("/n008")[0] == image.done["/n008"][1]
        other.create("/goes-on", ephemeral=True)
        assert server.pids() == pids
        told = [line for line in server.log.read_text().splitlines() if "tree.damaged" in line]
        assert any(f"what is stored of {path} does not agree" in line for line in told)
        assert any("tree-1.db" in line and "`zkd check`" in line for line in told)


def test_a_session_is_closed_though_one_of_its_ephemerals_is_damaged(image: Image) -> None:
    data = image.copy()
    with Server({**SETTINGS, "dataDir": str(data), "frontends": "1"}) as server:
        client = server.client(timeout=2.0)
        client.create("/held", b"1", ephemeral=True)
        client.create("/kept", b"2", ephemeral=True)
        server.stop()
        db = apsw.Connection(str(data / "tree-1.db"))
        db.execute("UPDATE node SET data = x'00' WHERE name = 'kept'")
        db.close()
        server.start()
        other = server.client()
        with pytest.raises(DataInconsistency):
            other.get("/kept")
        client.stop()
        eventually(lambda: other.exists("/held") is None)
        with pytest.raises(DataInconsistency):
            other.get("/kept")
        server.restart()
        assert other.retry(other.exists, "/held") is None


def test_without_its_mark_a_log_is_taken_as_it_is_and_that_is_said(image: Image) -> None:
    data = image.copy()
    (data / "log.mark").unlink()
    log: list[str] = []
    assert contents(data, log) == image.expected(image.last)
    assert "storage.note" in log[0]
    assert "log.mark says nothing" in log[0]


def test_a_tree_without_its_log_is_not_hidden_by_a_new_one(image: Image, run: Run) -> None:
    data = image.copy()
    for path in data.glob("log.*"):
        path.unlink()
    assert "there is a tree (tree-1.db) but no log.db" in refusal(data)
    assert run("restore", image.snapshot, "--data", data, "--replace")[0] == 0
    assert contents(data) == image.expected(image.first_end)


def test_the_tree_and_the_logs_end_damaged_at_once(image: Image, run: Run) -> None:
    data = image.copy()
    flip(data / "tree-1.db", 4096 + 3)
    flip(data / "log.db-wal", image.wal_end - FRAME + 200)
    assert "`zkd check --accept-log-end`" in refusal(data)
    status, text = run("check", "--data", data, "--accept-log-end")
    assert status == 2
    assert "--keep-log" in text, "the tree must be mended first"
    status, text = run("restore", image.snapshot, "--data", data, "--keep-log")
    assert status == 2
    assert "--accept-log-end" in text
    end = int(accepted(data, run)["log_end"], 16)
    assert image.first_end < end < image.last
    assert contents(data) == image.expected(end)


def test_an_older_state_can_be_gone_back_to(image: Image, run: Run) -> None:
    data = image.copy()
    status, text = run("restore", image.snapshot, "--data", data, "--replace", "--json")
    assert status == 0
    told = json.loads(text)
    assert int(told["zxid"], 16) == image.first_end
    assert contents(data) == image.expected(image.first_end)
    kept = Path(told["moved"][0])
    assert {path.name for path in kept.iterdir()} >= {"log.db", "log.db-wal", "tree-1.db"}


def test_a_snapshot_of_another_server_does_not_go_with_the_log(image: Image, run: Run) -> None:
    with testing.server(SETTINGS) as other:
        client = other.client()
        for i in range(FIRST - 2):
            client.create(f"/other{i}")
        foreign = image.folder / "foreign.zkd"
        command = ["snapshot", "--data", str(other.data_dir), "--output", str(foreign)]
        assert cli.main(command) == 0
    data = image.copy()
    reader = TreeReader(foreign)
    assert reader.zxid <= image.first_end
    reader.close()
    status, text = run("restore", foreign, "--data", data, "--keep-log")
    assert status == 2
    assert "nothing shows that this snapshot is one of this server's history" in text
    assert contents(data) == image.expected(image.last), "nothing was changed"


def test_files_are_not_touched_while_their_server_runs(image: Image, run: Run) -> None:
    data = image.copy()
    with testing.server({**SETTINGS, "dataDir": str(data)}) as server:
        for command in (["check", "--accept-log-end"], ["restore", image.snapshot, "--replace"]):
            status, text = run(*command, "--data", data)
            assert status == 2
            assert f"pid {server.pids()['storage']}" in text
        assert run("check", "--data", data)[0] == 0
        os.kill(server.pids()["supervisor"], signal.SIGTERM)
