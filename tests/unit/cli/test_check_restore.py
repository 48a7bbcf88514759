"""`zkd check` and `zkd restore`: what they refuse, and what they leave behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from zkd import cli
from zkd.storage.engine import Engine
from zkd.storage.replay import replayer
from zkd.storage.settings import StorageSettings
from zkd.storage.snapshot import take
from zkd.tree.settings import TreeSettings

SETTINGS = StorageSettings(reserve_bytes=4096, log_wal_bytes=64 * 1024)
NOBODY = 65534


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The files of a fresh server."""
    folder = tmp_path / "data"
    Engine(folder, folder, SETTINGS, effects_of=replayer(SETTINGS)).close()
    return folder


@pytest.fixture
def snapshot(data: Path, tmp_path: Path) -> Path:
    return take(data, data, tmp_path / "kept", TreeSettings(), packed=True).path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_fresh_files_are_sound(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys, "check", "--data", data, "--json")
    assert status == 0
    assert json.loads(text) == {
        "data_dir": str(data),
        "data_log_dir": str(data),
        "sound": True,
        "findings": [],
    }


def test_a_configuration_names_the_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = data.with_name("zoo.cfg")
    config.write_text(f"clientPort=2181\ndataDir={data}\n")
    assert run(capsys, "check", config) == (0, f"{data}: sound\n")
    status, text = run(capsys, "check", config, "--data", data)
    assert status == 2
    assert "not both" in text


@pytest.mark.parametrize("command", ["check", "check --accept-log-end"])
def test_where_there_is_nothing_nothing_is_made(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = run(capsys, *command.split(), "--data", tmp_path / "none")
    assert status == 2
    assert "there is no such folder" in text
    status, text = run(capsys, *command.split(), "--data", tmp_path)
    assert status == 2
    assert "there is no log.db" in text
    assert list(tmp_path.iterdir()) == []


def test_a_packed_snapshot_goes_into_an_empty_folder(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh"
    status, text = run(capsys, "restore", snapshot, "--data", fresh, "--log-dir", fresh / "log")
    assert status == 0, text
    assert run(capsys, "check", "--data", fresh, "--log-dir", fresh / "log")[0] == 0
    assert not any("snapshot" in path.name for path in fresh.iterdir())
    status, text = run(capsys, "restore", snapshot, "--data", fresh, "--log-dir", fresh / "log")
    assert status == 2
    assert "--keep-log" in text
    assert "--replace" in text


def test_what_is_no_snapshot_is_refused_and_nothing_is_touched(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_snapshot = tmp_path / "text"
    no_snapshot.write_text("nothing of the kind " * 1000)
    before = sorted(path.name for path in data.iterdir())
    for way in ("--replace", "--keep-log"):
        status, text = run(capsys, "restore", no_snapshot, "--data", data, way)
        assert status == 2
        assert "not a database" in text
        assert "use another snapshot" in text
    assert run(capsys, "restore", tmp_path / "none", "--data", data, "--replace")[0] == 2
    assert run(capsys, "restore", no_snapshot, "--data", data, "--replace", "--keep-log")[0] == 2
    assert sorted(path.name for path in data.iterdir()) == before
    assert run(capsys, "check", "--data", data)[0] == 0


def test_apache_zookeepers_folder_is_left_alone(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "apache" / "version-2"
    old.mkdir(parents=True)
    (old / "snapshot.0").write_bytes(b"ZKSN")
    status, text = run(capsys, "restore", snapshot, "--data", old.parent, "--replace")
    assert status == 2
    assert "Apache ZooKeeper" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")
def test_root_leaves_files_that_their_user_can_open(
    data: Path, snapshot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (data, *data.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    assert run(capsys, "restore", snapshot, "--data", data, "--replace")[0] == 0
    assert run(capsys, "check", "--data", data, "--accept-log-end")[0] == 0
    assert {path.stat().st_uid for path in data.iterdir()} == {NOBODY}
