"""The next generation of the tree: written beside the old one, switched in one transaction."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from storage_model import SMALL, Model, dump, expected, open_engine, work_until
from test_engine import random_txns

from zkd.errors import OperatorError
from zkd.storage.check import check
from zkd.storage.engine import Engine, TreeDamaged
from zkd.storage.generation import GenerationWriter
from zkd.storage.log import LogReader
from zkd.storage.reader import open_tree, tree_path
from zkd.storage.schema import FRESH_NODES

HERE = Path(__file__).parent
CONFIG = "/zookeeper/config"
ZXID = 5 << 32 | 17


def other_tree(seed: int = 3) -> Model:
    model = Model()
    random_txns(model, random.Random(seed), 300)
    return model


def write(writer: GenerationWriter, model: Model, rng: random.Random) -> None:
    """The model's tree, in any order and with stats as a snapshot has them."""
    nodes = [
        (path, node[0], node[1][:52] + bytes(8) + node[1][60:], node[2])
        for path, node in expected(model).items()
    ]
    rng.shuffle(nodes)
    assert writer.nodes(nodes) == len(nodes)
    writer.sessions(model.sessions.items())


def test_the_new_tree_replaces_tree_log_and_epochs(tmp_path: Path) -> None:
    old, new = Model(), other_tree()
    engine = open_engine(tmp_path, SMALL)
    engine.open_incarnation()
    engine.append(random_txns(old, random.Random(1), 50))
    reader = open_tree(tmp_path / "data", tmp_path / "log", cache_bytes=1 << 20)
    writer = engine.new_generation()
    write(writer, new, random.Random(2))
    assert writer.finish(ZXID) == new.digest
    engine.switch_generation(ZXID, (5, 4))
    assert (engine.generation, engine.durable, engine.tree_zxid) == (2, ZXID, ZXID)
    assert engine.epochs == (5, 4)
    assert reader.node("/zookeeper") is not None, "an old reader goes on until it is told"
    reader.close()
    assert not tree_path(tmp_path / "data", 1).exists()
    new.zxid = ZXID
    engine.append([new.create("/after"), new.set("/after", b"x")])
    assert engine.tree.digest != 0
    work_until(engine, lambda: engine.work(0.01) or not engine._unfolded)
    engine.close()
    engine = open_engine(tmp_path, SMALL)
    assert (engine.generation, engine.durable, engine.epochs) == (2, ZXID + 2, (5, 4))
    engine.close()
    assert dump(tmp_path) == expected(new)
    assert check(tmp_path / "data", tmp_path / "log") == []
    with open_tree(tmp_path / "data", tmp_path / "log", cache_bytes=1 << 20).db as db:
        assert dict(db.execute("SELECT id, timeout FROM session").fetchall()) == new.sessions
    log = LogReader(tmp_path / "log" / "log.db")
    assert [zxid for zxid, _ in log.read(ZXID)] == [ZXID + 1, ZXID + 2]
    log.close()


def test_a_member_behind_its_own_promises_may_vote_after_snap(tmp_path: Path) -> None:
    settings = replace(SMALL, commit_on_append=False)
    engine = open_engine(tmp_path, settings)
    engine.open_incarnation()
    engine.must_synchronise = "rows are missing"
    writer = engine.new_generation()
    writer.finish(ZXID)
    engine.switch_generation(ZXID, (5, 5))
    assert engine.must_synchronise == ""
    engine.close()
    open_engine(tmp_path, settings).close()


def test_the_rows_behind_a_snapshot_are_pending(tmp_path: Path) -> None:
    """SNAP is older than what was acknowledged: tree, rows and epochs change in one step."""
    settings = replace(SMALL, commit_on_append=False, flush_interval_s=0.0)
    engine, new = open_engine(tmp_path, settings), other_tree()
    engine.open_incarnation()
    engine.append(random_txns(Model(), random.Random(1), 50))
    writer = engine.new_generation()
    write(writer, new, random.Random(2))
    writer.finish(ZXID)
    new.zxid = ZXID
    rows = [new.create("/r0"), new.create("/r1"), new.set("/r0", b"x"), new.create("/r3")]
    engine.switch_generation(ZXID, (5, 5), [(txn[0], txn[5]) for txn in rows[:3]])
    assert (engine.durable, engine.committed, engine.tree_zxid) == (ZXID + 3, ZXID, ZXID)
    engine.append([rows[3]])
    engine.commit(ZXID + 1)
    work_until(engine, lambda: engine.tree_zxid == ZXID + 1)
    engine.close()
    engine = open_engine(tmp_path, settings)
    assert (engine.durable, engine.committed, engine.epochs) == (ZXID + 4, ZXID + 1, (5, 5))
    engine.commit(ZXID + 4)
    engine.close()
    assert dump(tmp_path) == expected(new)
    assert check(tmp_path / "data", tmp_path / "log") == []


