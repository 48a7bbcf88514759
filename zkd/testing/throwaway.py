"""One throwaway server: its process, its folder, its clients.

The folder holds the data and the log and lives as long as the `Server`: `stop` and `start` keep the
port and the data, `close` removes everything. A server that is started with a port which somebody
took in the meantime tries another one, the first time only: afterwards clients know the port.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zkd.testing.ports import HOST, is_free

READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 15.0
PORT_ATTEMPTS = 5
RUNTIME_DIR_MAX = 80
"""A socket's path has 107 bytes, of which its name needs a quarter."""
_LOOK_AGAIN_S = 0.004
_LOG_SHOWN = 4000

_START = """\
import sys
sys.path.append({root!r})
from zkd.testing.child import main
sys.exit(main())
"""


class ServerFailed(Exception):
    """The server did not start or stop; the text has the end of its log."""


class Server:
    """A standalone server; a context manager that starts and removes it.

    `host`, `port`, `hosts`: where it listens ("127.0.0.1", an int, both as a connect string).
    `data_dir`: its data. `log`: what its processes have printed.
    """

    host = HOST

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        """`settings` as in zoo.cfg; they go before the defaults of a throwaway server."""
        self.folder = Path(tempfile.mkdtemp(prefix="zkd-"))
        self.data_dir = self.folder / "data"
        self.log = self.folder / "log"
        self._settings = {key: _text(value) for key, value in (settings or {}).items()}
        self._fixed_port = "clientPort" in self._settings
        self.port = int(self._settings.get("clientPort", 0)) or _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []

    @property
    def hosts(self) -> str:
        """The connect string."""
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the supervisor lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            self._start_somewhere()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- starting and stopping -----------------------------------------------------------------

    def start(self) -> None:
        """Start it on its port and data, and wait until it serves. Raises ServerFailed."""
        if not self.running:
            with self.beginning():
                pass

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Start it; at the end of the context wait until it serves. Raises ServerFailed."""
        root = str(Path(__file__).resolve().parents[2])
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            name = f"zkd-testing-{uuid.uuid4()}"
            ready.bind(f"\0{name}")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START.format(root=root), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": f"@{name}"},
                start_new_session=True,  # Ctrl-C is for the tests; they stop the server themselves
            )
            yield
            if not _is_told(ready, self._process.pid, READY_WITHIN_S):
                raise ServerFailed(f"no server on port {self.port}\n{self._log_end()}")

    def stop(self) -> None:
        """Stop it in order (SIGTERM); data and port stay. Raises ServerFailed if it does not."""
        process = self._process
        if process is None:
            return
        pids = self.pids().values() if self.running else ()
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerFailed(f"it did not stop\n{self._log_end()}") from None
        finally:
            self._process = None
            _wait_gone(pids)

    def restart(self) -> None:
        """Stop it and start it again; clients reconnect and keep their sessions."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the clients and the server, remove the folder."""
        try:
            for client in self._clients:
                client.stop()
                client.close()
            self._clients.clear()
        finally:
            try:
                self.stop()
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _start_somewhere(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self.start()
            except ServerFailed:
                if self._fixed_port or attempt == PORT_ATTEMPTS or is_free(self.port):
                    raise
                self.port = _free_port()
            else:
                return

    def _arguments(self) -> list[str]:
        settings = {
            "dataDir": str(self.data_dir),
            "clientPortAddress": self.host,
            "frontends": "1",
            "maxClientCnxns": "0",
            "4lw.commands.whitelist": "*",
            "admin.enableServer": "false",
            **self._runtime_dir(),
            **self._settings,
            "clientPort": str(self.port),
        }
        arguments = [str(os.getpid()), str(self.folder)]
        for key, value in settings.items():
            arguments += ["--set", f"{key}={value}"]
        return arguments

    def _runtime_dir(self) -> dict[str, str]:
        """The sockets' folder inside the server's, unless that makes their paths too long."""
        folder = self.folder / "run"
        return {"runtime.dir": str(folder)} if len(os.fsencode(folder)) < RUNTIME_DIR_MAX else {}

    def _log_end(self) -> str:
        try:
            return self.log.read_text(errors="replace")[-_LOG_SHOWN:]
        except OSError:
            return ""

    # -- what a test does with it --------------------------------------------------------------

    def client(self, **options: Any) -> Any:
        """A started kazoo client (KazooClient(hosts, **options)); stopped with the server."""
        from kazoo.client import KazooClient

        client = KazooClient(self.hosts, **options)
        self._clients.append(client)
        client.start()
        return client

    def pids(self) -> dict[str, int]:
        """The processes' ids by name: "supervisor", "frontend 1", "peer", "storage", "admin".

        A process between its death and its restart is missing.
        """
        if self._process is None:
            return {}
        supervisor = self._process.pid
        named = {_process_name(pid): pid for pid in _children(supervisor)}
        named.pop("", None)
        named.pop("supervisor", None)  # a child that has not taken its name yet
        return {"supervisor": supervisor} | named

    def kill(self, name: str) -> int:
        """Kill one process of the server (SIGKILL); the id that it had.

        "supervisor" takes all others with it, and `start` is what comes next; any other is started
        again by the supervisor. Raises KeyError if there is no such process now.
        """
        pids = self.pids()
        os.kill(pids[name], signal.SIGKILL)
        if name == "supervisor" and self._process is not None:
            self._process.wait()
            self._process = None
            _wait_gone(pids.values())
        return pids[name]


def _is_told(ready: socket.socket, pid: int, within_s: float) -> bool:
    """Whether READY=1 (sd_notify(3)) comes in time, and before the process ends."""
    end = time.monotonic() + within_s
    process = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(ready, select.POLLIN)
        poller.register(process, select.POLLIN)
        while (left := end - time.monotonic()) > 0:
            found = {fd for fd, _ in poller.poll(left * 1000)}
            if ready.fileno() in found and b"READY=1" in ready.recv(4096).split(b"\n"):
                return True
            if process in found:
                return False
        return False
    finally:
        os.close(process)


def _text(value: object) -> str:
    """A setting's value as zoo.cfg has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _stat_fields(pid: str) -> list[str]:
    """The fields of /proc/PID/stat after the name (0: state, 1: parent), [] if it is gone."""
    try:
        text = Path("/proc", pid, "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(entry.name)
            if fields and int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def _process_name(pid: int) -> str:
    """ "peer" of a process whose title is "zkd: peer [name]"; "" if it has no such title."""
    try:
        title = Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return ""
    name = title.rstrip(b"\0").decode("utf-8", "replace").partition(" [")[0]
    return name.removeprefix("zkd: ") if name.startswith("zkd: ") else ""


def _wait_gone(pids: Any) -> None:
    """Wait until none of these processes runs any more."""
    end = time.monotonic() + STOPPED_WITHIN_S
    waiting = list(pids)
    while waiting:
        states = {pid: _stat_fields(str(pid))[:1] for pid in waiting}
        waiting = [pid for pid in waiting if states[pid] and states[pid] != ["Z"]]
        if waiting and time.monotonic() > end:
            raise ServerFailed(f"processes {waiting} did not end")
        time.sleep(_LOOK_AGAIN_S if waiting else 0)
