"""Commit observers: every committed transaction, in order, at least once, each at its own pace.

    cursor on disk <= handled <= committed

Each observer has a thread, so one that blocks or fails holds up nobody else. A thread sleeps until
`committed` tells it of more, reads a batch from the log, hands it over and moves its cursor. The
cursor is written after a batch once CURSOR_INTERVAL_S have passed, before the thread sleeps, before
it repeats a batch, and at the end: after a crash what was handled since comes again. An exception
from the observer repeats the same batch after a pause that doubles up to BACK_OFF_MAX_S; so does a
log that cannot be read. If the log no longer has what comes next, the observer is told (`on_gap`)
and goes on with what there is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zkd.admin.commits import decode as decode_commit
from zkd.admin.cursors import Cursor, CursorFile
from zkd.admin.families import is_sound
from zkd.plugins.api import Commit, CommitObserver, MetricFamily
from zkd.plugins.guard import Faults, Late, Source, run_limited
from zkd.plugins.loader import Loaded

log = logging.getLogger("zkd.admin.observers")

BATCH_MAX: Final = 1000
CURSOR_INTERVAL_S: Final = 1.0
BACK_OFF_S: Final = 0.1
BACK_OFF_MAX_S: Final = 30.0
METRICS_LIMIT_S: Final = 0.5
METRICS_PAUSE_S: Final = 10.0
"""An observer whose metrics are late is not asked for them again before this."""

ReadLog = Callable[[int, int], list[tuple[int, bytes]]]
"""(after_zxid, limit) -> rows (zxid, body), the oldest first; raises LogPurged. After any other
exception it is asked again later."""

Decode = Callable[[int, bytes], Commit]


class LogPurged(Exception):
    """Rows after the zxid asked for are gone: all up to `upto` are."""

    def __init__(self, upto: int) -> None:
        super().__init__(f"the log was purged up to {upto:#x}")
        self.upto = upto


@dataclass(frozen=True, slots=True)
class ObserverStatistics:
    """`zxid`: handled up to there. `retries`: batches that were handed over again.
    `waiting_s`: how long the present call of the plugin has lasted, 0 if there is none."""

    name: str
    plugin: str
    zxid: int
    handled: int
    retries: int
    gaps: int
    waiting_s: float


class ObserverRunner:
    """Runs all observers. `read_log` is called by one thread at a time.

    `history` names the server's history (it changes with a restore): a cursor of another history
    is not used. `clock`: monotonic seconds. All methods are for the thread of the owner.
    """

    def __init__(
        self,
        observers: Sequence[Loaded[CommitObserver]],
        read_log: ReadLog,
        cursor_dir: Path,
        clock: Callable[[], float] = time.monotonic,
        *,
        decode: Decode = decode_commit,
        faults: Faults | None = None,
        history: str = "",
        batch_max: int = BATCH_MAX,
        back_off_s: float = BACK_OFF_S,
    ) -> None:
        self._faults = faults if faults is not None else Faults()
        self._log_lock = threading.Lock()
        self._tasks: list[_Task] = []
        cursor_dir.mkdir(parents=True, exist_ok=True)
        shared = _Shared(
            read_log, self._log_lock, decode, clock, self._faults, history, batch_max, back_off_s
        )
        for loaded in observers:
            if any(task.name == loaded.item.name for task in self._tasks):
                self._faults.report(
                    loaded.source, "hook", f"is not used: observer {loaded.item.name} exists"
                )
                continue
            self._tasks.append(_Task(loaded, shared, CursorFile(cursor_dir, loaded.item.name)))

    def start(self, committed_zxid: int) -> None:
        """Start the threads. Without a cursor an observer begins after `committed_zxid`."""
        for task in self._tasks:
            task.start(committed_zxid)

    def committed(self, zxid: int) -> None:
        """Everything up to `zxid` is committed and can be read from the log."""
        for task in self._tasks:
            task.committed(zxid)

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the threads; an observer that does not return in time is left behind and logged."""
        for task in self._tasks:
            task.ask_to_stop()
        deadline = time.monotonic() + timeout_s
        for task in self._tasks:
            task.join(max(0.0, deadline - time.monotonic()))

    def statistics(self) -> list[ObserverStatistics]:
        return [task.statistics() for task in self._tasks]

    def metrics(self) -> list[MetricFamily]:
        """The families of all observers; what cannot be shown (families.py) is dropped. For any
        one thread at a time."""
        found: list[MetricFamily] = []
        for task in self._tasks:
            found += task.metrics()
        return found


@dataclass(frozen=True, slots=True)
class _Shared:
    read_log: ReadLog
    log_lock: threading.Lock
    decode: Decode
    clock: Callable[[], float]
    faults: Faults
    history: str
    batch_max: int
    back_off_s: float


