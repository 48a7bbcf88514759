"""Looking after log.db: its WAL is brought into the main file, its old rows are removed.

A WAL begins again at its start when all of it is in the main file. Most of a checkpoint runs in a
thread beside the appends; what they have added meanwhile, at most TAIL_FRAMES, is done between
two appends, so that the next append finds the WAL empty.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import apsw

from zkd import failpoints
from zkd.storage import database
from zkd.storage.log import ALL_ZXIDS, LogWriter
from zkd.storage.settings import StorageSettings

PURGE_ROWS = 256
"""Log rows removed in one transaction."""
PURGE_SLACK = 64
"""The log is purged when it is longer than allowed by 1/PURGE_SLACK."""
TAIL_FRAMES = 256
"""So many frames the log's own connection may checkpoint inside a slice."""
RETRY_S = 1.0
"""After a full disk, before the next checkpoint."""


class LogKeeper:
    """Owns the checkpoints and the purge of one log. Errors of SQLite go through."""

    def __init__(self, log: LogWriter, settings: StorageSettings) -> None:
        self.log = log
        self.settings = settings
        self.rows = log.count(ALL_ZXIDS)
        """Rows in the log; the engine adds what it appends."""
        self.checkpoints = 0
        """How often the WAL became free to begin again."""
        self._allowed = settings.log_retain
        self._purging = False
        self._at = self._next = settings.log_wal_bytes // 4096
        self._retry_at = 0.0
        self._job: Future[tuple[int, int]] | None = None
        self._connection: apsw.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log")

    def recount(self) -> None:
        """Rows were removed by somebody else."""
        self.rows = self.log.count(ALL_ZXIDS)

    def became_full(self) -> None:
        """The disk is full: a checkpoint soon, what it frees may help."""
        self._next = 0
        self._retry_at = time.monotonic() + RETRY_S

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is running."""
        return self._job is not None

    def checkpoint(self) -> None:
        """Begin a checkpoint, or end one."""
        frames = self.log.wal_frames
        if self._job is not None:
            if not self._job.done():
                return
            job, self._job = self._job, None
            _, done = job.result()
            if frames - done <= TAIL_FRAMES:
                total, done = database.checkpoint(self.log.db)
                if total == done:
                    self.log.wal_frames = 0
                    self.checkpoints += 1
                    self._next = self._at
                    self._weigh()
                    return
            self._next = frames + self._at // 8
        elif frames and frames >= self._next and time.monotonic() >= self._retry_at:
            self._job = self._thread.submit(self._in_thread)

    def _in_thread(self) -> tuple[int, int]:
        failpoints.hit("log.checkpoint")
        if self._connection is None:
            self._connection = database.open_writer(
                self.log.path, synchronous="FULL", cache_bytes=0, vfs=self.settings.vfs
            )
        return database.checkpoint(self._connection)

    def _weigh(self) -> None:
        """How many rows the log may keep, by number and by bytes."""
        settings = self.settings
        used = self.log.used_bytes()
        allowed = settings.log_retain
        if used > settings.log_retain_bytes:
            allowed = min(allowed, self.rows * settings.log_retain_bytes // used)
        self._allowed = allowed

    def purge(self, upto: int) -> bool:
        """One slice of old rows, none above `upto`. True if there is more."""
        if not self.settings.purge:
            return False
        surplus = self.rows - self._allowed
        if surplus <= (0 if self._purging else self._allowed // PURGE_SLACK):
            self._purging = False
            return False
        gone = self.log.purge(upto, min(PURGE_ROWS, surplus))
        self.rows -= gone
        self._purging = gone > 0
        return self._purging

    def close(self) -> None:
        """Wait for the thread and close its connection."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()
