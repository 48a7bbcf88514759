"""Servers for the benchmark: Apache ZooKeeper and zkd, alone or three of a kind, on free ports.

All force every write to the disk before they acknowledge it, as they do by default; a comparison
with one that does not would be of promises, not of servers. Apache ZooKeeper comes from Debian's
package with the heap limit that its own start script sets, or from the jars that
APACHE_ZK_CLASSPATH names (with APACHE_ZK_JVMFLAGS as further flags), which is how other releases
are measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import apache
from tests.bench.compare import Contender
from tests.bench.generator import BenchError

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 20.0
LINES = {
    "tickTime": "2000",
    "clientPortAddress": "127.0.0.1",
    "maxClientCnxns": "0",
    "4lw.commands.whitelist": "*",
    "admin.enableServer": "false",
}


def apache_command() -> list[str]:
    """The start of Apache ZooKeeper, but for the configuration file; BenchError without one."""
    classpath = os.environ.get("APACHE_ZK_CLASSPATH")
    if classpath is None and (reason := apache.missing()):
        raise BenchError(f"{reason}; install it, or name the jars in APACHE_ZK_CLASSPATH")
    return [
        "java", "-Xmx1000m", *os.environ.get("APACHE_ZK_JVMFLAGS", "").split(),
        "-Dzookeeper.admin.enableServer=false", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp", classpath or apache.classpath(), apache.MAIN_CLASS,
    ]  # fmt: skip


def zkd_command() -> list[str]:
    return [sys.executable, "-m", "zkd", "serve"]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if "Mode:" in apache.four_letters(port, "srvr", 1.0):
                return
        except OSError:
            pass
        time.sleep(0.02)  # between two looks, not instead of one
    raise BenchError(f"the server on port {port} is not ready:\n{log.read_text()[-3000:]}")


@contextmanager
def running(
    name: str, command: list[str], settings: Mapping[str, str] | None = None
) -> Iterator[Contender]:
    """Run one server in a folder of its own until the context ends; nothing is left behind."""
    with ensemble(name, [command], settings) as contender:
        yield contender


@contextmanager
def ensemble(
    name: str, commands: Sequence[list[str]], settings: Mapping[str, str] | None = None
) -> Iterator[Contender]:
    """Run a server per command, members of one ensemble if there are several, until the context
    ends; nothing is left behind. Clients may connect to any of them."""
    folder = Path(tempfile.mkdtemp(prefix=f"zkd-bench-{name.replace(' ', '-')}-"))
    ports = [apache.free_port() for _ in commands]
    lines = LINES | (_members(len(commands)) if len(commands) > 1 else {}) | dict(settings or {})
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, (command, port) in enumerate(zip(commands, ports, strict=True), 1):
            processes.append(_spawn(folder / str(number), number, command, port, lines))
        for number, (process, port) in enumerate(zip(processes, ports, strict=True), 1):
            _wait_until_ready(process, port, folder / str(number) / "log")
        pids = ",".join(str(process.pid) for process in processes)
        yield Contender(name, ",".join(f"127.0.0.1:{port}" for port in ports), pids)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _members(count: int) -> dict[str, str]:
    """The lines that make `count` servers an ensemble."""
    lines = {"initLimit": "20", "syncLimit": "10"}
    for sid in range(1, count + 1):
        lines[f"server.{sid}"] = f"127.0.0.1:{apache.free_port()}:{apache.free_port()}"
    return lines


def _spawn(
    folder: Path, sid: int, command: list[str], port: int, lines: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "myid").write_text(f"{sid}\n")
    own = dict(lines) | {"dataDir": str(data), "clientPort": str(port)}
    config = folder / "zoo.cfg"
    config.write_text("".join(f"{key}={value}\n" for key, value in own.items()))
    with (folder / "log").open("wb") as out:
        return subprocess.Popen(
            [*command, str(config)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
