"""How fast the storage engine is: `python tests/bench/storage_speed.py [--dir DIR] [--nodes N]`.

Prints, for a folder on a real disk: commits of 1, 64 and 1000 transactions; the same while the
tree is flushed and checkpointed; folding, flushing, point look-ups, listing; opening again.
Times are microseconds unless said otherwise.
"""

from __future__ import annotations

import argparse
import random
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "storage"))

from storage_model import effects_of

from zkd.storage.engine import Engine, StorageSettings
from zkd.storage.reader import open_tree
from zkd.tree.effects import CHANGED, CREATED, STAT
from zkd.tree.settings import TreeSettings

BODY = 160
SETTINGS = StorageSettings(tree=TreeSettings(digest_enabled=False))
STAT_STRUCT = struct.Struct(">qqqqiiiqiiq")


class Load:
    """Makes sets of existing nodes and creates, quickly and without a tree."""

    def __init__(self, keys: int, size: int = 100) -> None:
        self.zxid = 0
        self.keys = keys
        self.data = bytes(range(256))[:size]
        self.rng = random.Random(1)
        self.filler = bytes(BODY - 32)

    def _txn(self, effects: list[Any]) -> tuple[Any, ...]:
        z = self.zxid
        body = struct.pack(">qiqqi", 1, 1, z, 1, 5) + self.filler
        return (z, 1, 1, 1, 0, body, effects, None)

    def _stat(self, czxid: int = 1) -> bytes:
        return STAT_STRUCT.pack(czxid, self.zxid, 1, 2, 3, 4, 0, 0, len(self.data), 0, self.zxid)

    def set(self) -> tuple[Any, ...]:
        self.zxid += 1
        path = f"/bench/{self.rng.randrange(self.keys) // 100:04d}/{self.rng.randrange(100):03d}"
        return self._txn([(CHANGED, path, self._stat(), self.data)])

    def create(self, i: int) -> tuple[Any, ...]:
        self.zxid += 1
        parent = f"/bench/{i // 100:04d}"
        path = f"{parent}/{i % 100:03d}"
        stat = self._stat(self.zxid)
        return self._txn([(CREATED, path, stat, self.data, None), (STAT, parent, stat)])


def show(name: str, samples: list[float], per: int = 1) -> None:
    """One line of percentiles, in us."""
    samples.sort()
    at = [samples[min(len(samples) - 1, int(len(samples) * q))] for q in (0.5, 0.9, 0.99, 1.0)]
    cells = "  ".join(f"{v * 1e6 / per:9.1f}" for v in at)
    print(f"{name:44} {cells}   n={len(samples)}")


def timed(what: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def commits(engine: Engine, load: Load, batch: int, count: int, work_s: float) -> None:
    """Append `count` batches; with `work_s`, a slice of work after each."""
    appends, slices = [], []
    for _ in range(count):
        txns = [load.set() for _ in range(batch)]
        appends.append(timed(lambda txns=txns: engine.append(txns)))  # type: ignore[misc]
        if work_s:
            slices.append(timed(lambda: engine.work(work_s)))
    show(f"append {batch}" + (" while flushing" if work_s else ""), appends)
    if slices:
        show(f"  slice of {work_s * 1000:g} ms", slices)


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--count", type=int, default=3000)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="zkd-speed-", dir=args.dir))
    print(f"{'':44} {'p50':>9}  {'p90':>9}  {'p99':>9}  {'max':>9}")
    try:
        run(folder, args.nodes, args.count)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, nodes: int, count: int) -> None:
    """All measurements in one folder."""
    opened = []
    engine = None

    def open_it() -> None:
        nonlocal engine
        engine = Engine(folder, folder, SETTINGS, effects_of=effects_of)

    opened.append(timed(open_it))
    show("open: first time", opened)
    assert engine is not None
    engine.open_incarnation()
    load = Load(nodes)
    folds, began = [], time.perf_counter()
    for start in range(0, nodes, 1000):
        engine.append([load.create(i) for i in range(start, start + 1000)])
        pending = engine.tree._new.txns
        folds.append(timed(lambda: engine._fold(float("inf"))))
        assert engine.tree._new.txns > pending
        while engine.work(0.004):
            pass
    show("fold, a create", folds, 1000)
    engine.tree.flush()
    print(f"{nodes} creates appended and flushed: {time.perf_counter() - began:.2f} s")
    for batch, times in ((1, count), (64, count // 3), (1000, count // 30)):
        commits(engine, load, batch, times, 0.0)
    engine._fold(float("inf"))
    engine.tree.flush()
    for batch, times in ((1, count * 3), (64, count)):
        commits(engine, load, batch, times, 0.001)
    show("flush all", [timed(engine.tree.flush)])
    reader = open_tree(folder, folder, cache_bytes=64 << 20)
    paths = [f"/bench/{i // 100:04d}/{i % 100:03d}" for i in range(nodes)]
    random.Random(2).shuffle(paths)
    node = reader.node
    for name in ("cold", "warm"):
        lookups = [
            timed(lambda part=part: [node(p) for p in part])  # type: ignore[misc]
            for part in (paths[i : i + 100] for i in range(0, nodes, 100))
        ]
        show(f"node(path), {name}", lookups, 100)
    show("refresh", [timed(reader.refresh) for _ in range(200)])
    reader.close()
    print("close:", f"{timed(engine.close) * 1000:.0f} ms")
    show("open again", [timed(open_it)])
    for key, value in engine.statistics().items():
        print(f"  {key} = {value}")
    engine.close()


if __name__ == "__main__":
    main()
