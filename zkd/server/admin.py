"""The admin process: commit observers and metrics exporters; nothing that a client waits for.

    exporter's thread -- read_metrics --> main loop -- QUERY --> all other processes
                      <-- their dumps --            <-- REPLY --

Plugins run in threads of their own, also while they are imported, so the main loop waits for none
of them: one that blocks or raises is named in the log, and the loop goes on. A plugin that holds
the interpreter's lock silences the loop; the supervisor then ends the process, which harms nobody.
It runs with a low priority: what is left of the machine is enough for it.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import zmq

from zkd.admin.exporters import ExporterRunner
from zkd.admin.observers import ObserverRunner
from zkd.bus.messages import DURABLE, JOIN, QUERY, REPLY, decode
from zkd.bus.sockets import Outbox
from zkd.plugins import loader
from zkd.plugins.api import MetricFamily
from zkd.server import logs
from zkd.server.admin_metrics import AdminMetrics, as_families
from zkd.server.metrics import Dump
from zkd.server.observed import ObservedLog

if TYPE_CHECKING:
    from zkd.server.process import Child

ANSWER_LIMIT_S: Final = 1.0
"""A process that has not told its metrics by then is left out."""
SLACK_S: Final = 0.5
STOP_LIMIT_S: Final = 0.35
"""What has not ended by then is left behind."""
TOLD_S: Final = 0.1
"""To say so."""
TURN_S: Final = 0.5
NICENESS: Final = 10
FOLDER: Final = "observers"
"""In dataDir: the observers' cursors."""


