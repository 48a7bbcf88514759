"""A file system that is really full (a small tmpfs; needs the right to mount)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from storage_model import SMALL, Model, dump, expected, open_engine

from zkd.errors import OperatorError
from zkd.storage.check import check
from zkd.storage.engine import Engine, LogFull
from zkd.storage.reader import open_tree

MIB = 1 << 20
SETTINGS = replace(
    SMALL,
    reserve_bytes=MIB,
    log_wal_bytes=256 * 1024,
    tree_wal_bytes=256 * 1024,
    flush_interval_s=0.0,
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "zkd-test", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here")
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


def write_until_full(engine: Engine, model: Model) -> Model:
    """Append and work until the disk is full: the model of what was acknowledged."""
    refused: Any = None
    for _ in range(20_000):
        before = model.copy()
        try:
            engine.append([model.create(f"/n{model.zxid:08d}", bytes(500))])
            engine.work(0.01)
        except LogFull as e:
            refused = e
            model = before
            break
    assert refused is not None
    return model


def test_writes_stop_reads_go_on_and_it_ends_by_itself(disk: Path) -> None:
    engine, model = open_engine(disk, SETTINGS), Model()
    engine.open_incarnation()
    for _ in range(3):
        ballast = fill(disk)
        model = write_until_full(engine, model)
        assert engine.full
        assert engine.durable == model.zxid
        for _ in range(20):
            engine.work(0.01)
        fill(disk)
        with pytest.raises(LogFull, match="reserve"):
            engine.open_incarnation()
        reader = open_tree(disk / "data", disk / "log", cache_bytes=1 << 20)
        assert reader.node("/zookeeper") is not None
        reader.close()
        ballast.unlink()
        engine.open_incarnation()
        assert engine.statistics()["reserve_held"]
        engine.append([model.create(f"/again{model.zxid}")])
    engine.close()
    assert dump(disk) == expected(model)
    assert check(disk / "data", disk / "log") == []


def test_a_server_starts_on_a_full_disk_to_be_read(disk: Path) -> None:
    engine, model = open_engine(disk, SETTINGS), Model()
    engine.open_incarnation()
    engine.append([model.create(f"/n{i}", bytes(300)) for i in range(500)])
    engine.close()
    ballast = fill(disk)
    engine = open_engine(disk, SETTINGS)
    assert engine.durable == model.zxid
    with pytest.raises(LogFull):
        engine.append([model.copy().create("/refused")])
    reader = open_tree(disk / "data", disk / "log", cache_bytes=1 << 20)
    assert reader.node("/n499") is not None
    reader.close()
    ballast.unlink()
    engine.open_incarnation()
    engine.append([model.create("/after")])
    engine.close()
    assert dump(disk) == expected(model)


def test_a_first_start_on_a_full_disk_says_so(disk: Path) -> None:
    fill(disk)
    with pytest.raises(OperatorError, match="full"):
        open_engine(disk, SETTINGS)
