"""`zkd snapshot` beside running and stopped servers, and `zkd plugins`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.plugged import PluginFolder
from tests.integration.plugged import plugins as plugins
from zkd import config as configuration
from zkd.cli import main, snapshot
from zkd.config import Config
from zkd.errors import OperatorError
from zkd.plugins.api import SnapshotNode, SnapshotSource
from zkd.storage.snapshot import list_snapshots
from zkd.testing import server as zkd_server
from zkd.testing.throwaway import Server
from zkd_snapshot_zkd import ZkdFormat

SYSTEM = {"/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"}


def config_of(server: Server, **more: str) -> Config:
    return configuration.load(None, {"dataDir": str(server.data_dir), **more})


def take(server: Server, output: Path | None = None) -> snapshot.Taken:
    return snapshot.take(config_of(server), "zkd", output)


def contents(path: Path) -> dict[str, SnapshotNode]:
    source = ZkdFormat().read(path)
    try:
        return {node.path: node for node in source.nodes()}
    finally:
        source.close()


def fill(client: Any) -> None:
    """Every kind of change, on nodes that are flushed already and on new ones."""
    client.create("/flushed", b"old")
    client.create("/flushed/gone", b"")
    client.create("/flushed/kept", b"kept")
    client.create("/flushed/e", b"", ephemeral=True)


def change(client: Any) -> None:
    client.set("/flushed", b"new")
    client.delete("/flushed/gone")
    client.set_acls("/flushed/kept", [private_acl()])
    client.create("/later", b"1")
    client.create("/later/child", b"2")
    client.create("/later/child/deep", b"3", ephemeral=True)
    client.create("/later/gone", b"")
    client.delete("/later/gone")
    client.create("/later/again", b"first")
    client.delete("/later/again")
    client.create("/later/again", b"second")


def private_acl() -> Any:
    from kazoo.security import make_digest_acl

    return make_digest_acl("u", "p", all=True)


@pytest.fixture(scope="module", params=["the tree lags behind", "the tree is flushed soon"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    lags = request.param == "the tree lags behind"
    settings = {"flush.interval": "1h"} if lags else {"flush.interval": "10ms", "snapCount": "2"}
    with zkd_server(settings) as running:
        yield running


def test_what_was_acknowledged_is_in_it(server: Server, tmp_path: Path) -> None:
    client = server.client()
    fill(client)
    take(server, tmp_path / "before")
    change(client)
    taken = take(server, tmp_path / "now")
    found = contents(taken.path)
    assert {path: node.data for path, node in found.items() if path not in SYSTEM} == {
        "/flushed": b"new",
        "/flushed/kept": b"kept",
        "/flushed/e": b"",
        "/later": b"1",
        "/later/child": b"2",
        "/later/child/deep": b"3",
        "/later/again": b"second",
    }
    assert found["/flushed/kept"].acl is not None
    assert found["/later"].acl is None
    stat = client.exists("/later")
    assert int.from_bytes(found["/later"].stat[:8], "big") == stat.czxid
    assert taken.zxid == stat.pzxid
    source = ZkdFormat().read(taken.path)
    assert set(source.sessions()) == {client.client_id[0]}
    assert source.digest is not None
    source.close()


def test_snapshots_are_sound_while_the_server_writes(server: Server, tmp_path: Path) -> None:
    """Each is checked by its own digest and counts, and holds one prefix of the history."""
    client = server.client()
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            client.create(f"/w{number}", b"", ephemeral=number % 3 == 0)
            if number >= 5:
                client.delete(f"/w{number - 5}")
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            names = contents(take(server, tmp_path / f"s{number}").path)
            written = sorted(int(name[2:]) for name in names if name.startswith("/w"))
            assert not written or written[-1] - written[0] == len(written) - 1
    finally:
        over.set()
        thread.join()


def test_a_killed_server_leaves_everything_in_its_log() -> None:
    with zkd_server() as killed:
        client = killed.client()
        for number in range(20):
            client.create(f"/n{number}")
        client.stop()
        killed.kill("supervisor")
        taken = take(killed)
        assert {f"/n{number}" for number in range(20)} <= contents(taken.path).keys()
        assert [one.path for one in list_snapshots(killed.data_dir / "snapshots")] == [taken.path]


def test_old_ones_go_and_the_same_is_not_taken_twice() -> None:
    with zkd_server() as running:
        client = running.client()
        paths = []
        for number in range(5):
            client.create(f"/n{number}")
            taken = take(running)
            paths.append(taken.path)
        assert taken.removed == (paths[1],)
        again = take(running)
        assert (again.path, again.fresh, again.removed) == (paths[4], False, ())
        left = sorted(path.name for path in (running.data_dir / "snapshots").iterdir())
        assert left == sorted(path.name for path in paths[2:])
        client.create("/n5")
        config = config_of(running, **{"autopurge.purgeInterval": "0"})
        kept = snapshot.take(config, "zkd", None)
        assert kept.removed == ()


def test_a_file_is_never_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OperatorError, match="exists"):
        take(server, tmp_path / "mine")
    with pytest.raises(OperatorError, match="missing"):
        take(server, tmp_path / "no" / "folder")
    assert (tmp_path / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_a_damaged_snapshot_is_not_taken_for_one(tmp_path: Path) -> None:
    with zkd_server() as running:
        running.client().create("/a", b"a" * 5000)
        path = take(running).path
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"a" * 100, b"b" * 100, 1))
        with pytest.raises(OperatorError, match="not sound"):
            take(running)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no data of zkd"):
        snapshot.take(configuration.load(None, {"dataDir": str(tmp_path)}), "zkd", None)


def test_the_command(server: Server, tmp_path: Path) -> None:
    server.client().create("/command")
    file = tmp_path / "zoo.cfg"
    file.write_text(f"dataDir={server.data_dir}\nclientPort={server.port}\n")
    command = [sys.executable, "-m", "zkd", "snapshot", str(file)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["path"] == str(tmp_path / "out")
    assert told["bytes"] == (tmp_path / "out").stat().st_size
    assert told["nodes"] == len(contents(tmp_path / "out")) + 1
    assert int(told["zxid"], 16) > 0
    assert told["fresh"] is True
    again = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("zkd: this file exists\n  where: ")


BAD_FORMATS = """
    from zkd.plugins.api import SnapshotFormat, hookimpl

    class Base(SnapshotFormat):
        suffix = ".bad"
        def write(self, source, path):
            path.write_text("".join(node.path for node in source.nodes()))
        def verify(self, path):
            return 0
        def read(self, path):
            raise ValueError

    class Raises(Base):
        name = "raises"
        def write(self, source, path):
            path.write_text("half")
            raise RuntimeError("no such luck")

    class Doubts(Base):
        name = "doubts"
        def verify(self, path):
            raise ValueError("line 1 is wrong")

    class Lies(Base):
        name = "lies"

    @hookimpl
    def zkd_snapshot_formats(config):
        return [Raises(), Doubts(), Lies()]
    """


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "format raises has failed: RuntimeError: no such luck"),
        ("doubts", "not sound: line 1 is wrong"),
        ("lies", "it is of 0x0"),
        ("unheard-of", "no plugin knows the snapshot format 'unheard-of'"),
    ],
)
def test_a_format_that_fails_leaves_nothing(
    server: Server,
    plugins: PluginFolder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    message: str,
) -> None:
    server.client().ensure_path("/formats")
    plugins.add("snapshot.bad", BAD_FORMATS)
    monkeypatch.syspath_prepend(str(plugins.folder))
    with pytest.raises(OperatorError, match=message):
        snapshot.take(config_of(server), name, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_the_sources_of_formats_are_whole(server: Server) -> None:
    """Parents come before their children, and a source can be read twice."""
    from zkd.plugins.current import open_current
    from zkd.server.settings import tree_settings

    config = config_of(server)
    server.client().ensure_path("/z/y/x")
    source: SnapshotSource = open_current(
        config.data_dir, config.data_log_dir, tree_settings(config)
    )
    first, second = list(source.nodes()), list(source.nodes())
    source.close()  # type: ignore[attr-defined]
    assert first == second
    seen = {""}
    for node in first:
        assert node.path.rpartition("/")[0] in seen
        seen.add(node.path.rstrip("/"))


# -- zkd plugins -----------------------------------------------------------------------------------


def test_plugins_are_listed_with_what_becomes_of_them(
    plugins: PluginFolder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugins.add("observer.unwell", "raise RuntimeError('unwell from the start')")
    monkeypatch.syspath_prepend(str(plugins.folder))
    file = tmp_path / "zoo.cfg"
    file.write_text(
        f"dataDir={tmp_path}\nclientPort=2181\nmetrics.exporters=nowhere\n"
        "authProvider.1=plugin:kerberos\nplugins.disabled=auth.ip\n"
    )
    assert main(["plugins", str(file), "--json"]) == 1
    found = {row["plugin"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["auth.digest"]["state"] == "used"
    assert found["auth.digest"]["offers"] == ["digest"]
    assert found["auth.digest"]["processes"] == ["front-ends", "peer"]
    assert found["auth.ip"]["state"] == "off"
    assert found["snapshot.zkd"]["offers"] == ["zkd"]
    assert found["observer.unwell"]["state"] == "refused"
    assert "unwell from the start" in found["observer.unwell"]["reason"]
    assert found["observer.unwell"]["distribution"] == "acme-observer-unwell"
    assert found["metrics.nowhere"]["state"] == "refused"
    assert "it is not installed" in found["authProvider.1"]["reason"]


def test_plugins_without_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    printed = capsys.readouterr().out
    assert "snapshot.zkd" in printed
    assert "refused" not in printed
