"""A start costs what was not flushed, not the tree: a server with a large tree is ready as soon as
one with none.

200,000 znodes in the suite; ten million by `make large` (marked slow). What it took is printed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import wire
from zkd.storage.engine import Engine
from zkd.storage.generation import NodeRow
from zkd.storage.replay import replayer
from zkd.storage.settings import StorageSettings
from zkd.testing.throwaway import Server
from zkd.tree.stat import STAT

READY_S = 5.0
"""Far above what it takes on a quiet machine (0.5 s), far below what reading a large tree would."""
CHILDREN = 1000


def nodes(count: int) -> Iterator[NodeRow]:
    stat = STAT.pack(1, 1, 1, 1, 0, 0, 0, 0, 100, 0, 1)
    yield "/", b"", bytes(68), None
    yield "/zookeeper", b"", bytes(68), None
    for i in range(count // CHILDREN):
        yield f"/p{i}", b"", bytes(68), None
        for j in range(CHILDREN - 1):
            yield f"/p{i}/n{j}", bytes(100), stat, None


def fill(data: Path, count: int) -> None:
    """Make a server's files with so many znodes, without a server."""
    settings = StorageSettings()
    engine = Engine(data, data, settings, effects_of=replayer(settings))
    engine.open_incarnation()
    writer = engine.new_generation()
    writer.nodes(nodes(count))
    writer.finish(engine.durable + 1)
    engine.switch_generation(engine.durable + 1)
    engine.close()


def start(folder: Path, count: int) -> None:
    data = folder / "data"
    data.mkdir()
    began = time.monotonic()
    fill(data, count)
    filled_s = time.monotonic() - began
    with Server({"frontends": "1", "dataDir": str(data)}) as server:
        server.stop()
        began = time.monotonic()
        server.start()
        client = wire.Client(server.port)
        path = f"/p{count // CHILDREN - 1}/n{CHILDREN - 2}"
        assert client.call(wire.GET_DATA, wire.watched(path))[0] == 0
        ready_s = time.monotonic() - began
        assert client.call(wire.SET_DATA, wire.set_data(path, b"x", -1))[0] == 0
        client.close()
        size = sum(p.stat().st_size for p in data.glob("tree-*.db"))
        print(
            f"\n{count} znodes ({size >> 20} MiB, written in {filled_s:.0f} s): started, connected "
            f"and read one in {ready_s:.2f} s"
        )
        assert ready_s < READY_S


def test_two_hundred_thousand_znodes_are_no_reason_to_wait(tmp_path: Path) -> None:
    start(tmp_path, 200_000)


@pytest.mark.slow
def test_ten_million_znodes_are_no_reason_to_wait(tmp_path: Path) -> None:
    start(tmp_path, 10_000_000)