class _Task:
    """One observer and its thread."""

    def __init__(self, loaded: Loaded[CommitObserver], shared: _Shared, file: CursorFile) -> None:
        self._observer = loaded.item
        self._source: Source = loaded.source
        self.name = loaded.item.name
        self._shared = shared
        self._file = file
        self._wake = threading.Condition()
        self._committed = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._zxid = 0
        self._saved: Cursor | None = None
        self._saved_at = 0.0
        self._called_at: float | None = None
        self._metrics_at = 0.0
        self.handled = 0
        self.retries = 0
        self.gaps = 0

    def start(self, committed: int) -> None:
        self._committed = committed
        self._thread = threading.Thread(
            target=self._run, args=(committed,), name=f"observer {self.name}", daemon=True
        )
        self._thread.start()

    def committed(self, zxid: int) -> None:
        with self._wake:
            if zxid > self._committed:
                self._committed = zxid
                self._wake.notify()

    def ask_to_stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def join(self, timeout_s: float) -> None:
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._shared.faults.report(
                self._source, "late", f"observer {self.name} did not end; it is left behind"
            )

    def statistics(self) -> ObserverStatistics:
        called_at = self._called_at
        waiting = 0.0 if called_at is None else self._shared.clock() - called_at
        return ObserverStatistics(
            self.name,
            str(self._source),
            self._zxid,
            self.handled,
            self.retries,
            self.gaps,
            waiting,
        )

    def metrics(self) -> list[MetricFamily]:
        clock = self._shared.clock
        if clock() < self._metrics_at:
            return []
        try:
            families = run_limited(
                self.name, lambda: list(self._observer.metrics()), METRICS_LIMIT_S
            )
        except Late as late:
            self._metrics_at = clock() + METRICS_PAUSE_S
            self._shared.faults.report(self._source, "late", f"{late} in metrics")
            return []
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
            self._shared.faults.report(self._source, "raised", "raised in metrics", error)
            return []
        good = [family for family in families if is_sound(family)]
        if len(good) < len(families):
            self._shared.faults.report(
                self._source, "rubbish", "gave something else than families called zkd_*"
            )
        return good

    # --- in the thread ---

    def _run(self, committed: int) -> None:
        self._begin(committed)
        pause = self._shared.back_off_s
        while self._await_more():
            try:
                self._step()
                pause = self._shared.back_off_s
            except Exception as error:  # noqa: BLE001  the thread's main loop
                self._report("log", "cannot read the log", error)
                self._pause(pause)
                pause = min(pause * 2, BACK_OFF_MAX_S)
        self._save()
        self._call("close", self._observer.close)

    def _report(self, what: str, text: str, error: BaseException) -> None:
        self._shared.faults.report(self._source, what, f"observer {self.name}: {text}", error)

    def _begin(self, committed: int) -> None:
        cursor = None
        try:
            cursor = self._file.load()
        except (ValueError, OSError) as error:
            self._report("cursor", "begins anew, its cursor cannot be read", error)
        fresh = 0 if self._from_oldest() else committed
        if cursor is None:
            self._zxid = fresh
        elif cursor.history != self._shared.history:
            self._zxid = fresh
            self._gap(cursor.zxid, fresh, "the server's history was replaced")
        else:
            self._zxid = cursor.zxid
        self._saved = cursor
        self._save()

    def _from_oldest(self) -> bool:
        try:
            return bool(self._observer.from_oldest)
        except Exception as error:  # noqa: BLE001  a plugin's property
            self._report("raised", "raised in from_oldest", error)
            return False

    def _await_more(self) -> bool:
        """True if there is a transaction to hand over, False to stop. Saves an idle cursor."""
        with self._wake:
            if self._stopping:
                return False
            if self._committed > self._zxid:
                return True
        self._save()
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._committed > self._zxid)
            return not self._stopping

    def _step(self) -> None:
        upto = self._committed
        try:
            with self._shared.log_lock:
                rows = self._shared.read_log(self._zxid, self._shared.batch_max)
        except LogPurged as purged:
            self._gap(self._zxid, purged.upto, "the log was purged")
            self._zxid = max(self._zxid, purged.upto)
            return
        rows = [row for row in rows if self._zxid < row[0] <= upto]
        if not rows:
            self._pause(self._shared.back_off_s)
            return
        batch = [self._shared.decode(zxid, body) for zxid, body in rows]
        if self._hand_over(batch):
            self._zxid = batch[-1].zxid
            self.handled += len(batch)
            if self._shared.clock() - self._saved_at >= CURSOR_INTERVAL_S:
                self._save()

    def _hand_over(self, batch: list[Commit]) -> bool:
        """Until the observer has taken the batch; False if told to stop before."""
        pause = self._shared.back_off_s
        while not self._call("on_commit", lambda: self._observer.on_commit(tuple(batch))):
            self.retries += 1
            self._save()
            if not self._pause(pause):
                return False
            pause = min(pause * 2, BACK_OFF_MAX_S)
        return True

    def _gap(self, after: int, upto: int, reason: str) -> None:
        self.gaps += 1
        log.error(
            "observer %s misses what follows %#x up to %#x: %s", self.name, after, upto, reason
        )
        self._call("on_gap", lambda: self._observer.on_gap(after, upto, reason))

    def _call(self, what: str, call: Callable[[], None]) -> bool:
        self._called_at = self._shared.clock()
        try:
            call()
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
            self._shared.faults.report(self._source, "raised", f"raised in {what}", error)
            return False
        finally:
            self._called_at = None
        return True

    def _pause(self, seconds: float) -> bool:
        """False if told to stop meanwhile."""
        with self._wake:
            return not self._wake.wait_for(lambda: self._stopping, seconds)

    def _save(self) -> None:
        cursor = Cursor(self._zxid, self._shared.history)
        if cursor != self._saved:
            try:
                self._file.save(cursor)
                self._saved = cursor
            except OSError as error:
                self._report("cursor", "cannot keep its cursor", error)
        self._saved_at = self._shared.clock()
