"""The engine over its life: append, flush, restart, purge, generations of readers."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from storage_model import (
    CLOSE,
    SMALL,
    Model,
    dump,
    effects_of,
    expected,
    feed,
    make_body,
    open_engine,
    work_until,
)

from zkd.errors import OperatorError
from zkd.storage import recovery
from zkd.storage.check import check, tree_digest
from zkd.storage.engine import Engine, LogFull, StorageSettings
from zkd.storage.log import LogReader
from zkd.storage.reader import open_tree
from zkd.storage.schema import EMPTY_BYTES, EMPTY_DIGEST, EMPTY_NODES

EAGER = StorageSettings(flush_interval_s=0.0, log_wal_bytes=64 * 1024, reserve_bytes=4096)


def random_txns(model: Model, rng: random.Random, count: int) -> list[tuple[Any, ...]]:
    """Creates, sets, deletes, ephemerals, sessions and errors, all valid."""
    txns = [model.session(7), model.session(8)]
    live: list[str] = []
    for i in range(count):
        roll = rng.random()
        if roll < 0.35 or not live:
            top = rng.choice([p for p in live if not model.owners.get(p)] or [""])
            path = f"{'' if rng.random() < 0.5 else top}/n{i}"
            owner = rng.choice([0, 0, 7, 8])
            txns.append(model.create(path, rng.choice([None, b"", b"x" * (i % 50)]), owner))
            live.append(path)
        elif roll < 0.75:
            txns.append(model.set(rng.choice(live), bytes([i % 256]) * rng.randrange(200)))
        elif roll < 0.85:
            txns.append(model.error())
        else:
            leaves = [p for p in live if not any(q.startswith(p + "/") for q in live)]
            path = rng.choice(leaves)
            live.remove(path)
            txns.append(model.delete(path))
    return txns


def test_a_fresh_tree_is_apache_zookeepers(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    assert engine.created
    assert engine.durable == engine.tree_zxid == 0
    reader = open_tree(tmp_path / "data", tmp_path / "log", cache_bytes=1 << 20)
    assert (reader.zxid, reader.digest) == (0, EMPTY_DIGEST)
    assert (reader.node_count, reader.data_bytes) == (EMPTY_NODES, EMPTY_BYTES)
    assert reader.children("/") == (["zookeeper"], False)
    assert reader.children("/zookeeper") == (["config", "quota"], False)
    assert reader.node("") == reader.node("/") == (b"", bytes(56) + b"\0\0\0\1" + bytes(8), None)
    assert reader.node("/nothing") is None
    reader.close()
    engine.close()


def test_nothing_is_accepted_before_an_incarnation(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    with pytest.raises(LogFull):
        engine.append([Model().create("/a")])
    assert engine.open_incarnation() == 1
    engine.append([Model().create("/a")])
    engine.close()
    engine = open_engine(tmp_path)
    assert (engine.incarnation, engine.durable, engine.created) == (1, 1, False)
    assert engine.open_incarnation() == 2
    engine.close()


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_on_disk_is_the_model_after_flush_and_restart(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    model = Model()
    engine = open_engine(tmp_path, EAGER if seed % 2 else SMALL)
    engine.open_incarnation()
    for txn in random_txns(model, rng, 400):
        engine.append([txn])
        if rng.random() < 0.2:
            engine.work(0.0005)
    if seed % 2:
        work_until(engine, lambda: engine.tree_zxid == model.zxid)
    engine.close()
    assert dump(tmp_path) == expected(model)
    reader = open_tree(tmp_path / "data", tmp_path / "log", cache_bytes=1 << 20)
    assert reader.zxid == model.zxid
    assert reader.digest == model.digest
    tree = expected(model)
    assert reader.node_count == len(tree) + 1
    assert reader.data_bytes == sum(len(p) + len(n[0] or b"") for p, n in tree.items())
    assert reader.sessions() == model.sessions
    for owner in (7, 8):
        assert reader.ephemerals(owner) == sorted(p for p, o in model.owners.items() if o == owner)
    reader.close()


def test_what_was_not_flushed_is_replayed(tmp_path: Path) -> None:
    model = Model()
    engine = open_engine(tmp_path, StorageSettings(flush_interval_s=3600, reserve_bytes=0))
    engine.open_incarnation()
    feed(engine, random_txns(model, random.Random(5), 300), 7)
    engine.tree.flush = lambda: None  # type: ignore[method-assign]
    engine.close()
    seen: list[tuple[int, int]] = []
    engine = open_engine(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert engine.replayed == 302
    assert seen == [(256, 302)]
    assert engine.tree_zxid == 0
    engine.close()
    assert dump(tmp_path) == expected(model)


def test_readers_see_one_zxid_until_they_refresh(tmp_path: Path) -> None:
    model = Model()
    engine = open_engine(tmp_path, EAGER)
    engine.open_incarnation()
    reader = open_tree(tmp_path / "data", tmp_path / "log", cache_bytes=1 << 20)
    engine.append([model.create("/a", b"one")])
    work_until(engine, lambda: engine.tree_zxid == 1)
    assert (reader.zxid, reader.node("/a")) == (0, None)
    turn = engine.turn
    assert reader.refresh() == 1
    node = reader.node("/a")
    assert node is not None
    assert node[0] == b"one"
    engine.append([model.set("/a", b"two")])
    work_until(engine, lambda: engine.tree_zxid == 2)
    assert engine.turn > turn
    assert reader.node("/a") == node
    reader.refresh()
    assert (reader.node("/a") or (None,))[0] == b"two"
    reader.close()
    engine.close()


def test_the_log_reader_reads_beside_the_writer(tmp_path: Path) -> None:
    model = Model()
    engine = open_engine(tmp_path)
    engine.open_incarnation()
    txns = [model.create(f"/n{i}") for i in range(600)]
    feed(engine, txns[:500], 50)
    log = LogReader(tmp_path / "log" / "log.db")
    assert log.last() == 500
    rows = log.read(100)
    first = next(rows)
    feed(engine, txns[500:], 50)
    assert [first, *rows] == [(t[0], t[5]) for t in txns[100:]]
    assert list(log.read(10, 12)) == [(t[0], t[5]) for t in txns[10:12]]
    assert list(log.read(600)) == []
    log.close()
    engine.close()


def test_a_second_server_is_refused_by_name(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    with pytest.raises(OperatorError, match=str(os.getpid())):
        open_engine(tmp_path)
    with pytest.raises(OperatorError, match="another zkd server"):
        Engine(tmp_path / "other", tmp_path / "log", SMALL, effects_of=effects_of)
    engine.close()
    open_engine(tmp_path).close()


def test_old_rows_go_only_when_the_tree_has_them_on_disk(tmp_path: Path) -> None:
    model = Model()
    settings = StorageSettings(flush_interval_s=3600, log_retain=100, reserve_bytes=0)
    engine = open_engine(tmp_path, settings)
    engine.open_incarnation()
    feed(engine, [model.create(f"/n{i}") for i in range(1000)], 100)
    while engine.work(0.01):
        pass
    assert engine.log.first() == 1
    engine.tree.flush()
    work_until(engine, lambda: engine.log.count(0) <= 100)
    assert engine.log.first() == 901
    engine.close()
    engine = open_engine(tmp_path, settings)
    assert (engine.durable, engine.log.meta.purged_to) == (1000, 900)
    log = LogReader(tmp_path / "log" / "log.db")
    assert [z for z, _ in log.read(900)] == list(range(901, 1001))
    with pytest.raises(OperatorError, match="removed"):
        log.read(800)
    log.close()
    engine.close()


def test_a_long_log_is_replayed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "REPLAY_ROWS", 70)
    model = Model()
    engine = open_engine(tmp_path, replace(SMALL, flush_interval_s=3600))
    engine.open_incarnation()
    feed(engine, random_txns(model, random.Random(6), 400), 10)
    engine.tree.flush = lambda: None  # type: ignore[method-assign]
    engine.close()
    engine = open_engine(tmp_path)
    assert engine.tree_zxid == 350, "five parts were flushed on the way"
    engine.close()
    assert dump(tmp_path) == expected(model)


def test_write_ahead_files_are_reused(tmp_path: Path) -> None:
    settings = replace(EAGER, tree_wal_bytes=64 * 1024)
    model = Model()
    engine = open_engine(tmp_path, settings)
    engine.open_incarnation()
    reader = open_tree(tmp_path / "data", tmp_path / "log", cache_bytes=1 << 20)
    turn = engine.turn
    engine.append([model.create("/n", b"")])
    deadline = time.monotonic() + 30
    while engine.keeper.checkpoints < 4 or engine.tree.checkpoints < 3:
        assert time.monotonic() < deadline
        engine.append([model.set("/n", bytes(2000))])
        engine.work(0.01)
        if engine.turn != turn:
            turn = engine.turn
            reader.refresh()
    reader.close()
    statistics = engine.statistics()
    assert statistics["log_wal_bytes"] < engine.durable * 4096 // 2, "all of it went through it"
    engine.close()
    assert dump(tmp_path) == expected(model)


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        engine.close()
        open_engine(tmp_path).close()
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        for fd in (*ready, *go):
            os.close(fd)


def test_statistics_are_plain_values(tmp_path: Path) -> None:
    import marshal

    engine = open_engine(tmp_path)
    engine.open_incarnation()
    feed(engine, [Model().create("/a")])
    statistics = engine.statistics()
    assert marshal.loads(marshal.dumps(statistics)) == statistics
    assert statistics["append_count"] == statistics["append_rows_total"] == 1
    assert sum(statistics["append_s_buckets"]) == 1
    assert statistics["log_dir_bytes"] >= SMALL.log_wal_bytes + SMALL.reserve_bytes
    assert statistics["disk_free_bytes"] > 0
    engine.close()


def without_list(model: Model, session: int) -> tuple[Any, ...]:
    """A closeSession without its list, which carries no digest either."""
    zxid = model.zxid + 1
    body = make_body(zxid, CLOSE, b"", None, session)
    return (zxid, 0, 0, 0, 0, body, model.apply(body), None)


def test_a_flush_that_ends_at_a_close_without_its_list_holds_the_right_digest(
    tmp_path: Path,
) -> None:
    engine, model = open_engine(tmp_path, EAGER), Model()
    engine.open_incarnation()
    engine.append([model.session(5), model.create("/held", b"x", 5), without_list(model, 5)])
    engine._fold(float("inf"))
    engine.tree.flush()
    assert engine.tree.zxid == model.zxid
    assert engine.tree.digest == model.digest != 0
    engine.append([model.error()])
    engine._fold(float("inf"))
    engine.tree.flush()
    assert engine.tree.digest == model.digest, "errors leave it as it was"
    engine.close()
    reader = open_tree(tmp_path / "data", tmp_path / "log", cache_bytes=1 << 20)
    assert reader.digest == model.digest == tree_digest(reader)
    reader.close()
    assert check(tmp_path / "data", tmp_path / "log") == []
