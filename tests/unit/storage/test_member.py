"""The engine of a member of an ensemble: durable is not committed; epochs; TRUNC."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from storage_model import SMALL, Model, dump, expected, feed, open_engine, work_until
from test_engine import random_txns

from zkd.storage.log import LogReader

MEMBER = replace(SMALL, commit_on_append=False, flush_interval_s=0.0, reserve_bytes=0)


def test_only_what_is_committed_enters_the_tree(tmp_path: Path) -> None:
    engine, model = open_engine(tmp_path, MEMBER), Model()
    engine.open_incarnation()
    txns = random_txns(model, random.Random(1), 40)
    middle = Model()
    for txn in txns[:20]:
        middle.apply(txn[5])
    feed(engine, txns, 7)
    engine.work(0.01)
    assert (engine.durable, engine.committed, engine.tree_zxid) == (42, 0, 0)
    engine.commit(20)
    work_until(engine, lambda: engine.tree_zxid == 20)
    assert dump(tmp_path) == expected(middle)
    engine.close()
    assert dump(tmp_path) == expected(middle)


def test_what_was_pending_at_the_start_is_committed_later_or_removed(tmp_path: Path) -> None:
    engine, model = open_engine(tmp_path, MEMBER), Model()
    engine.open_incarnation()
    txns = [model.create(f"/n{i}") for i in range(30)]
    feed(engine, txns, 10)
    engine.commit(10)
    engine.close()
    engine = open_engine(tmp_path, MEMBER)
    assert (engine.durable, engine.committed, engine.tree_zxid) == (30, 10, 10)
    engine.commit(15)
    engine.truncate(25)
    assert engine.durable == 25
    engine.commit(25)
    shorter = Model()
    for txn in txns[:25]:
        shorter.apply(txn[5])
    engine.open_incarnation()
    more = [shorter.create("/new"), shorter.set("/n0", b"x")]
    engine.append(more)
    engine.commit(27)
    work_until(engine, lambda: engine.tree_zxid == 27)
    engine.close()
    assert dump(tmp_path) == expected(shorter)


def test_a_truncated_log_is_no_lost_one(tmp_path: Path) -> None:
    """The mark spoke of more; the cut says that it went on purpose."""
    engine, model = open_engine(tmp_path, MEMBER), Model()
    engine.open_incarnation()
    feed(engine, [model.create(f"/n{i}") for i in range(10)])
    engine.log.truncate(4)  # as if killed before the mark is written
    engine.mark.close()
    engine.mark.write = lambda claims: None  # type: ignore[method-assign]
    engine.close()
    engine = open_engine(tmp_path, MEMBER)
    assert (engine.durable, engine.must_synchronise) == (4, "")
    engine.close()


def test_epochs_survive_and_a_lost_promise_is_noticed(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, MEMBER)
    engine.set_epochs(7, 6)
    engine.close()
    engine = open_engine(tmp_path, MEMBER)
    assert engine.epochs == (7, 6)
    engine.log.db.execute("UPDATE meta SET value = 5 WHERE key = 'accepted_epoch'")
    engine._claim()
    engine.close()
    engine = open_engine(tmp_path, MEMBER)
    assert "promise" in engine.must_synchronise
    engine.close()


def test_never_below_what_is_committed(tmp_path: Path) -> None:
    engine, model = open_engine(tmp_path, MEMBER), Model()
    engine.open_incarnation()
    feed(engine, [model.create(f"/n{i}") for i in range(5)])
    engine.commit(3)
    assert not engine.truncate(2)
    assert not engine.truncate(9), "there is no such row"
    assert engine.durable == 5
    with pytest.raises(AssertionError):
        engine.commit(6)
    engine.close()


def test_a_new_incarnation_keeps_what_is_not_committed(tmp_path: Path) -> None:
    """The peer was restarted: its log is what it was, and may be committed or truncated yet."""
    engine, model = open_engine(tmp_path, MEMBER), Model()
    engine.open_incarnation()
    feed(engine, [model.create(f"/n{i}") for i in range(10)])
    engine.commit(4)
    engine.open_incarnation()
    assert engine.truncate(8)
    engine.commit(8)
    work_until(engine, lambda: engine.tree_zxid == 8)
    engine.close()
    assert [f"/n{i}" in dump(tmp_path) for i in (0, 7, 8)] == [True, True, False]


def test_many_pending_rows_are_taken_in_by_slices(tmp_path: Path) -> None:
    engine, model = open_engine(tmp_path, MEMBER), Model()
    engine.open_incarnation()
    feed(engine, [model.create(f"/n{i}") for i in range(1000)], 100)
    engine.close()
    engine = open_engine(tmp_path, MEMBER)
    engine.open_incarnation()
    engine.append([model.set("/n1", b"later")])
    engine.commit(1001)
    assert engine.committed == 1001
    assert engine.work(0.0), "one slice is not enough"
    assert 0 < engine.tree.taken < 1000
    work_until(engine, lambda: engine.tree_zxid == 1001)
    engine.close()
    assert dump(tmp_path) == expected(model)


def test_a_new_epoch_may_leave_a_gap_and_nothing_else(tmp_path: Path) -> None:
    engine, model = open_engine(tmp_path, MEMBER), Model()
    engine.open_incarnation()
    engine.append([model.create("/a")])
    model.zxid = 3 << 32
    engine.append([model.create("/b")])
    model.zxid += 1
    with pytest.raises(AssertionError):
        engine.append([model.create("/c")])
    engine.close()
    log = LogReader(tmp_path / "log" / "log.db")
    assert [zxid for zxid, _ in log.read(0)] == [1, (3 << 32) + 1]
    log.close()
