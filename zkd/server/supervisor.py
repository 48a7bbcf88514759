"""The supervisor: forks the processes of one server, watches them, and restarts each alone.

It imports once what they share and then forks, so they start quickly and share pages. To be able to
fork again at any time it stays free of threads, event loops, ZeroMQ and SQLite: it lives on poll,
signals, one control channel a child (see process.py) and, where systemd asks for it, a datagram.

It holds the listening sockets, one a front-end with SO_REUSEPORT, so that connections queue up
while a front-end is being restarted.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zkd import config as configuration
from zkd.bus.places import listen
from zkd.config.runtime import prepare_runtime_dir
from zkd.errors import OperatorError
from zkd.server import logs, ports
from zkd.server.process import (
    Board,
    Child,
    SupervisorGone,
    die_with_parent,
    quiet_collector,
)

STOP_LIMIT_S = 1.7
"""All children together have this long to stop before the rest is killed."""
STORAGE_PATIENCE = 3
"""Storage may be waiting for the disk: it has so many times the watchdog's limit."""
QUICK_DEATH_S = 1.0
RESTART_DELAY_MAX_S = 5.0
STOP_ORDER = ("frontend", "peer", "storage", "admin")


@dataclass
class Worker:
    """One child as the supervisor sees it, over all its lives."""

    name: str
    index: int = 0
    listener: socket.socket | None = None
    pid: int = 0
    life: int = 0
    control: socket.socket | None = None
    started: float = 0.0
    heard: float = 0.0
    ready: bool = False
    quick_deaths: int = 0
    restart_at: float = 0.0
    status: dict[str, object] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.name.split(" ")[0]


def _main_of(kind: str) -> Callable[[Child], None]:
    """The entry point of a process; imported in the child, after the fork."""
    if kind == "frontend":
        from zkd.server.frontend import main
    elif kind == "peer":
        from zkd.server.peer import main
    elif kind == "storage":
        from zkd.server.storage import main
    else:
        from zkd.server.admin import main
    return main


def _preload() -> None:
    """Import what the children share; nothing here may start a thread or open a file for good."""
    import asyncio
    import ctypes
    import marshal
    import struct
    import zlib

    import zkd.bus.messages
    import zkd.plugins.auth
    import zkd.server.metrics
    import zkd.tree.prepare
    import zkd.tree.watches
    import zkd.zab.sessions

    del asyncio, ctypes, marshal, struct, zlib, zkd.bus.messages


