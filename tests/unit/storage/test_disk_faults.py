"""Failing writes and syncs while the engine runs: a full disk ends by itself, all else ends the
engine, and no acknowledged transaction is ever missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_vfs import Faults, faulty
from storage_model import SMALL, Model, dump, expected, open_engine, work_until

from zkd.storage import logkeeper, treewriter
from zkd.storage.check import check
from zkd.storage.engine import Engine, LogFailed, LogFull
from zkd.storage.log import LogReader

ON_FAULTY = replace(SMALL, vfs="faulty", flush_interval_s=0.0)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    monkeypatch.setattr(logkeeper, "RETRY_S", 0.01)
    monkeypatch.setattr(treewriter, "RETRY_S", 0.01)
    with faulty() as plan:
        yield plan


def logged(folder: Path) -> list[bytes]:
    log = LogReader(folder / "log" / "log.db")
    try:
        return [body for _, body in log.read(log.meta().purged_to)]
    finally:
        log.close()


def settle(engine: Engine) -> None:
    """One turn of work, and whatever it began in the log's thread."""
    engine.work(0.01)
    work_until(engine, lambda: not engine.keeper.busy)


def bodies(txns: list[Any]) -> list[bytes]:
    return [txn[5] for txn in txns]


def started(folder: Path) -> tuple[Engine, Model, list[Any]]:
    engine, model = open_engine(folder, ON_FAULTY), Model()
    engine.open_incarnation()
    txns = [model.create(f"/n{i}", b"x" * 100) for i in range(50)]
    engine.append(txns)
    return engine, model, txns


@pytest.mark.parametrize("size", [1, 200])
@pytest.mark.parametrize("first", [1, 2, 3, 5])
def test_a_full_disk_rolls_back_and_ends_by_itself(
    tmp_path: Path, faults: Faults, size: int, first: int
) -> None:
    engine, model, acked = started(tmp_path)
    before = model.zxid
    batch = [model.create(f"/full{i}", b"y" * 300) for i in range(size)]
    faults.arm("write", "log.db-wal", "full", first)
    if size == 1 and first > 2:
        engine.append(batch)
        acked += batch
        batch = []
    else:
        with pytest.raises(LogFull):
            engine.append(batch)
        with pytest.raises(LogFull):
            engine.append(batch)
        assert engine.durable == before
        assert engine.full
        assert not engine.reserve.held
        assert logged(tmp_path) == bodies(acked)
    faults.disarm()
    engine.open_incarnation()
    assert engine.reserve.held
    assert not engine.full
    engine.append(batch or [model.create("/again")])
    work_until(engine, lambda: engine.tree_zxid == engine.durable)
    engine.close()
    assert dump(tmp_path) == expected(model)
    assert check(tmp_path / "data", tmp_path / "log") == []


