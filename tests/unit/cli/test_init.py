"""`zkd init`: folders and myid, and never a loss of data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zkd import cli

ENSEMBLE = """tickTime=2000
initLimit=10
syncLimit=5
clientPort=2181
dataDir={0}/data
dataLogDir={0}/log
server.1=127.0.0.1:2888:3888
server.2=127.0.0.1:2889:3889
server.3=127.0.0.1:2890:3890
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "zoo.cfg"
    file.write_text(ENSEMBLE.format(tmp_path))
    return file


def test_folders_and_myid_are_made(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent
    assert cli.main(["init", str(config), "--myid", "2"]) == 0
    assert (folder / "data" / "myid").read_text() == "2\n"
    assert (folder / "data" / "initialize").exists()
    assert (folder / "log").is_dir()
    assert capsys.readouterr().out.splitlines() == [
        f"made {folder}/data",
        f"made {folder}/log",
        f"wrote {folder}/data/myid",
    ]


def test_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(config), "--myid", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["myid"] == 1
    assert told["made"] == [f"{config.parent}/data", f"{config.parent}/log"]


@pytest.mark.parametrize("name", ["log.db", "tree-3.db", "version-2"])
def test_a_folder_with_data_is_refused(
    config: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = config.parent / "data"
    data.mkdir()
    (data / name).touch()
    assert cli.main(["init", str(config), "--myid", "1"]) == 2
    assert "there is data of a server already" in capsys.readouterr().err
    assert (data / name).exists()
    assert not (data / "myid").exists()


def test_an_id_that_the_configuration_has_not_got_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["init", str(config), "--myid", "9"]) == 2
    assert "server.9" in capsys.readouterr().err
    assert not (config.parent / "data" / "myid").exists()


def test_a_wrong_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "zoo.cfg"
    file.write_text(f"dataDir={tmp_path}/data\nclientPort=many\n")
    assert cli.main(["init", str(file)]) == 2
    assert "clientPort" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_configuration_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "/nowhere/zoo.cfg"]) == 2
    assert "/nowhere/zoo.cfg" in capsys.readouterr().err
