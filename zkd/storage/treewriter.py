"""The only writer of tree-N.db: takes in committed transactions, writes their net effect later.

    zxid (T, on disk and visible) <= last zxid taken in        synced <= zxid

One flush is one SQLite transaction, written in slices between log batches; its last statement
writes T, so readers see the tree at one zxid at every moment. What comes in meanwhile is gathered
for the next flush. COMMIT, sync and checkpoint run in a thread, because they may take longer than
a slice; nothing else touches the connection meanwhile.

A WAL can be started again from its beginning only when all of it is in the main file and no
reader uses it. So: commit, `turn` moves (readers refresh), a moment later a checkpoint, `turn`
moves again (readers refresh, from the main file now), and the next flush reuses the file. Whoever
holds a reader refreshes it at every new `turn`.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import Any

import apsw

from zkd import failpoints
from zkd.storage import database
from zkd.storage.changes import Changes
from zkd.storage.counters import TopCounters
from zkd.storage.noderows import NodeRows
from zkd.storage.schema import (
    PUT_NODE,
    PUT_SESSION,
    TreeMeta,
    node_row,
    put_tree_meta,
    read_meta,
    session_row,
    signed,
    split,
)
from zkd.storage.settings import StorageSettings
from zkd.tree import ephemeral
from zkd.tree.effects import Effect
from zkd.tree.paths import CONFIG as CONFIG_PATH

CHUNK = 24
"""Nodes written between two looks at the clock."""
TRASH = 1000
"""Entries freed between two looks at the clock."""
RUN = 500
"""Paths sorted at once."""
READERS_S = 0.2
"""How long readers get to refresh before a checkpoint."""
RETRY_S = 1.0
"""After a full disk."""

PUT_OWNER = "INSERT OR REPLACE INTO ephemeral VALUES(?, ?)"
DELETE_OWNER = "DELETE FROM ephemeral WHERE owner = ? AND path = ?"
PUT_SPECIAL = "INSERT OR REPLACE INTO special(owner, path) VALUES(?, ?)"
DELETE_SPECIAL = "DELETE FROM special WHERE owner = ? AND path = ?"
REPLACE_SESSION = PUT_SESSION.replace("INSERT", "INSERT OR REPLACE")
REPLACE_NODE = PUT_NODE.replace("INSERT", "INSERT OR REPLACE")
CONFIG_ROW = "SELECT data, stat, acl FROM node WHERE parent = ? AND name = ?"
CONFIG_STAT = Struct(">8sq8sqi16si12s")
DELETE_SESSION = "DELETE FROM session WHERE id = ?"


class TreeWriter:
    """Writes one generation of the tree. Times are `time.monotonic()`."""

    def __init__(self, path: Path, settings: StorageSettings) -> None:
        self.path = path
        self.settings = settings
        database.settle_wal(path)
        self.db = database.open_writer(
            path,
            synchronous="NORMAL",
            cache_bytes=settings.tree_cache_bytes,
            vfs=settings.vfs,
        )
        self.wal_frames = 0
        self.db.set_wal_hook(self._wal_hook)
        self._checkpointer: apsw.Connection | None = None
        meta = TreeMeta.read(self.db, path)
        self.id = meta.id
        self.generation = meta.generation
        self.zxid = meta.zxid
        self.digest = meta.digest
        self.node_count = meta.node_count
        self.data_bytes = meta.data_bytes
        self.synced = self.zxid
        """The zxid that the disk holds whatever happens: log rows up to it may go."""
        self.turn = 0
        """Grows whenever readers should refresh."""
        self.taken = self.zxid
        """The last zxid taken in."""
        self.full = False
        """The last flush ended on a full disk; it is tried again."""
        self.refusals = 0
        """How often the disk was full."""
        self.flushes = self.checkpoints = 0
        self.flush_s = 0.0
        self._new = Changes()
        self._since = 0.0
        self._old: Changes | None = None
        self._began = 0.0
        self._steps: Iterator[None] | None = None
        self.counters = TopCounters(read_meta(self.db).get("counters"))
        self._rows = NodeRows(self.db, self.counters)
        self._trash: dict[str, Effect] = {}
        """What was written and is not freed yet: freeing many objects takes long too."""
        self._counts = (self.node_count, self.data_bytes, self.digest)
        self._job: Future[Any] | None = None
        self._after: Callable[[Any], None] = _nothing
        self._retry_at = 0.0
        self._checkpoint_at = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tree")

    def _wal_hook(self, db: apsw.Connection, name: str, frames: int) -> int:
        self.wal_frames = frames
        return apsw.SQLITE_OK

    # -- taking in -----------------------------------------------------------------------------

    def accumulate(self, txns: Iterable[tuple[Any, ...]]) -> None:
        """Take in committed, durable Txns, in order and each once."""
        new = self._new
        if not new.txns:
            self._since = time.monotonic()
        new.fold(txns)
        if new.txns:
            self.taken = new.zxid

    def set_digest(self, digest: int) -> None:
        """Write the digest of the tree at T anew (nothing has been taken in yet)."""
        with self.db:
            put_tree_meta(self.db, {"digest": signed(digest)})
        self.digest = digest

    def set_configuration(self, text: bytes, version: int, time_ms: int) -> None:
        """Write the data of /zookeeper/config, unless it is there (nothing has been taken in yet).

        Each server of an ensemble sets it for itself, outside all transactions; no digest covers
        it. The stat is Apache ZooKeeper's: version -1, mzxid the configuration's version."""
        row: Any = self.db.execute(CONFIG_ROW, split(CONFIG_PATH)).fetchone()
        if row is None or row[0] == text:
            return
        old, raw, acl = row
        head, tail = (raw, version, raw[16:24], time_ms), (-1, raw[36:52], len(text), raw[56:])
        raw = CONFIG_STAT.pack(*head, *tail)
        size = self.data_bytes + len(text) - len(old or b"")
        with self.db:
            self.db.execute(REPLACE_NODE, node_row(CONFIG_PATH, text, raw, acl))
            put_tree_meta(self.db, {"data_bytes": size})
        self.data_bytes = size
        self._counts = (self.node_count, size, self.digest)

    @property
    def pinned_bytes(self) -> int:
        """Memory of what is not on disk yet."""
        return self._new.bytes + (self._old.bytes if self._old is not None else 0)

    @property
    def pinned_txns(self) -> int:
        """Transactions that are not on disk yet."""
        return self._new.txns + (self._old.txns if self._old is not None else 0)

    @property
    def busy(self) -> bool:
        """Whether something is running in the thread."""
        return self._job is not None

    def _due(self, now: float) -> bool:
        new = self._new
        if not new.txns or now < self._retry_at:
            return False
        settings = self.settings
        return (
            now - self._since >= settings.flush_interval_s
            or len(new.nodes) >= settings.flush_count
            or new.bytes >= settings.flush_bytes
        )

    # -- work ----------------------------------------------------------------------------------

    def work(self, deadline: float) -> bool:
        """Slices until `deadline`. True if there is more for the caller to do at once; False if
        nothing is due, or a thread is at it. apsw errors other than a full disk go through."""
        self._collect()
        while self._trash:
            for _ in range(min(TRASH, len(self._trash))):
                self._trash.popitem()
            if time.monotonic() >= deadline:
                return True
        now = time.monotonic()
        if self._job is not None:
            return False
        if self._old is None:
            if self._checkpoint_at and now >= self._checkpoint_at:
                self._checkpoint_at = 0.0
                self._run(self._checkpoint, self._checkpointed)
                return False
            if not self._due(now):
                return self._look(deadline)
            self._old, self._new = self._new, Changes()
            self._since = now
        elif now < self._retry_at:
            return False
        return self._slices(deadline)

    def _look(self, deadline: float) -> bool:
        """Nothing else to do: go on with the scan for the highest counters, if one is due."""
        while self.counters.scanning:
            self.counters.scan(self.db)
            if time.monotonic() >= deadline:
                return self.counters.scanning
        return False

    @property
    def unflushed_s(self) -> float:
        """Age of the oldest change that is not on disk, in seconds."""
        if not self.pinned_txns:
            return 0.0
        return time.monotonic() - (self._began if self._old is not None else self._since)

    def _slices(self, deadline: float) -> bool:
        assert self._old is not None
        try:
            if self._steps is None:
                self._began = time.monotonic()
                self._steps = self._write(self._old)
            for _ in self._steps:
                if time.monotonic() >= deadline:
                    return True
        except (apsw.Error, OSError) as e:
            self._give_up(e)
            return False
        self._run(self._commit, self._committed)
        return False

    def flush(self) -> None:
        """Write everything that was taken in, now. Errors go through."""
        self._wait()
        while self._old is not None or self._new.txns:
            self._retry_at = 0.0
            if self._old is None:
                self._old, self._new = self._new, Changes()
            self._slices(float("inf"))
            self._wait()
            if self.full:
                raise apsw.FullError(f"{self.path}: the disk is full")

    def retry(self) -> None:
        """There is room again: do not wait longer."""
        self._retry_at = 0.0

    def _wait(self) -> None:
        while self._job is not None:
            self._job.exception()
            self._collect()

    def _run(self, job: Callable[[], Any], after: Callable[[Any], None]) -> None:
        self._after = after
        self._job = self._thread.submit(job)

    def _collect(self) -> None:
        """Take what the thread has finished."""
        job = self._job
        if job is None or not job.done():
            return
        self._job = None
        try:
            result = job.result()
        except (apsw.Error, OSError) as e:
            self._give_up(e)
            return
        self._after(result)

    def _give_up(self, error: apsw.Error | OSError) -> None:
        """Roll back; a full disk is waited for, anything else is the end."""
        self._steps = None
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        if not database.is_full(error):
            raise error
        self.full = True
        self.refusals += 1
        self._retry_at = time.monotonic() + RETRY_S

    # -- one flush -----------------------------------------------------------------------------

    def _write(self, changes: Changes) -> Iterator[None]:
        """Everything of one flush but its COMMIT; yields where it may be interrupted."""
        self._counts = (self.node_count, self.data_bytes, self.digest)
        rows = self._rows
        rows.count, rows.size = self.node_count, self.data_bytes
        self.db.execute("BEGIN IMMEDIATE")
        nodes = changes.nodes
        paths = iter(nodes)
        runs = []
        while run := sorted(islice(paths, RUN)):
            runs.append(run)
            yield
        ordered = heapq.merge(*runs) if len(runs) > 1 else iter(runs[0] if runs else ())
        while chunk := [nodes[path] for path in islice(ordered, CHUNK)]:
            failpoints.hit("tree.slice")
            rows.write(chunk, self.zxid)
            yield
        owners = iter(changes.owners.items())
        while some := list(islice(owners, CHUNK)):
            self._write_owners(some)
            yield
        sessions = iter(changes.sessions.items())
        while ids := list(islice(sessions, CHUNK)):
            many = self.db.executemany
            many(REPLACE_SESSION, [session_row(i, t) for i, t in ids if t is not None])
            many(DELETE_SESSION, [(i,) for i, timeout in ids if timeout is None])
            yield
        self._write_meta(changes)
        failpoints.hit("tree.before-commit")

    def _write_owners(self, some: list[tuple[tuple[int, str], bool]]) -> None:
        execute = self.db.execute
        for key, there in some:
            if ephemeral.kind(key[0], self.settings.tree) == ephemeral.NORMAL:
                execute(PUT_OWNER if there else DELETE_OWNER, key)
            else:
                execute(PUT_SPECIAL if there else DELETE_SPECIAL, key)

    def _write_meta(self, changes: Changes) -> None:
        count, size, digest = self._rows.count, self._rows.size, self.digest
        known = changes.digest()
        if known is not None:
            digest = known
        self._counts = (count, size, digest)
        values: dict[str, int | bytes | str] = {
            "zxid": changes.zxid,
            "digest": signed(digest),
            "node_count": count,
            "data_bytes": size,
        }
        counters = self.counters.store()
        if counters is not None:
            values["counters"] = counters
        put_tree_meta(self.db, values)

    # -- in the thread -------------------------------------------------------------------------

    def _commit(self) -> None:
        self.db.execute("COMMIT")
        failpoints.hit("tree.after-commit")

    def _committed(self, _: object) -> None:
        assert self._old is not None
        self.zxid = self._old.zxid
        self.node_count, self.data_bytes, self.digest = self._counts
        self._trash = self._old.nodes
        self._old = None
        self._steps = None
        self.full = False
        self.flushes += 1
        self.flush_s = time.monotonic() - self._began
        self.turn += 1
        zxid = self.zxid
        self._run(lambda: self._sync(zxid), self._synced)

    def _sync(self, zxid: int) -> int:
        database.sync_wal(self.path)
        failpoints.hit("tree.after-sync")
        return zxid

    def _synced(self, zxid: int) -> None:
        self.synced = zxid
        if self.wal_frames * 4096 >= self.settings.tree_wal_bytes and not self._checkpoint_at:
            self._checkpoint_at = time.monotonic() + READERS_S

    def _checkpoint(self) -> tuple[int, int]:
        failpoints.hit("tree.checkpoint")
        if self._checkpointer is None:
            self._checkpointer = database.open_writer(
                self.path, synchronous="NORMAL", cache_bytes=0, vfs=self.settings.vfs
            )
        return database.checkpoint(self._checkpointer)

    def _checkpointed(self, result: tuple[int, int]) -> None:
        frames, done = result
        if frames == done:
            self.turn += 1
            self.checkpoints += 1
        else:
            self._checkpoint_at = time.monotonic() + 1.0

    def close(self) -> None:
        """Close the file; what was not flushed is dropped (the log has it)."""
        self._thread.shutdown()
        self._collect_quietly()
        if self._checkpointer is not None:
            self._checkpointer.close()
        self.db.close()

    def _collect_quietly(self) -> None:
        self._job = None
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")


def _nothing(_: object) -> None:
    return None