class Supervisor:
    """Runs one server until it is told to stop; `run` is its whole life."""

    def __init__(
        self, config: configuration.Config, read_again: Callable[[], configuration.Config]
    ) -> None:
        """`read_again`: reads the configuration once more, for SIGHUP."""
        self.config = config
        self._read_again = read_again
        self.log = logs.get("supervisor")
        self.runtime_dir = Path(config.runtime_dir)
        self.board = Board(config.frontends)
        self.workers: list[Worker] = []
        self.stopping = False
        self.announced = False
        self.next_life = int(time.time() * 1000)
        self.began = time.monotonic()
        self._wake_r, self._wake_w = socket.socketpair()
        self._signals: list[int] = []

    # -- starting ------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything, watch until told to stop; the exit status."""
        self._prepare_directories()
        listeners = ports.listen(self.config)
        for i, listener in enumerate(listeners):
            self.workers.append(Worker(f"frontend {i + 1}", index=i, listener=listener))
        self.workers += [Worker("storage"), Worker("peer"), Worker("admin")]
        self._catch_signals()
        _preload()
        gc.collect()
        gc.freeze()
        try:
            for worker in self.workers:
                self._start(worker)
            self._tell_lives()
            return self._watch()
        finally:
            for worker in self.workers:
                if worker.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(worker.pid, 0)
            self._remove_sockets()

    def _prepare_directories(self) -> None:
        config = self.config
        for directory in (config.data_dir, config.data_log_dir):
            if not directory.is_dir() and not config.datadir_autocreate:
                raise OperatorError(
                    what="the data folder is missing and datadir.autocreate is false",
                    where=str(directory),
                    mend="make the folder, or set datadir.autocreate=true",
                )
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise OperatorError(
                    what=f"cannot make the data folder: {e.strerror}",
                    where=str(directory),
                    mend="check dataDir and dataLogDir, and the rights of this user",
                ) from None
        prepare_runtime_dir(self.runtime_dir)

    def _catch_signals(self) -> None:
        for end in (self._wake_r, self._wake_w):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_w.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda n, _frame: self._signals.append(n))

    def _start(self, worker: Worker) -> None:
        """Fork one child into a new life."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        self.next_life += 1
        worker.life = self.next_life
        direct = listen(self.runtime_dir, worker.name, worker.life)
        worker.control = ours
        worker.started = worker.heard = time.monotonic()
        worker.ready = False
        worker.restart_at = 0.0
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                die_with_parent(parent)
                status = self._child(worker, theirs, direct)
            except SupervisorGone:
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        direct.close()
        worker.pid = pid
        self.log.debug("process.started", name=worker.name, pid=pid, life=worker.life)

    def _child(self, worker: Worker, control: socket.socket, direct: socket.socket) -> int:
        """The life of a child, from the fork to its exit status."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in self.workers:
            if other.control is not None:
                other.control.close()
            if other is not worker and other.listener is not None:
                other.listener.close()
        self._wake_r.close()
        self._wake_w.close()
        _title(worker.name, self.config.name)
        logs.setup(self.config.log_config, worker.name, server=self.config.name)
        child = Child(
            name=worker.name,
            life=worker.life,
            config=self.config,
            control=control,
            runtime_dir=self.runtime_dir,
            board=self.board,
            listener=worker.listener,
            direct=direct,
            index=worker.index,
        )
        log = logs.get(worker.name)
        if worker.kind != "admin":
            quiet_collector()
        try:
            _main_of(worker.kind)(child)
        except SupervisorGone:
            return 0
        except OperatorError as e:
            log.error("process.refused", what=e.what, where=e.where, mend=e.mend)
            with contextlib.suppress(SupervisorGone):
                child.say(refused={"what": e.what, "where": e.where, "mend": e.mend})
            return 2
        except Exception:
            log.exception("process.failed")
            return 1
        return 0

    # -- watching ------------------------------------------------------------------------------

    def _watch(self) -> int:
        """Go round until everything has stopped; the exit status."""
        while True:
            self._poll(self._timeout_s())
            for number in self._take_signals():
                if number in (signal.SIGTERM, signal.SIGINT):
                    if self.stopping:
                        continue
                    return self._stop_all()
                if number == signal.SIGHUP:
                    self._reload()
            refusal = self._reap()
            if refusal is not None:
                self._stop_all()
                raise refusal
            self._restart_due()
            self._kill_silent()

    def _reload(self) -> None:
        """Read the configuration and the logging file again, here and in every child."""
        try:
            new = self._read_again()
            logs.setup(new.log_config, "supervisor", server=self.config.name)
        except OperatorError as e:
            self.log.error("reload.refused", what=e.what, where=e.where, mend=e.mend)
            return
        changed, fixed = configuration.differences(self.config, new)
        self.config.take(changed.values)
        self._tell_all(reload=base64.b64encode(pickle.dumps(changed.values)).decode())
        self.log.info("reload.done", changed=changed.keys)
        if fixed:
            self.log.warning("reload.needs_restart", keys=fixed)

    def _timeout_s(self) -> float:
        due = [w.restart_at - time.monotonic() for w in self.workers if w.restart_at]
        return max(0.0, min([1.0, *due]))

    def _poll(self, timeout_s: float) -> None:
        """Wait for something to happen and read what the children say."""
        poller = select.poll()
        by_fd: dict[int, Worker] = {}
        poller.register(self._wake_r, select.POLLIN)
        for worker in self.workers:
            if worker.control is not None:
                by_fd[worker.control.fileno()] = worker
                poller.register(worker.control, select.POLLIN)
        before = time.monotonic()
        ready = poller.poll(timeout_s * 1000)
        late = time.monotonic() - before - timeout_s
        if late > 1.0:  # we were stopped or starved ourselves: that is nobody's silence
            for worker in self.workers:
                worker.heard += late
        for fd, _events in ready:
            if fd in by_fd:
                self._hear(by_fd[fd])
            else:
                with contextlib.suppress(BlockingIOError):
                    while self._wake_r.recv(256):
                        pass

    def _hear(self, worker: Worker) -> None:
        """Read everything one child has said."""
        assert worker.control is not None
        while True:
            try:
                packet = worker.control.recv(65536)
            except BlockingIOError:
                return
            except ConnectionResetError:
                packet = b""
            if not packet:
                worker.control.close()
                worker.control = None
                return
            worker.heard = time.monotonic()
            message = json.loads(packet)
            if message.get("ready"):
                worker.ready = True
                if self.announced and all(w.ready for w in self.workers):
                    notify(f"STATUS=Serving on port {self.config.listen_port}")
            if "status" in message:
                notify(f"STATUS={message['status']}")
                self.log.info("process.status", name=worker.name, status=message["status"])
            if "refused" in message:
                worker.status["refused"] = message["refused"]
            if not self.announced and all(w.ready for w in self.workers):
                self._announce()

    def _announce(self) -> None:
        """Everything serves: say so to the log and to systemd."""
        self.announced = True
        self.log.info(
            "server.ready",
            address=self.config.listen_address or "*",
            port=self.config.listen_port,
            frontends=self.config.frontends,
            data=str(self.config.data_dir),
            seconds=round(time.monotonic() - self.began, 3),
        )
        notify(f"READY=1\nSTATUS=Serving on port {self.config.listen_port}")

    def _take_signals(self) -> Iterator[int]:
        while self._signals:
            yield self._signals.pop(0)

    def _reap(self) -> OperatorError | None:
        """Notice children that have ended; an error if one refuses to start at all."""
        refusal = None
        changed = False
        for worker in self.workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            if worker.control is not None:
                self._hear(worker)
            lived = time.monotonic() - worker.started
            changed = True
            worker.pid = 0
            refused = worker.status.pop("refused", None)
            if isinstance(refused, dict) and not self.announced:
                refusal = OperatorError(**refused)
                continue
            if isinstance(refused, dict):
                notify(f"STATUS={worker.name} does not start: {refused['what']}")
            quick = lived < QUICK_DEATH_S or not worker.ready
            worker.quick_deaths = worker.quick_deaths + 1 if quick else 0
            delay = 0.0
            if worker.quick_deaths:
                delay = min(0.02 * 2.0 ** (worker.quick_deaths - 1), RESTART_DELAY_MAX_S)
            self.log.error(
                "process.died",
                name=worker.name,
                status=os.waitstatus_to_exitcode(status),
                lived_s=round(lived, 3),
                again_in_s=round(delay, 3),
            )
            worker.restart_at = time.monotonic() + delay
            worker.life = 0
        if changed and refusal is None and not self._restart_due():
            self._tell_lives()  # the others must not wait for one that is not there
        return refusal

    def _restart_due(self) -> bool:
        """Start those whose time has come; whether there were any (all are told of the lives)."""
        now = time.monotonic()
        started = False
        for worker in self.workers:
            if not worker.pid and worker.restart_at and worker.restart_at <= now:
                if worker.control is not None:
                    worker.control.close()
                self._start(worker)
                started = True
        if started:
            self._tell_lives()
        return started

    def _kill_silent(self) -> None:
        now = time.monotonic()
        limit_s = self.config.watchdog_timeout / 1000
        for worker in self.workers:
            patience = STORAGE_PATIENCE if worker.kind == "storage" else 1
            if worker.pid and now - worker.heard > limit_s * patience:
                self.log.error(
                    "process.silent",
                    name=worker.name,
                    pid=worker.pid,
                    limit_s=limit_s * patience,
                )
                os.kill(worker.pid, signal.SIGKILL)
                worker.heard = now

    # -- telling -------------------------------------------------------------------------------

    def _tell(self, worker: Worker, **message: object) -> None:
        if worker.control is not None and worker.pid:
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                worker.control.send(json.dumps(message).encode())

    def _tell_all(self, **message: object) -> None:
        for worker in self.workers:
            self._tell(worker, **message)

    def _tell_lives(self) -> None:
        self._tell_all(lives={w.name: w.life for w in self.workers if w.life})

    # -- stopping ------------------------------------------------------------------------------

    def _stop_all(self) -> int:
        """Stop the children in order; whoever is late is killed (nothing is lost by that)."""
        self.stopping = True
        began = time.monotonic()
        notify("STOPPING=1")
        self.log.info("server.stopping")
        for kind in STOP_ORDER:
            group = [w for w in self.workers if w.kind == kind and w.pid]
            for worker in group:
                self._tell(worker, stop=True)
            for worker in group:
                self._wait_gone(worker, began + STOP_LIMIT_S)
        self.log.info("server.stopped", seconds=round(time.monotonic() - began, 3))
        return 0

    def _wait_gone(self, worker: Worker, deadline: float) -> None:
        pidfd = os.pidfd_open(worker.pid)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.log.warning("process.killed", name=worker.name, reason="did not stop in time")
                os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            worker.pid = 0
        finally:
            os.close(pidfd)

    def _remove_sockets(self) -> None:
        for worker in self.workers:
            for path in self.runtime_dir.glob(worker.name.replace(" ", "-") + ".*"):
                with contextlib.suppress(OSError):
                    path.unlink()
        with contextlib.suppress(OSError):
            self.runtime_dir.rmdir()


def _title(process: str, name: str) -> None:
    import setproctitle

    setproctitle.setproctitle(f"zkd: {process} [{name}]")


def notify(state: str) -> None:
    """Tell systemd the state of the service, if it has asked for it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s,
        contextlib.suppress(OSError),
    ):
        s.connect(address)
        s.send(state.encode())


def run(config_path: str | None, overrides: dict[str, str]) -> int:
    """Run a server until SIGTERM or SIGINT; the exit status. Raises OperatorError."""
    config = configuration.load(config_path, overrides)
    logs.setup(config.log_config, "supervisor", server=config.name)
    log = logs.get("supervisor")
    for finding in config.warnings:
        tell = log.warning if finding.level == "warning" else log.info
        tell("config.finding", key=finding.key, what=finding.what, mend=finding.mend)
    _title("supervisor", config.name)
    return Supervisor(config, lambda: configuration.load(config_path, overrides)).run()
