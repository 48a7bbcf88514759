"""Snapshots: whole or not there, verified, restorable, and beside a server that goes on."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from storage_model import SMALL, Model, dump, expected, open_engine, work_until
from test_engine import EAGER, random_txns

from zkd import failpoints
from zkd.errors import OperatorError
from zkd.storage import snapshot
from zkd.storage.check import check
from zkd.storage.engine import Engine
from zkd.storage.snapshot import SnapshotSchedule, list_snapshots, purge, take, verify
from zkd.tree.settings import TreeSettings

TREE = TreeSettings()


def filled(folder: Path) -> tuple[Engine, Model]:
    engine, model = open_engine(folder, EAGER), Model()
    engine.open_incarnation()
    engine.append(random_txns(model, random.Random(4), 300))
    work_until(engine, lambda: engine.tree_zxid == engine.durable)
    return engine, model


@pytest.mark.parametrize("packed", [False, True])
def test_a_snapshot_is_the_tree_and_can_be_restored(tmp_path: Path, packed: bool) -> None:
    engine, model = filled(tmp_path)
    target = tmp_path / "snapshots"
    made = take(tmp_path / "data", tmp_path / "log", target, TREE, packed=packed)
    assert (made.zxid, made.packed) == (model.zxid, packed)
    assert list_snapshots(target) == [made]
    assert [p.name for p in target.iterdir()] == [made.path.name]
    assert verify(made.path, tmp_path, TREE) == []
    engine.close()
    other = open_engine(tmp_path / "other", SMALL)
    writer = other.new_generation()
    with snapshot.opened(made.path, tmp_path) as reader:
        assert snapshot.restore_into(writer, reader) == model.zxid
    other.switch_generation(model.zxid)
    other.close()
    assert dump(tmp_path / "other") == expected(model)
    assert check(tmp_path / "other" / "data", tmp_path / "other" / "log") == []


def test_it_is_taken_while_the_server_writes(tmp_path: Path) -> None:
    engine, model = filled(tmp_path)
    made = []
    thread = threading.Thread(
        target=lambda: made.append(
            take(tmp_path / "data", tmp_path / "log", tmp_path / "snapshots", TREE)
        )
    )
    thread.start()
    while thread.is_alive():
        engine.append([model.set("/n0", b"again") if model.get("/n0") else model.create("/n0")])
        engine.work(0.001)
    thread.join()
    engine.close()
    assert made
    assert verify(made[0].path, tmp_path, TREE) == []
    assert check(tmp_path / "data", tmp_path / "log") == []


def test_the_newest_stay(tmp_path: Path) -> None:
    engine, model = filled(tmp_path)
    target = tmp_path / "snapshots"
    zxids = []
    for i in range(4):
        engine.append([model.create(f"/more{i}")])
        work_until(engine, lambda: engine.tree_zxid == engine.durable)
        zxids.append(
            take(tmp_path / "data", tmp_path / "log", target, TREE, packed=i % 2 == 0).zxid
        )
    engine.close()
    (target / "snapshot-999999999.zkd.tmp").touch()
    (target / "notes.txt").touch()
    assert len(purge(target, 2)) == 3
    assert [s.zxid for s in list_snapshots(target)] == zxids[:1:-1]
    assert len(purge(target, 0)) == 1
    assert (target / "notes.txt").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_found(tmp_path: Path, packed: bool) -> None:
    engine, _ = filled(tmp_path)
    made = take(tmp_path / "data", tmp_path / "log", tmp_path / "s", TREE, packed=packed)
    engine.close()
    content = made.path.read_bytes()
    found = 0
    for at in range(10, len(content), len(content) // 40):
        damaged = tmp_path / made.path.name
        damaged.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        found += verify(damaged, tmp_path, TREE) != []
    assert found > 10
    damaged.write_bytes(content[: len(content) // 2])
    assert verify(damaged, tmp_path, TREE)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    engine, _ = filled(tmp_path)
    failpoints.arm("snapshot.written=enospc")
    try:
        with pytest.raises(OperatorError, match="room"):
            take(tmp_path / "data", tmp_path / "log", tmp_path / "s", TREE)
    finally:
        failpoints.disarm()
    engine.close()
    assert list((tmp_path / "s").iterdir()) == []


def test_a_damaged_tree_gives_no_snapshot(tmp_path: Path) -> None:
    engine, _ = filled(tmp_path)
    engine.tree.db.execute("UPDATE node SET data = 'other' WHERE name LIKE 'n%'")
    with pytest.raises(OperatorError, match="not sound"):
        take(tmp_path / "data", tmp_path / "log", tmp_path / "s", TREE)
    engine.close()
    assert list_snapshots(tmp_path / "s") == []


def test_servers_take_snapshots_at_different_moments() -> None:
    moments = set()
    for seed in range(20):
        schedule = SnapshotSchedule(1000, 0, random.Random(seed))
        at = next(i for i in range(2000) if schedule.passed(1, 100))
        assert 500 <= at <= 1000
        moments.add(at)
    assert len(moments) > 10
    schedule = SnapshotSchedule(1_000_000, 10_000, random.Random(1))
    assert any(schedule.passed(1, 1000) for _ in range(11))
