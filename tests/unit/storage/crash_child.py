"""A process to be killed: `crash_child.py FOLDER MODE`, with ZKD_FAILPOINTS set or not.

It goes on where the files end, and writes each zxid to its standard output (8 bytes) after
`append` has returned. Transaction z depends on the tree before it and on z alone, so the parent
knows what the tree must be after any zxid. Modes: `alone` (standalone, with everything small, so
that flush, checkpoint and purge happen all the time), `member` (commits late and truncates).
"""

from __future__ import annotations

import os
import random
import struct
import sys
from pathlib import Path
from typing import Any

from storage_model import Model, open_engine

from zkd.storage.engine import Engine
from zkd.storage.settings import StorageSettings

ALONE = StorageSettings(
    flush_interval_s=0.0,
    log_wal_bytes=64 * 1024,
    tree_wal_bytes=32 * 1024,
    log_retain=200,
    reserve_bytes=0,
)
MEMBER = StorageSettings(
    flush_interval_s=0.0,
    log_wal_bytes=64 * 1024,
    tree_wal_bytes=32 * 1024,
    reserve_bytes=0,
    commit_on_append=False,
)


def next_txn(model: Model) -> tuple[Any, ...]:
    """The transaction after the model's last one."""
    rng = random.Random(model.zxid)
    path = f"/k{rng.randrange(40)}"
    if model.get(path) is None:
        return model.create(path, b"c" * rng.randrange(300), rng.choice([0, 0, 5]))
    if rng.random() < 0.3:
        return model.delete(path)
    return model.set(path, rng.randbytes(rng.randrange(300)))


def grown(zxid: int) -> Model:
    """The tree after transaction `zxid`."""
    model = Model()
    while model.zxid < zxid:
        next_txn(model)
    return model


def say(zxid: int) -> None:
    os.write(1, struct.pack(">q", zxid))


def alone(engine: Engine) -> None:
    model = grown(engine.durable)
    while True:
        batch = [next_txn(model) for _ in range(random.randrange(1, 6))]
        say(engine.append(batch))
        if model.zxid % 10 == 0:
            engine.set_epochs(model.zxid, model.zxid - 1)
        while engine.work(0.001):
            pass


def member(engine: Engine) -> None:
    """Appends 9, commits 6, truncates to 8, appends it again."""
    engine.commit(engine.durable)
    model = grown(engine.durable)
    while True:
        batch = [next_txn(model) for _ in range(9)]
        last = engine.append(batch)
        engine.commit(last - 3)
        say(last - 3)
        engine.truncate(last - 1)
        model = grown(last - 1)
        engine.append([next_txn(model)])
        engine.commit(last)
        say(last)
        while engine.work(0.001):
            pass


def main() -> None:
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    engine = open_engine(folder, ALONE if mode == "alone" else MEMBER)
    engine.open_incarnation()
    (alone if mode == "alone" else member)(engine)


if __name__ == "__main__":
    main()