class Admin:
    """See the module's text. All methods but `read_metrics` are for the main thread."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.config = child.config
        self.log = logs.get(child.name)
        self.context: zmq.Context[Any] = zmq.Context()
        self.inbox = child.inbox(self.context)
        self.storage: Outbox | None = None
        self.committed = -1
        """-1: storage has not told yet."""
        self.plugins: loader.PluginSet | None = None
        self.observers: ObserverRunner | None = None
        self.exporters: ExporterRunner | None = None
        self.observed = ObservedLog(self.config.data_log_dir)
        self.metrics = AdminMetrics(self)
        self._gathering: dict[int, Gathering] = {}
        self._idents = itertools.count(1)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loaded: SimpleQueue[loader.PluginSet | BaseException] = SimpleQueue()
        self._wanted: SimpleQueue[Wanted] = SimpleQueue()
        child.on_lives = self._lives

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """Go round until told to stop."""
        child = self.child
        control = child.control.fileno()
        sockets = [(self.inbox.socket, zmq.POLLIN), (control, zmq.POLLIN), (self._wake, zmq.POLLIN)]
        child.ready()
        threading.Thread(target=self._load, name="plugins", daemon=True).start()
        while not child.stopping:
            for source, _ in zmq.zmq_poll(sockets, self._timeout_ms()):
                if source == control:
                    child.read_control()
                elif source == self._wake:
                    os.eventfd_read(self._wake)
            child.alive()
            self._take_loaded()
            self._drain()
            self._take_wanted()
            for gathering in list(self._gathering.values()):
                if time.monotonic() >= gathering.deadline:
                    self._finish(gathering)
            logs.tick()
        self._stop()

    def _timeout_ms(self) -> int:
        now = time.monotonic()
        due = [gathering.deadline - now for gathering in self._gathering.values()]
        return int(max(0.0, min([TURN_S, *due])) * 1000) + 1

    def _drain(self) -> None:
        while True:
            try:
                message = decode(self.inbox.socket.recv(zmq.DONTWAIT))
            except zmq.Again:
                return
            if message[0] == DURABLE:
                self._heard(message[3])
            elif message[0] == REPLY:
                self._replied(message[1], message[2], message[3])
            elif message[0] == QUERY:
                _, ident, _what, (name, life) = message
                self._send(name, life, (REPLY, ident, self.child.name, self.statistics()))

    def _send(self, name: str, life: int, message: tuple[Any, ...]) -> None:
        out = Outbox(self.context, self.child.runtime_dir, name, life)
        out.send(message)
        out.close(linger_ms=500)

    def _lives(self, lives: dict[str, int]) -> None:
        """Some process has begun another life."""
        self.metrics.count_starts(lives)
        self._join(lives)

    def _join(self, lives: dict[str, int]) -> None:
        """Storage tells what is committed to those who want to know: observers."""
        life = lives.get("storage", 0)
        if self.plugins is None or not self.plugins.observers or not life:
            return
        if self.storage is None or self.storage.life < life:
            if self.storage is not None:
                self.storage.close()
            self.storage = Outbox(self.context, self.child.runtime_dir, "storage", life)
            self.storage.send((JOIN, self.child.name, self.child.life, []))

    def _stop(self) -> None:
        """Ask all plugins to end at the same time; what does not is left behind."""
        enders = [
            threading.Thread(target=runner.stop, args=(STOP_LIMIT_S,), daemon=True)
            for runner in (self.observers, self.exporters)
            if runner is not None
        ]
        deadline = time.monotonic() + STOP_LIMIT_S + TOLD_S
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join(max(0.0, deadline - time.monotonic()))
        logs.flush()

    # -- plugins -------------------------------------------------------------------------------

    def _load(self) -> None:
        """In a thread: import what the configuration wants here."""
        try:
            self._loaded.put(loader.load(self.config.raw, "admin"))
        except Exception as error:  # noqa: BLE001  the thread's main loop; raised in the process's
            self._loaded.put(error)
        os.eventfd_write(self._wake, 1)

    def _take_loaded(self) -> None:
        """The plugins have been imported: start the exporters, ask storage for the observers."""
        try:
            loaded = self._loaded.get_nowait()
        except Empty:
            return
        if isinstance(loaded, BaseException):
            raise loaded
        self.plugins = loaded
        self.metrics.count_faults(loaded.faults)
        self.exporters = ExporterRunner(loaded.exporters, self.read_metrics, faults=loaded.faults)
        self.exporters.start()
        self._join(self.child.lives)
        self.log.info(
            "plugins.loaded",
            observers=[one.item.name for one in loaded.observers],
            exporters=[one.item.name for one in loaded.exporters],
            refused=len(loaded.refused),
        )

    def _heard(self, committed: int) -> None:
        """Storage has said what is durable and committed."""
        self.committed = committed
        if self.observers is None:
            self._start_observers()
        if self.observers is not None:
            self.observers.committed(committed)

    def _start_observers(self) -> None:
        assert self.plugins is not None
        history = self.observed.history()
        if history is None:
            return  # the next word of storage finds it there
        runner = ObserverRunner(
            self.plugins.observers,
            self.observed.read,
            self.config.data_dir / FOLDER,
            faults=self.plugins.faults,
            history=history,
        )
        runner.start(self.committed)
        self.observers = runner

    # -- metrics -------------------------------------------------------------------------------

    def read_metrics(self) -> Sequence[MetricFamily]:
        """The metrics of the whole server, without the processes that do not answer in time.

        For any thread but the main one. Raises TimeoutError if the main loop does not go round.
        """
        wanted = Wanted()
        self._wanted.put(wanted)
        os.eventfd_write(self._wake, 1)
        if not wanted.done.wait(ANSWER_LIMIT_S + SLACK_S):
            raise TimeoutError("the admin process is busy")
        observers = self.observers
        return as_families(
            wanted.dumps, wanted.missing, observers.metrics() if observers is not None else []
        )

    def _take_wanted(self) -> None:
        """Ask all processes once for all who wait."""
        wanted: list[Wanted] = []
        while True:
            try:
                wanted.append(self._wanted.get_nowait())
            except Empty:
                break
        if not wanted:
            return
        others = {n: life for n, life in self.child.lives.items() if n != self.child.name}
        gathering = Gathering(next(self._idents), set(others), wanted)
        self._gathering[gathering.ident] = gathering
        for name, life in others.items():
            reply_to = (self.child.name, self.child.life)
            self._send(name, life, (QUERY, gathering.ident, {"parts": ["metrics"]}, reply_to))
        if not others:
            self._finish(gathering)

    def _replied(self, ident: int, name: str, answer: dict[str, Any]) -> None:
        gathering = self._gathering.get(ident)
        if gathering is None:
            return
        gathering.missing.discard(name)
        gathering.dumps.append(answer.get("metrics", {}))
        if not gathering.missing:
            self._finish(gathering)

    def _finish(self, gathering: Gathering) -> None:
        """Hand over what is there."""
        del self._gathering[gathering.ident]
        if gathering.missing:
            self.log.warning("metrics.missing", processes=sorted(gathering.missing))
        dumps = [self.metrics.dump(), *gathering.dumps]
        for wanted in gathering.wanted:
            wanted.dumps, wanted.missing = dumps, len(gathering.missing)
            wanted.done.set()

    def statistics(self) -> dict[str, Any]:
        """This process's part of the metrics."""
        return {"name": self.child.name, "pid": os.getpid(), "metrics": self.metrics.dump()}


class Wanted:
    """A thread waits for the metrics."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.dumps: list[Dump] = []
        self.missing = 0


class Gathering:
    """One round of questions, for all who had asked when it began."""

    def __init__(self, ident: int, missing: set[str], wanted: list[Wanted]) -> None:
        self.ident = ident
        self.missing = missing
        """Who has not answered yet."""
        self.wanted = wanted
        self.dumps: list[Dump] = []
        self.deadline = time.monotonic() + ANSWER_LIMIT_S


def main(child: Child) -> None:
    """The life of the admin process."""
    os.nice(NICENESS)
    Admin(child).run()
