"""300 seeds hold, and meet everything that can happen; `make simulation` does 10,000."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.plan import plan
from tests.simulation.run import Result, run

SEEDS = range(300)

MET = [
    *("DIFF", "TRUNC", "SNAP", "epochs", "OBSERVING", "expired", "refused", "synced"),
    *("crash:torn", "crash:lost", "crash:kept", "crash points:output", "crash points:Append"),
    *("crash points:SaveEpochs", "crash points:InstallSnapshot", "crash points:Stream"),
    "crash points:Truncate",
    *("partitions", "one-way partitions", "connections cut", "losses", "stalls", "clock jumps"),
    *("logs lost", "orphans", "ahead of the leader's disk", "oracle's words"),
    *("traps:ACKEPOCH", "traps:LEADERINFO", "traps:NEWLEADER", "traps:ACK", "traps:UPTODATE"),
]


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return [run(seed) for seed in SEEDS]


def test_nothing_is_lost_and_all_heal(results: list[Result]) -> None:
    assert [(r.plan.seed, r.failure) for r in results if r.failure] == []


def test_the_seeds_meet_whatever_can_happen(results: list[Result]) -> None:
    counts: Counter[str] = Counter()
    for result in results:
        counts += result.counts
    assert [what for what in MET if not counts[what]] == []
    assert counts["transactions"] > 100 * len(SEEDS) // 2


def test_the_plans_are_of_every_kind() -> None:
    plans = [plan(seed) for seed in SEEDS]
    assert {p.voters for p in plans} == {2, 3, 4, 5, 6, 7}
    assert {p.voters for p in plans if p.oracle} == {2}
    assert {len(p.by_master) for p in plans} >= {0, 1, 2}
    assert any(p.groups for p in plans)


def traced(seed: int, hash_seed: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", str(seed), "--trace"],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        check=True,
    )
    return done.stdout


def test_a_seed_is_one_run_in_every_process() -> None:
    assert traced(5, "1") == traced(5, "2")
