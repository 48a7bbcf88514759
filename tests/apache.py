"""Apache ZooKeeper from Debian's package, as something to compare with.

`start(folder)` runs one standalone server on a free loopback port until its context ends,
`start_members` some members of an ensemble; the
fixture `apache_zookeeper` is one such server for the whole run, shared, so a test keeps to
paths of its own. Import the fixture by name into the test module that wants it. A machine
without Java or the package skips these tests.

All four-letter words are on, extended types (TTL) too, the admin server is off. The jars are
those named by the manifest of /usr/share/java/zookeeper.jar, which is where Debian puts them.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

JAVA_FOLDER = Path("/usr/share/java")
MAIN_JAR = JAVA_FOLDER / "zookeeper.jar"
MAIN_CLASS = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
SHELL_CLASS = "org.apache.zookeeper.ZooKeeperMain"
READY_WITHIN_S = 60.0

# What the manifest leaves out: a logging back end and what the packets of netty are split into.
_EXTRA_JARS = (
    "zookeeper-jute", "slf4j-api", "slf4j-simple", "netty-all", "netty-handler", "netty-common",
    "netty-buffer", "netty-transport", "netty-codec", "netty-resolver", "snappy-java",
    "metrics-core", "jackson-core", "jackson-annotations", "jackson-databind", "commons-cli",
    "commons-io",
)  # fmt: skip
_UNWANTED_JARS = ("slf4j-log4j12", "log4j", "logback", "zookeeper-it")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ApacheServer:
    """A running server: where it is, its process id, its folder (zoo.cfg, data, log)."""

    port: int
    pid: int
    folder: Path
    host: str = "127.0.0.1"

    @property
    def hosts(self) -> str:
        return f"{self.host}:{self.port}"


def missing() -> str | None:
    """Why the server cannot run here, or None."""
    if shutil.which("java") is None:
        return "no java on this machine"
    if not MAIN_JAR.exists():
        return f"Debian's zookeeper package is not installed: no {MAIN_JAR}"
    return None


def classpath() -> str:
    """The jars of Debian's package that exist, in the manifest's order, for `java -cp`."""
    with zipfile.ZipFile(MAIN_JAR) as archive:
        manifest = archive.read("META-INF/MANIFEST.MF").decode("utf-8", "replace")
    unfolded = manifest.replace("\r\n", "\n").replace("\n ", "")
    named = re.search(r"^Class-Path: (.*)$", unfolded, re.MULTILINE)
    jars = [MAIN_JAR]
    for name in named.group(1).split() if named else []:
        jars.append(Path(os.path.normpath(JAVA_FOLDER / name)))
    jars.extend(JAVA_FOLDER / f"{name}.jar" for name in _EXTRA_JARS)
    wanted = [jar for jar in jars if not jar.name.startswith(_UNWANTED_JARS) and jar.exists()]
    return ":".join(str(jar) for jar in dict.fromkeys(wanted))


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def four_letters(port: int, word: str, timeout_s: float = 5.0) -> str:
    """What the server on that loopback port answers to a four-letter word, whole."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(word.encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write_config(folder: Path, port: int, settings: dict[str, str]) -> Path:
    lines = {
        "tickTime": "2000",
        "dataDir": str(folder / "data"),
        "clientPort": str(port),
        "clientPortAddress": "127.0.0.1",
        "maxClientCnxns": "0",
        "admin.enableServer": "false",
        "4lw.commands.whitelist": "*",
        "extendedTypesEnabled": "true",
    } | settings
    path = folder / "zoo.cfg"
    path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    return path


def _wait_until_ready(server: _Running) -> None:
    end = time.monotonic() + READY_WITHIN_S
    port = server.seen.port
    while time.monotonic() < end and server.process.poll() is None:
        try:
            if "Mode:" in four_letters(port, "srvr", 1.0):
                return
        except OSError:
            pass
        time.sleep(0.02)  # between two looks, not instead of one
    pytest.fail(f"Apache ZooKeeper on port {port} is not ready:\n{server.log.read_text()[-3000:]}")


@contextmanager
def start(
    folder: Path,
    *,
    port: int | None = None,
    settings: dict[str, str] | None = None,
    jvm_flags: tuple[str, ...] = (),
) -> Iterator[ApacheServer]:
    """Run a standalone server on `folder` (kept: a second start finds the data again).

    `settings` are further lines of zoo.cfg; `jvm_flags` go before the class, for system
    properties that zoo.cfg does not carry. Stopped by its process id at the end.
    """
    with _running(folder, port or free_port(), settings or {}, jvm_flags) as server:
        _wait_until_ready(server)
        yield server.seen


@contextmanager
def start_members(
    folder: Path,
    lines: dict[int, str],
    sids: Sequence[int],
    *,
    settings: dict[str, str] | None = None,
    jvm_flags: tuple[str, ...] = (),
    ready: bool = True,
) -> Iterator[dict[int, ApacheServer]]:
    """Run the members `sids` of the ensemble that `lines` describe (the values of `server.N`,
    without client ports), each in a folder of its own. With `ready` they serve when this yields."""
    common = {"tickTime": "500", "initLimit": "20", "syncLimit": "10"}
    common |= {f"server.{sid}": line for sid, line in lines.items()} | (settings or {})
    with ExitStack() as stack:
        servers: dict[int, _Running] = {}
        for sid in sids:
            (folder / str(sid) / "data").mkdir(parents=True, exist_ok=True)
            (folder / str(sid) / "data" / "myid").write_text(f"{sid}\n")
            servers[sid] = stack.enter_context(
                _running(folder / str(sid), free_port(), common, jvm_flags)
            )
        for server in servers.values() if ready else ():
            _wait_until_ready(server)
        yield {sid: server.seen for sid, server in servers.items()}


@dataclass(frozen=True, slots=True)
class _Running:
    seen: ApacheServer
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def _running(
    folder: Path, port: int, settings: dict[str, str], jvm_flags: tuple[str, ...]
) -> Iterator[_Running]:
    """A server process, ready or not."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    config = _write_config(folder, port, settings)
    command = [
        "java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
        "-Dzookeeper.extendedTypesEnabled=true",
        "-Dzookeeper.admin.enableServer=false",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        *jvm_flags, "-cp", classpath(), MAIN_CLASS, str(config),
    ]  # fmt: skip
    log = folder / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield _Running(ApacheServer(port, process.pid, folder), process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def shell(server: ApacheServer, *command: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Run Apache's own zkCli once: exit status, standard output, standard error.

    Without a command it reads lines from `stdin`.
    """
    done = subprocess.run(
        [
            "java", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp", classpath(), SHELL_CLASS, "-server", server.hosts, *command,
        ],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="session")
def apache_zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheServer]:
    """One Apache ZooKeeper server for the whole run; see `start` for one of your own."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with start(tmp_path_factory.mktemp("apache-zookeeper")) as server:
        yield server