def test_a_member_shows_its_own_configuration(tmp_path: Path) -> None:
    """Set at the start and over a snapshot's; as Apache ZooKeeper sets it, and no oftener."""
    text = "server.1=127.0.0.1:2888:3888:participant\nversion=100000002"
    member = replace(SMALL, commit_on_append=False, configuration=text)
    member = replace(member, configuration_version=1 << 32 | 2)
    engine = open_engine(tmp_path, member)
    engine.open_incarnation()
    before = dump(tmp_path)[CONFIG]
    assert before[0] == text.encode()
    czxid, mzxid, ctime, mtime, version, *_, size, _, _ = struct.unpack(">qqqqiiiqiiq", before[1])
    assert (czxid, mzxid, ctime, version, size) == (0, 1 << 32 | 2, 0, -1, len(text))
    assert abs(mtime - time.time() * 1000) < 60_000
    engine.close()
    engine = open_engine(tmp_path, member)
    assert dump(tmp_path)[CONFIG] == before
    engine.open_incarnation()
    writer = engine.new_generation()
    nodes = [n for n in FRESH_NODES if n[0] != CONFIG]
    writer.nodes([*nodes, (CONFIG, b"the leader's", *FRESH_NODES[2][2:])])
    writer.finish(ZXID)
    engine.switch_generation(ZXID, (5, 5))
    engine.close()
    assert dump(tmp_path)[CONFIG][0] == text.encode()
    assert check(tmp_path / "data", tmp_path / "log") == []


def test_an_abandoned_or_unfinished_tree_is_removed(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, SMALL)
    writer = engine.new_generation()
    write(writer, other_tree(), random.Random(2))
    writer.abandon()
    assert not writer.path.exists()
    writer = engine.new_generation()
    write(writer, other_tree(), random.Random(2))
    writer.finish(7)
    with pytest.raises(TreeDamaged, match="announced"):
        engine.switch_generation(8)
    engine.close()
    open_engine(tmp_path, SMALL).close()
    assert not writer.path.exists()


@pytest.mark.parametrize(("path", "why"), [("/a/b", "parent"), ("/zookeeper", "twice")])
def test_a_source_that_makes_no_sense_is_refused(tmp_path: Path, path: str, why: str) -> None:
    engine = open_engine(tmp_path, SMALL)
    writer = engine.new_generation()
    write(writer, Model(), random.Random(2))

    def rest() -> None:
        writer.nodes([(path, b"", bytes(68), None)])
        writer.finish(1)

    with pytest.raises(OperatorError, match=why):
        rest()
    writer.abandon()
    engine.close()


CHILD = """
import random, sys
from pathlib import Path
from storage_model import SMALL, open_engine
from test_generation import ZXID, other_tree, write
engine = open_engine(Path(sys.argv[1]), SMALL)
writer = engine.new_generation()
write(writer, other_tree(), random.Random(2))
writer.finish(ZXID)
engine.switch_generation(ZXID, (5, 5))
engine.close()
"""


@pytest.mark.parametrize(
    "point", ["generation.written", "generation.synced", "log.truncate", "generation.switched"]
)
def test_killed_in_the_middle_it_is_the_old_tree_or_the_new(tmp_path: Path, point: str) -> None:
    model = Model()
    engine: Engine = open_engine(tmp_path, SMALL)
    engine.open_incarnation()
    engine.append(random_txns(model, random.Random(1), 50))
    engine.close()
    env = {
        **os.environ,
        "ZKD_FAILPOINTS": f"{point}=kill",
        "PYTHONPATH": f"{HERE.parents[2]}:{HERE}",
    }
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    engine = open_engine(tmp_path, SMALL)
    new = point == "generation.switched"
    assert (engine.generation, engine.epochs) == ((2, (5, 5)) if new else (1, (0, 0)))
    engine.close()
    assert dump(tmp_path) == expected(other_tree() if new else model)
    assert check(tmp_path / "data", tmp_path / "log") == []
    assert len(list((tmp_path / "data").glob("tree-*.db"))) == 1
