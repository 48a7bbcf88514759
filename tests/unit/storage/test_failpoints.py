"""Fail points do what they are armed to do, and nothing otherwise."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zkd import failpoints

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


def test_an_unarmed_point_is_passed() -> None:
    assert not failpoints.armed()
    failpoints.hit("log.before-commit")


@pytest.mark.parametrize(("action", "code"), [("enospc", errno.ENOSPC), ("eio", errno.EIO)])
def test_errors_come_at_the_hits_that_were_asked_for(action: str, code: int) -> None:
    failpoints.arm(f"log.before-commit={action}:2:2; tree.slice=sleep:0")
    outcomes = []
    for _ in range(5):
        failpoints.hit("tree.slice")
        try:
            failpoints.hit("log.before-commit")
            outcomes.append(0)
        except OSError as e:
            outcomes.append(e.errno or -1)
    assert outcomes == [0, code, code, 0, 0]


@pytest.mark.parametrize("text", ["log.commit-of-old=kill", "log.before-commit=explode"])
def test_what_is_unknown_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unknown"):
        failpoints.arm(text)


@pytest.mark.parametrize(
    ("action", "status"), [("kill:2", -signal.SIGKILL), ("exit:2", failpoints.EXIT_CODE)]
)
def test_a_process_ends_at_the_hit_that_the_environment_names(action: str, status: int) -> None:
    code = "from zkd.failpoints import hit; [print(i, hit('tree.slice'), flush=True) for i in '12']"
    env = {**os.environ, "ZKD_FAILPOINTS": f"tree.slice={action}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (status, "1 None\n")


def test_one_process_of_several_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZKD_FAILPOINTS", "tree.slice=eio")
    monkeypatch.setenv("ZKD_FAILPOINTS_PROCESS", "storage")
    failpoints.arm(process="peer")
    failpoints.hit("tree.slice")
    failpoints.arm(process="storage")
    with pytest.raises(OSError, match=r"tree\.slice"):
        failpoints.hit("tree.slice")
