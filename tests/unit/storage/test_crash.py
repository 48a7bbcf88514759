"""SIGKILL at every fail point of storage, and at random: nothing acknowledged is lost, and the
tree is exactly what the log says."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from crash_child import ALONE, MEMBER, grown
from storage_model import dump, expected, open_engine

from zkd.failpoints import NAMES
from zkd.storage.check import check

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def run_until_killed(folder: Path, mode: str, failpoints: str = "", after: int = 0) -> int:
    """Run the child until it dies of its fail point, or is killed here when it has acknowledged
    `after` more transactions; the last zxid it acknowledged."""
    env = {**os.environ, "ZKD_FAILPOINTS": failpoints, "PYTHONPATH": f"{ROOT}:{HERE}"}
    child = subprocess.Popen(
        [sys.executable, str(HERE / "crash_child.py"), str(folder), mode],
        env=env,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    watchdog = f"the child never reached {failpoints or after}"
    first = last = 0
    try:
        while word := child.stdout.read(8):
            last = struct.unpack(">q", word)[0]
            first = first or last
            if after and last >= first + after:
                os.kill(child.pid, signal.SIGKILL)
                break
            assert after or last < first + 20_000, watchdog
        while word := child.stdout.read(8):
            last = struct.unpack(">q", word)[0]
    finally:
        child.kill()
        child.stdout.close()
        assert child.wait(10) == -signal.SIGKILL
    return int(last)


def verify(folder: Path, mode: str, acked: int) -> int:
    """Open what was left behind; the durable zxid."""
    engine = open_engine(folder, ALONE if mode == "alone" else MEMBER)
    assert engine.durable >= acked
    if mode == "member":
        engine.commit(engine.durable)
    engine.close()
    assert engine.tree_zxid == engine.durable
    assert dump(folder) == expected(grown(engine.durable))
    assert check(folder / "data", folder / "log") == []
    return engine.durable


POINTS = [name for name in NAMES if name.startswith(("log.", "tree."))]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_fail_point(tmp_path: Path, point: str) -> None:
    mode = "member" if "truncate" in point else "alone"
    open_engine(tmp_path, ALONE if mode == "alone" else MEMBER).close()
    once = ("log.incarnation", "tree.checkpoint")
    for hit in (1, 1) if point in once else (3, 8):
        acked = run_until_killed(tmp_path, mode, f"{point}=kill:{hit}")
        verify(tmp_path, mode, acked)


@pytest.mark.parametrize("mode", ["alone", "member"])
def test_killed_at_random(tmp_path: Path, mode: str) -> None:
    rng = random.Random(mode)
    acked = 0
    most = 300 if mode == "alone" else 60
    for _ in range(4):
        acked = max(acked, run_until_killed(tmp_path, mode, after=rng.randrange(1, most)))
        acked = verify(tmp_path, mode, acked)


def test_killed_during_the_first_start(tmp_path: Path) -> None:
    for hit in (1, 2, 3):
        run_until_killed(tmp_path, "alone", f"log.truncate=kill:{hit};log.incarnation=kill:1")
    verify(tmp_path, "alone", 0)


def test_killed_while_recovering(tmp_path: Path) -> None:
    acked = run_until_killed(tmp_path, "alone", "tree.before-commit=kill:4")
    for _ in range(3):
        run_until_killed(tmp_path, "alone", "recovery.replayed=kill:1")
    verify(tmp_path, "alone", acked)
