"""The fence around a plugin's code: time limits, counts, and a log that cannot be flooded.

Nothing that a plugin does comes out of here as an exception. A call that does not end is left
behind in a daemon thread and asked to stop (an exception is raised inside it, which reaches
Python code between two byte codes and never code that waits in C). Code that holds the
interpreter's lock for ever is beyond any fence within a process: the supervisor's deadline ends it.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger("zkd.plugins")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plugin comes from. `shipped`: it is part of zkd's own distribution."""

    plugin: str
    distribution: str
    version: str
    shipped: bool = False

    def __str__(self) -> str:
        return f"plugin {self.plugin} ({self.distribution} {self.version})"


def described(error: BaseException) -> str:
    """Type and text of an exception, also of one whose text cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  a plugin's __str__
        return type(error).__name__


class Late(Exception):
    """A plugin's call did not end within its limit; of no interest to the plugin."""


class _Stop(BaseException):
    """Raised inside a thread whose call has been given up."""


class Faults:
    """Counts what plugins did wrong, and logs the 1st, 2nd, 4th, 8th, ... of each kind.

    `counts`: (plugin, what) -> times. `what` is a word: import, hook, raised, late, off, rubbish,
    dropped, cursor, log. Any thread.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._add: Callable[[str, int], None] | None = None

    def feed(self, add: Callable[[str, int], None]) -> None:
        """Call `add(plugin, n)` for every fault, also for those so far: a metric by plugin."""
        with self._lock:
            self._add = add
            for (plugin, _), n in self.counts.items():
                add(plugin, n)

    def report(
        self, source: Source, what: str, text: str, error: BaseException | None = None
    ) -> None:
        with self._lock:
            key = (source.plugin, what)
            n = self.counts.get(key, 0) + 1
            self.counts[key] = n
            if self._add is not None:
                self._add(source.plugin, 1)
        if n & (n - 1):
            return
        detail = f": {described(error)}" if error is not None else ""
        times = f" ({n} times)" if n > 1 else ""
        log.error("%s %s%s%s", source, text, detail, times, exc_info=error if n == 1 else None)


@dataclass(slots=True)
class _Job(Generic[T]):
    call: Callable[[], T]
    done: threading.Event
    value: T | None = None
    error: BaseException | None = None


class Limited:
    """Runs calls one after the other in a helper thread, each with a time limit.

    For one calling thread at a time. Costs two thread switches a call (20 to 60 us). After a late
    call the helper is given up and the next call gets a new one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job[object] | None] | None = None
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], T], limit_s: float) -> T:
        """What `call` returns or raises; Late."""
        if self._jobs is None:
            self._start()
        assert self._jobs is not None
        job: _Job[T] = _Job(call, threading.Event())
        self._jobs.put(job)  # type: ignore[arg-type]
        if not job.done.wait(limit_s):
            self._give_up()
            raise Late(f"did not end within {limit_s:g} s")
        if job.error is not None:
            raise job.error
        return job.value  # type: ignore[return-value]

    def close(self) -> None:
        """End the helper thread once it is idle; a later `run` would start another."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = self._thread = None

    def _start(self) -> None:
        self._jobs = SimpleQueue()
        self._thread = threading.Thread(
            target=_serve, args=(self._jobs,), name=f"plugin {self._name}", daemon=True
        )
        self._thread.start()

    def _give_up(self) -> None:
        thread, jobs = self._thread, self._jobs
        self._thread = self._jobs = None
        if jobs is not None:
            jobs.put(None)
        if thread is not None and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(_Stop)
            )


def _serve(jobs: SimpleQueue[_Job[object] | None]) -> None:
    try:
        while (job := jobs.get()) is not None:
            try:
                job.value = job.call()
            except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
                job.error = error
            job.done.set()
            del job
    except _Stop:
        return


def run_limited(name: str, call: Callable[[], T], limit_s: float) -> T:
    """`call()` in a helper thread: its result or exception; Late after `limit_s`."""
    limited = Limited(name)
    try:
        return limited.run(call, limit_s)
    finally:
        limited.close()
