"""Servers under test, all with the same handle: Apache ZooKeeper and zkd as standalone servers.

A `Server` owns one folder (zoo.cfg, data, log) and at most one running process tree, which dies
with the test run. The same zoo.cfg goes to both kinds, so a difference between two servers is
never one of configuration. `make(kind, folder)` is how a `--a apache --b zkd` becomes a server.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import tests.apache as debian

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 20.0
SUPER_PASSWORD = "super:test"
SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="

# Ticks are long so that no session expires while a comparison is held up by a busy machine; the
# container manager is as good as off because it deletes at moments of its own.
SETTINGS: dict[str, str] = {
    "tickTime": "10000",
    "clientPortAddress": "127.0.0.1",
    "maxClientCnxns": "0",
    "admin.enableServer": "false",
    "4lw.commands.whitelist": "*",
    "extendedTypesEnabled": "true",
    "DigestAuthenticationProvider.superDigest": SUPER_DIGEST,
    "znode.container.checkIntervalMs": "100000000",
}
# What Apache ZooKeeper reads as Java system properties only.
PROPERTY_ONLY = (
    "znode.container.checkIntervalMs",
    "znode.container.maxPerMinute",
    "jute.maxbuffer",
    "readonlymode.enabled",
)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class NotReady(Exception):
    """A server did not start to serve; the text holds the end of its log."""


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One standalone server. `start` and `stop` may alternate; the data stays until `remove`."""

    kind = ""
    version = ""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.settings = SETTINGS | dict(settings or {})
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def hosts(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that was started; others of the server are its descendants."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def command(self, config: Path) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start and wait until the server serves. The port stays the same over restarts."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.port = self.port or debian.free_port()
        config = self.folder / "zoo.cfg"
        lines = {"dataDir": str(self.folder / "data"), "clientPort": str(self.port)}
        lines |= self.settings
        config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command(config),
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        end = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if "Mode:" in debian.four_letters(self.port, "srvr", 1.0):
                    return
            time.sleep(0.01)  # between two looks, not instead of one
        status = self.process.poll()
        self.kill()
        raise NotReady(
            f"{self.kind} on port {self.port} is not ready (exit status {status}):\n{self.tail()}"
        )

    def stop(self) -> None:
        """SIGTERM, then wait; a server that ignores it is killed, and that is an error."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._kill_group(process)
            raise NotReady(f"{self.kind} did not stop:\n{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a crash of all processes at once."""
        if self.process is not None:
            process, self.process = self.process, None
            self._kill_group(process)

    def _kill_group(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop and forget the data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self, characters: int = 3000) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def pids(self) -> list[int]:
        """The server's processes: the one that was started and all its descendants."""
        return [self.pid, *_descendants(self.pid)]

    def resident_bytes(self) -> int:
        """Resident memory of all processes; pages that two of them share count twice."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        return total


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


class ApacheZooKeeper(Server):
    """Apache ZooKeeper 3.8.0 from Debian's package."""

    kind = "apache"
    version = "3.8.0"

    def classpath(self) -> str:
        return debian.classpath()

    def flags(self) -> list[str]:
        return ["-Dorg.slf4j.simpleLogger.defaultLogLevel=info"]

    def command(self, config: Path) -> list[str]:
        properties = [
            f"-D{key}={self.settings[key]}" for key in PROPERTY_ONLY if key in self.settings
        ]
        return [
            "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
            *properties, *self.flags(), "-cp", self.classpath(), debian.MAIN_CLASS, str(config),
        ]  # fmt: skip


class NewerApacheZooKeeper(ApacheZooKeeper):
    """Another release of Apache ZooKeeper, by hand: its jars in APACHE_ZK_CLASSPATH."""

    kind = "apache39"
    version = "3.9"

    def classpath(self) -> str:
        return os.environ["APACHE_ZK_CLASSPATH"]

    def flags(self) -> list[str]:
        return os.environ.get("APACHE_ZK_JVMFLAGS", "").split()


class Zkd(Server):
    """zkd from this checkout."""

    kind = "zkd"
    version = "3.9 zkd"

    def command(self, config: Path) -> list[str]:
        return [sys.executable, "-m", "zkd", "serve", str(config)]


KINDS: dict[str, type[Server]] = {
    kind.kind: kind for kind in (ApacheZooKeeper, NewerApacheZooKeeper, Zkd)
}


def missing(kind: str) -> str | None:
    """Why a server of this kind cannot run here, or None."""
    if kind == "zkd":
        return None if importlib.util.find_spec("zkd.__main__") else "zkd has no `serve` yet"
    if kind == "apache39" and "APACHE_ZK_CLASSPATH" not in os.environ:
        return "APACHE_ZK_CLASSPATH is not set"
    if kind == "apache39":
        return None if shutil.which("java") else "no java on this machine"
    return debian.missing()


def make(kind: str, folder: Path, settings: Mapping[str, str] | None = None) -> Server:
    """A server of that kind, not started."""
    return KINDS[kind](folder, settings)


@contextlib.contextmanager
def running(kind: str, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A fresh server of that kind in a folder of its own, gone at the end."""
    server = make(kind, Path(tempfile.mkdtemp(prefix=f"conformance-{kind}-")), settings)
    try:
        server.start()
        yield server
    finally:
        try:
            server.stop()
        finally:
            server.remove()
