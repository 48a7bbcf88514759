"""zkd.testing: an ensemble of a test's own, and nothing of it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import zkd.testing
from tests.integration.test_throwaway import ROOT, lives, until
from zkd.testing.members import Ensemble
from zkd.testing.throwaway import ServerFailed


@pytest.fixture(scope="module")
def running() -> Iterator[Ensemble]:
    with zkd.testing.ensemble(3, observers=1) as ensemble:
        yield ensemble


def test_members_have_their_roles_and_all_serve_one_tree(running: Ensemble) -> None:
    modes = [member.mode() for member in running.members.values()]
    assert sorted(modes[:3]) == ["follower", "follower", "leader"]
    assert modes[3] == "observer"
    writer = running.members[1].client()
    writer.create("/shared", b"1")
    for member in running.members.values():
        reader = member.client()
        reader.sync("/")
        assert reader.get("/shared")[0] == b"1"


def test_a_client_of_all_members_outlives_the_leader(running: Ensemble) -> None:
    client = running.client(timeout=10.0)
    client.create("/kept", b"0", ephemeral=True)
    leader = running.leader()
    leader.kill("supervisor")
    until(lambda: running.leader() is not leader)
    client.retry(client.set, "/kept", b"1")
    leader.start()
    assert leader.mode() == "follower"
    assert client.get("/kept")[0] == b"1"


def test_all_can_be_stopped_and_started_again(running: Ensemble) -> None:
    client = running.client()
    client.create("/lasting", b"1")
    for member in running.members.values():
        member.stop()
    running.start()
    assert client.retry(client.get, "/lasting")[0] == b"1"


def test_nothing_is_left_behind() -> None:
    with zkd.testing.ensemble(2) as ensemble:
        members = list(ensemble.members.values())
        pids = [pid for member in members for pid in member.pids().values()]
        assert all(map(lives, pids))
    assert not any(member.folder.exists() for member in members)
    assert not any(map(lives, pids))


def test_an_ensemble_that_does_not_start_says_why_and_leaves_nothing() -> None:
    ensemble = zkd.testing.ensemble(2, tickTime="not a number")
    with pytest.raises(ServerFailed, match="tickTime"), ensemble:
        pytest.fail("it runs")


@pytest.mark.parametrize("voters", [0, 1])
def test_one_voter_is_no_ensemble(voters: int) -> None:
    with pytest.raises(ValueError, match="no ensemble"):
        zkd.testing.ensemble(voters)


TESTS = """
def test_two_ensembles(zookeeper_ensemble):
    one = zookeeper_ensemble(2)
    other = zookeeper_ensemble(2, tickTime=250)
    one.client().create("/one")
    assert other.client().exists("/one") is None
    print("folders", *(m.folder for e in (one, other) for m in e.members.values()))
"""


def test_the_fixture_makes_as_many_as_a_test_wants(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TESTS)
    installed = any(point.name == "zkd" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "zkd.testing.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", "-q", "-s", "."],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    folders = next(x.split()[1:] for x in done.stdout.splitlines() if "folders" in x)
    assert len(folders) == 4
    assert not any(Path(folder).exists() for folder in folders)