def test_without_room_for_the_reserve_the_incarnation_stays_closed(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, model, _ = started(tmp_path)
    faults.arm("write", "log.db-wal", "full")
    with pytest.raises(LogFull):
        engine.append([model.create("/a")])
    monkeypatch.setattr(engine.reserve, "make", lambda: False)
    with pytest.raises(LogFull, match="no room"):
        engine.open_incarnation()
    monkeypatch.undo()
    assert engine.open_incarnation() == 2
    engine.close()


@pytest.mark.parametrize(("op", "action"), [("sync", "eio"), ("write", "eio"), ("write", "short")])
@pytest.mark.parametrize("size", [1, 100])
def test_a_failed_write_or_sync_ends_the_engine_for_good(
    tmp_path: Path, faults: Faults, op: str, action: str, size: int
) -> None:
    engine, model, acked = started(tmp_path)
    batch = [model.create(f"/lost{i}", b"y" * 300) for i in range(size)]
    faults.arm(op, "log.db-wal", action)
    with pytest.raises(LogFailed):
        engine.append(batch)
    faults.disarm()
    syncs = len(faults.seen)
    for what in (lambda: engine.append(batch), lambda: engine.work(0.1), engine.open_incarnation):
        with pytest.raises(LogFailed):
            what()
    assert len(faults.seen) == syncs, "a dead engine touches nothing"
    engine.close()
    engine = open_engine(tmp_path, ON_FAULTY)
    assert engine.durable >= acked[-1][0]
    assert logged(tmp_path)[: len(acked)] == bodies(acked)
    assert len(logged(tmp_path)) in (len(acked), len(acked) + size)
    engine.open_incarnation()
    engine.close()


@pytest.mark.parametrize("first", range(1, 12, 2))
def test_a_disk_that_is_full_for_the_tree_stops_writes_and_loses_nothing(
    tmp_path: Path, faults: Faults, first: int
) -> None:
    engine, model, _ = started(tmp_path)
    engine.tree.settings = replace(ON_FAULTY, tree_wal_bytes=1)
    faults.arm("write", "tree-1.db-wal", "full", first, 0)
    work_until(engine, lambda: engine.full or engine.tree_zxid == engine.durable)
    if not engine.full:
        engine.append([model.create(f"/more{i}", b"z" * 900) for i in range(100)])
        work_until(engine, lambda: engine.full)
    with pytest.raises(LogFull):
        engine.append([Model(zxid=model.zxid).create("/refused")])
    faults.disarm()
    engine.open_incarnation()
    engine.append([model.create("/after")])
    work_until(engine, lambda: engine.tree_zxid == engine.durable)
    engine.close()
    assert dump(tmp_path) == expected(model)
    assert check(tmp_path / "data", tmp_path / "log") == []


@pytest.mark.parametrize("suffix", ["tree-1.db-wal", "tree-1.db"])
@pytest.mark.parametrize("op", ["write", "sync"])
def test_a_failing_tree_ends_the_engine_and_the_log_has_it_all(
    tmp_path: Path, faults: Faults, suffix: str, op: str
) -> None:
    engine, model, _ = started(tmp_path)
    engine.tree.settings = replace(ON_FAULTY, tree_wal_bytes=1)
    faults.arm(op, suffix, "eio")
    with pytest.raises(LogFailed):
        work_until(engine, lambda: False)
    faults.disarm()
    engine.close()
    open_engine(tmp_path, ON_FAULTY).close()
    assert dump(tmp_path) == expected(model)
    assert check(tmp_path / "data", tmp_path / "log") == []


@pytest.mark.parametrize("op", ["write", "sync"])
def test_a_failing_checkpoint_of_the_log_ends_the_engine(
    tmp_path: Path, faults: Faults, op: str
) -> None:
    engine, model, acked = started(tmp_path)
    faults.arm(op, "log.db", "eio")

    def load() -> None:
        for i in range(200):
            batch = [model.create(f"/c{i}", b"y" * 3000)]
            engine.append(batch)
            acked.extend(batch)
            settle(engine)

    with pytest.raises(LogFailed):
        load()
    faults.disarm()
    engine.close()
    engine = open_engine(tmp_path, ON_FAULTY)
    assert logged(tmp_path)[: len(acked)] == bodies(acked)
    engine.close()


def test_a_full_disk_at_the_checkpoint_of_the_log_is_waited_for(
    tmp_path: Path, faults: Faults
) -> None:
    engine, model, _ = started(tmp_path)
    faults.arm("write", "log.db", "full", 1, 1)
    refused = 0
    for i in range(300):
        before = model.copy()
        try:
            engine.append([model.create(f"/c{i}", b"y" * 3000)])
        except LogFull:
            refused += 1
            model = before
            engine.open_incarnation()
        with contextlib.suppress(LogFull):
            settle(engine)
    assert refused == 1
    engine.close()
    assert dump(tmp_path) == expected(model)
    assert check(tmp_path / "data", tmp_path / "log") == []


@pytest.mark.parametrize(("force_sync", "syncs"), [(True, 10), (False, 0)])
def test_force_sync_says_whether_an_append_is_on_the_disk_when_it_returns(
    tmp_path: Path, faults: Faults, force_sync: bool, syncs: int
) -> None:
    engine = open_engine(tmp_path, replace(ON_FAULTY, force_sync=force_sync))
    model = Model()
    engine.open_incarnation()
    faults.seen.clear()
    for i in range(10):
        engine.append([model.create(f"/n{i}", b"x")])
    assert faults.seen.count(("sync", "log.db-wal")) == syncs
    engine.close()
    assert dump(tmp_path) == expected(model)
