"""The highest creation counter is known all the time, with its path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from storage_model import SMALL, STAT_STRUCT, Model, open_engine, work_until

from zkd.storage.counters import KEEP, ROOM, TopCounters

EAGER = replace(SMALL, flush_interval_s=0.0, reserve_bytes=0)


def of(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "big")


def test_the_highest_is_exact_as_long_as_one_of_the_best_is_left() -> None:
    counters = TopCounters("[1, []]")
    for i in range(3 * ROOM):
        if of(100 + i) > counters.floor:
            counters.note(f"/n{i}", of(100 + i))
    best = 100 + 3 * ROOM - 1
    assert counters.highest() == (f"/n{best - 100}", best)
    again = TopCounters(counters.store())
    for i in range(KEEP - 1):
        again.drop(f"/n{best - 100 - i}")
        assert again.highest()[1] == best - i - 1
    counters.note("/wrapped", of(-5))
    assert counters.highest() == ("/wrapped", (1 << 32) - 5)


def test_when_all_of_them_are_gone_the_tree_is_scanned(tmp_path: Path) -> None:
    engine, model = open_engine(tmp_path, EAGER), Model()
    engine.open_incarnation()
    engine.append([model.create("/few"), model.create("/many"), model.create("/flat")])
    engine.append([model.create(f"/many/{i}") for i in range(50)])
    engine.append([model.create(f"/few/{i}") for i in range(20)])
    work_until(engine, lambda: engine.tree_zxid == engine.durable)
    assert engine.statistics()["highest_counter"] == 50
    assert engine.statistics()["highest_counter_path"] == "/many"
    engine.close()
    engine = open_engine(tmp_path, EAGER)
    assert engine.tree.counters.highest() == ("/many", 50)
    engine.tree.counters.floor = of(30)  # as if /few had never been among the best
    engine.tree.counters._top = {"/many": of(50)}
    engine.open_incarnation()
    engine.append([model.delete(f"/many/{i}") for i in range(50)] + [model.delete("/many")])
    work_until(engine, lambda: engine.tree_zxid == engine.durable)
    work_until(engine, lambda: not engine.tree.counters.scanning)
    assert engine.tree.counters.highest() == ("/few", 20)
    engine.close()


def test_a_tree_from_elsewhere_is_scanned(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, EAGER)
    writer = engine.new_generation()
    stat = list(STAT_STRUCT.unpack(bytes(68)))
    stat[5] = 2_000_000_000
    writer.nodes([(f"/n{i}", None, bytes(68), None) for i in range(3000)])
    writer.nodes([("/queue", None, STAT_STRUCT.pack(*stat), None)])
    writer.finish(9)
    engine.switch_generation(9)
    work_until(engine, lambda: not engine.tree.counters.scanning)
    assert engine.tree.counters.highest() == ("/queue", 2_000_000_000)
    engine.close()
