"""The servers that chaos runs against: zkd, and Apache ZooKeeper to try the harness on.

A server keeps its port and folder over kills and starts; it dies with the test run. Ticks are
short, so that session timeouts are; all else is as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests import apache
from tests.chaos import nemesis

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 20.0
SETTINGS: dict[str, str] = {
    "tickTime": "500",
    "maxClientCnxns": "0",
    "admin.enableServer": "false",
    "4lw.commands.whitelist": "*",
}
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_ERROR = re.compile(r"^\S+ (ERROR|CRITICAL) |^Traceback ")
_KILLED = re.compile(r" process\.died .*status=-9\b")


class ServerFailed(Exception):
    """A server did not come up or did not stop; the text holds the end of its log."""


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One server: `start`, then any number of faults and starts, then `stop`."""

    kind = ""
    parts: tuple[str, ...] = ()
    """The names of its processes, all of which run when it is healthy."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        address: tuple[str, int] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        """`address` is that of its clients (default: loopback, a free port); `prefix` is put
        before its command, for a server in another network namespace."""
        self.folder = folder
        self.address = address or ("127.0.0.1", apache.free_port())
        self.prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True, exist_ok=True)
        own = {"dataDir": str(folder / "data"), "clientPort": str(self.port)}
        own["clientPortAddress"] = self.address[0]
        lines = SETTINGS | own | dict(settings or {})
        self.config = folder / "zoo.cfg"
        self.config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def root(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def processes(self) -> dict[str, int]:
        """Its running processes by name."""
        raise NotImplementedError

    def spawn(self, environment: Mapping[str, str] | None = None) -> None:
        """Start without waiting; `environment` is added to this process's own."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command()],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def start(self) -> None:
        """Start and wait until it serves."""
        self.spawn()
        await self.ready()

    async def ready(self) -> None:
        """Wait until all its processes run and it answers; ServerFailed if it does not."""
        end = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < end and self.alive:
            if all(part in self.processes() for part in self.parts) and await self._answers():
                return
            await asyncio.sleep(0.02)  # between two looks, not instead of one
        raise ServerFailed(f"{self.kind} is not ready: {sorted(self.processes())}\n{self.tail()}")

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(*self.address)
                try:
                    writer.write(b"srvr")
                    return b"Mode:" in await reader.read()
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            return False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill_all(self) -> None:
        """SIGKILL to every process at once, as a power cut that spares the kernel."""
        if self.process is not None:
            if self.alive:
                nemesis.kill_tree(self.root)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM and wait; ServerFailed if it does not obey."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOPPED_WITHIN_S)
            self.process = None
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise ServerFailed(f"{self.kind} did not stop on SIGTERM\n{self.tail()}") from None

    def complaints(self) -> list[str]:
        """What the log says went wrong beyond the faults that were done to it."""
        return []

    def tail(self, characters: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


class Apache(Server):
    """Apache ZooKeeper from Debian's package: one process."""

    kind = "apache"
    parts = ("jvm",)
    flags: tuple[str, ...] = ()
    """Further ones of the JVM: system properties that zoo.cfg does not carry."""

    def command(self) -> list[str]:
        return [
            "java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-Dzookeeper.admin.enableServer=false",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *self.flags, "-cp", apache.classpath(), apache.MAIN_CLASS, str(self.config),
        ]  # fmt: skip

    def processes(self) -> dict[str, int]:
        return {"jvm": self.root} if self.alive else {}


class Zkd(Server):
    """zkd from this checkout."""

    kind = "zkd"

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        frontends: int = 2,
        address: tuple[str, int] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        own = {"frontends": str(frontends)} | dict(settings or {})
        super().__init__(folder, own, address=address, prefix=prefix)
        names = tuple(f"frontend {i + 1}" for i in range(frontends))
        self.parts = ("supervisor", *names, "peer", "storage", "admin")

    def command(self) -> list[str]:
        return [sys.executable, "-m", "zkd", "serve", str(self.config)]

    def processes(self) -> dict[str, int]:
        return nemesis.processes(self.root) if self.alive else {}

    def complaints(self) -> list[str]:
        """Errors in the log, but for deaths by SIGKILL: those were done to it."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if _ERROR.search(line) and not _KILLED.search(line)]
        return [line if len(line) < 400 else f"{line[:200]} ... {line[-200:]}" for line in errors]


@contextlib.contextmanager
def folder_for(kind: str) -> Iterator[Path]:
    """A folder that is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{kind}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
