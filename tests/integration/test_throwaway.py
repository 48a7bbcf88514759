"""zkd.testing: a server of a test's own, and nothing of it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import zkd.testing
from zkd.testing.throwaway import Server, ServerFailed

WITHIN_S = 20.0
ROOT = Path(zkd.__file__).resolve().parents[1]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)  # between two looks


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with zkd.testing.server() as server:
        yield server


def test_a_client_and_the_processes(running: Server) -> None:
    client = running.client()
    client.create("/throwaway", b"x")
    assert client.get("/throwaway")[0] == b"x"
    until(lambda: set(running.pids()) == {"supervisor", "frontend 1", "peer", "storage", "admin"})
    assert running.hosts == f"127.0.0.1:{running.port}"


@pytest.mark.parametrize("name", ["frontend 1", "storage"])
def test_a_killed_process_comes_back_alone(running: Server, name: str) -> None:
    client = running.client()
    before = running.pids()
    killed = running.kill(name)
    assert killed == before[name]
    until(lambda: running.pids().get(name, killed) != killed)
    assert running.pids()["supervisor"] == before["supervisor"]
    until(lambda: bool(client.connected))
    assert client.retry(client.exists, "/") is not None


def test_a_process_that_is_none_is_refused(running: Server) -> None:
    with pytest.raises(KeyError):
        running.kill("frontend 99")


def test_stop_and_start_keep_port_data_and_sessions() -> None:
    with zkd.testing.server(tickTime=1000) as server:
        client = server.client(timeout=10.0)
        session = client.client_id[0]
        client.create("/kept", b"1", ephemeral=True)
        server.restart()
        assert client.retry(client.get, "/kept")[0] == b"1"
        assert client.client_id[0] == session


def test_a_killed_supervisor_takes_all_with_it_and_can_be_started_again() -> None:
    with zkd.testing.server() as server:
        client = server.client()
        client.create("/kept")
        before = server.pids()
        server.kill("supervisor")
        assert not server.running
        assert not any(map(lives, before.values()))
        server.start()
        assert client.retry(client.exists, "/kept") is not None


def test_nothing_is_left_behind() -> None:
    with zkd.testing.server() as server:
        pids = server.pids().values()
        folder = server.folder
        assert folder.exists()
    assert not folder.exists()
    assert not any(map(lives, pids))


def test_a_server_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(ServerFailed, match="tickTime"),
        zkd.testing.server(tickTime="not a number") as server,
    ):
        pytest.fail(f"it runs on {server.port}")


def test_a_port_that_is_taken_is_given_up_only_if_it_was_not_asked_for(running: Server) -> None:
    with (
        pytest.raises(ServerFailed),
        zkd.testing.server(clientPort=running.port) as server,
    ):
        pytest.fail(f"it runs on {server.port}")
    server = Server()
    server.port = running.port
    with server:
        assert server.port != running.port


def test_the_server_dies_with_its_parent_and_its_folder_goes() -> None:
    """kill -9 of the tests: the kernel tells the server, which stops and cleans up."""
    code = """
import sys, time, zkd.testing
with zkd.testing.server() as server:
    print(server.folder, *server.pids().values(), flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        folder, *pids = process.stdout.readline().split()
        assert all(lives(int(pid)) for pid in pids)
        process.kill()
        process.wait()
        until(lambda: not any(lives(int(pid)) for pid in pids))
        until(lambda: not Path(folder).exists())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


# -- the plugin, as a user's pytest sees it ------------------------------------------------------

TESTS = """
import pytest

def test_default(zookeeper):
    client = zookeeper.client()
    client.create("/a")
    assert client.exists("/a")
    print("folder", zookeeper.folder)

@pytest.mark.zookeeper({"4lw.commands.whitelist": "srvr"}, tickTime=500)
def test_marked(zookeeper):
    client = zookeeper.client(timeout=0.1)
    assert client.exists("/a") is None
    assert client.command(b"ruok").startswith("ruok is not executed")
    assert "tickTime=500" in " ".join(zookeeper._arguments())
"""


def user_run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_user.py").write_text(TESTS)
    installed = any(point.name == "zkd" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "zkd.testing.plugin"]
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider",
            "--strict-markers", "-W", "error", "-q", "-s", *options, str(folder),
        ],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_fixture_gives_each_test_a_server_of_its_own(tmp_path: Path) -> None:
    done = user_run(tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    folder = next(line.split()[1] for line in done.stdout.splitlines() if "folder" in line)
    assert not Path(folder).exists()


def test_the_marker_is_known(tmp_path: Path) -> None:
    assert "@pytest.mark.zookeeper(settings={}, **more)" in user_run(tmp_path, "--markers").stdout


def test_ctrl_c_is_for_the_tests_not_for_the_server() -> None:
    """The terminal's signal goes to the foreground group, which the server has left."""
    with zkd.testing.server() as server:
        pid = server.pids()["supervisor"]
        assert os.getpgid(pid) != os.getpgid(0)
