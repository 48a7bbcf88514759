"""All that the storage process does with files, without the bus.

    tree.zxid (T) <= committed <= durable = end of the log

`append` is one commit and one fsync; what it returned from is on the disk. Everything slower
(folding, flushing, checkpoints, purging) happens in `work`, in slices, and in two threads.

States: before `open_incarnation` nothing is accepted. A full disk rolls the batch back and closes
the incarnation until `open_incarnation` succeeds again, which takes room for the reserve. A failed
write or fsync is the end of this object: it is never tried again, the next process reads what is
there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from zkd import failpoints
from zkd.errors import OperatorError
from zkd.storage import database
from zkd.storage.errors import DiskFull, LogBehind, LogCorrupt, LogFailed, LogFull, TreeDamaged
from zkd.storage.files import Claims, Lock, Reserve
from zkd.storage.generation import GenerationWriter, remove_tree
from zkd.storage.logkeeper import LogKeeper
from zkd.storage.pending import Pending
from zkd.storage.reader import tree_path
from zkd.storage.recovery import (
    EffectsOf,
    Opened,
    Progress,
    explained,
    open_files,
    renew_digest,
    replay,
)
from zkd.storage.settings import StorageSettings
from zkd.storage.statistics import Timing, statistics
from zkd.storage.treewriter import TreeWriter

__all__ = [
    "Engine",
    "LogBehind",
    "LogCorrupt",
    "LogFailed",
    "LogFull",
    "StorageSettings",
    "TreeDamaged",
]

FOLD = 64
"""Transactions folded between two looks at the clock."""

Txn = tuple[Any, ...]


class Engine:
    """The files of one server, locked, open and recovered."""

    def __init__(
        self,
        data_dir: Path,
        log_dir: Path,
        settings: StorageSettings,
        *,
        effects_of: EffectsOf,
        progress: Progress | None = None,
    ) -> None:
        """Lock, open, check and replay. OperatorError (LogBehind, LogCorrupt, TreeDamaged are
        some) if the files are not fit to go on with; see recovery.py."""
        self.settings = settings
        self.data_dir, self.log_dir = Path(data_dir), Path(log_dir)
        self.effects_of = effects_of
        began = time.monotonic()
        with explained(self.data_dir, "check the owner and the rights of the folders"):
            self._locks = self._lock()
        self.reserve = Reserve(self.log_dir, settings.reserve_bytes)
        try:
            with explained(self.log_dir, "`zkd check` names the damaged file"):
                self._open_with_room(progress)
        except BaseException:
            for lock in self._locks:
                lock.release()
            raise
        self.recovery_s = time.monotonic() - began

    def _lock(self) -> list[Lock]:
        locks: list[Lock] = []
        folders = [self.data_dir]
        if self.log_dir.resolve() != self.data_dir.resolve():
            folders.append(self.log_dir)
        try:
            for folder in folders:
                self._folder(folder)
                locks.append(Lock(folder))
        except BaseException:
            for lock in locks:
                lock.release()
            raise
        return locks

    def _folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if not self.settings.create_folders:
            raise OperatorError(
                "this folder is missing, and datadir.autocreate=false forbids to make it",
                str(folder),
                "is the volume mounted? Otherwise create it",
            )
        folder.mkdir(parents=True, exist_ok=True)

    def _open_with_room(self, progress: Progress | None) -> None:
        """Open; if the disk is full, with what the reserve gives."""
        try:
            self._open(progress)
        except DiskFull:
            if not self.reserve.path.exists():
                raise
            self.reserve.release()
            self._open(progress)
        self.full = not self.reserve.make()

    def _open(self, progress: Progress | None) -> None:
        settings = self.settings
        self.accepting = False
        self.full = False
        self.dead = ""
        self.timing = Timing()
        self.replayed = 0
        self._claims = Claims()
        self._unfolded: deque[Sequence[Txn]] = deque()
        self._uncommitted: deque[Txn] = deque()
        opened = open_files(self.data_dir, self.log_dir, settings)
        self.log, self.tree, self.mark = opened.log, opened.tree, opened.mark
        self.created = opened.created
        self.must_synchronise = opened.must_synchronise
        self.notes = opened.notes
        self.given_up = opened.given_up
        self.durable = self.log.end
        self.committed = self.tree.zxid
        self.keeper = LogKeeper(self.log, settings)
        self._pending = Pending(self.log, self.effects_of, self.tree, 0)
        try:
            self._recover(opened, progress)
        except BaseException:
            self._close_files()
            raise

    def _recover(self, opened: Opened, progress: Progress | None) -> None:
        renew_digest(opened.tree, self.settings)
        self._configure(opened.tree)
        if self.settings.commit_on_append:
            self.replayed = replay(opened, self.effects_of, self.settings, progress)
            self.committed = self.durable
        elif not self.must_synchronise:
            self._pending.upto = self.durable
        self._claim()

    def _configure(self, tree: TreeWriter) -> None:
        """A member shows its own configuration, whatever the tree comes from."""
        settings = self.settings
        if settings.configuration:
            now_ms = int(time.time() * 1000)
            text = settings.configuration.encode()
            tree.set_configuration(text, settings.configuration_version, now_ms)

    def _claim(self) -> None:
        """Write the mark from what is durable now."""
        meta, claims = self.log.meta, self._claims
        claims.log_id, claims.cut, claims.incarnation = meta.id, meta.cut, meta.incarnation
        claims.accepted_epoch, claims.current_epoch = meta.accepted_epoch, meta.current_epoch
        claims.generation, claims.tree_synced = meta.generation, self.tree.synced
        claims.zxid = self.durable
        self.mark.write(claims)

    # -- what others ask -----------------------------------------------------------------------

    @property
    def tree_zxid(self) -> int:
        """T: what readers of the tree see after a refresh."""
        return self.tree.zxid

    @property
    def turn(self) -> int:
        """Grows whenever readers of the tree should refresh, also when T is the same."""
        return self.tree.turn

    @property
    def incarnation(self) -> int:
        """The number of the present incarnation; 0 before the first."""
        return self.log.meta.incarnation

    @property
    def generation(self) -> int:
        """The number in the name of the tree's file."""
        return self.log.meta.generation

    @property
    def epochs(self) -> tuple[int, int]:
        """(accepted, current) epoch."""
        return self.log.meta.accepted_epoch, self.log.meta.current_epoch

    # -- the log -------------------------------------------------------------------------------

    def reconfigure(self, settings: StorageSettings) -> None:
        """Take new times and sizes of flushing and purging; the rest waits for the next start."""
        self.settings = self.tree.settings = self.keeper.settings = settings

    def open_incarnation(self) -> int:
        """The next incarnation, committed durably; its number. What was appended is kept, also
        what is not committed yet. LogFull while the disk is full."""
        self._alive()
        if not self.reserve.make() and self.full:
            raise LogFull(f"{self.log_dir}: no room for the reserve of {self.reserve.size} bytes")
        number: int = self._guarded(self.log.open_incarnation)
        self._claim()
        self.accepting = True
        self.full = False
        self.tree.retry()
        return number

    def append(self, txns: Sequence[Txn]) -> int:
        """Commit a batch of Txns, consecutive and not empty; the durable zxid.

        LogFull: nothing of it is in the log, and nothing is accepted until `open_incarnation`.
        LogFailed: this engine is dead."""
        if not self.accepting:
            self._alive()
            raise LogFull(f"{self.log_dir}: refused until the next incarnation")
        began = time.perf_counter()
        try:
            self.log.append([(txn[0], txn[5]) for txn in txns])
            failpoints.hit("log.after-commit")
        except (apsw.Error, OSError) as e:
            raise self._judge(e) from e
        self.timing.add(time.perf_counter() - began, len(txns))
        self.durable = zxid = self._claims.zxid = self.log.end
        try:
            self.mark.write(self._claims)
        except OSError as e:
            raise self._judge(e) from e
        failpoints.hit("log.after-mark")
        self.keeper.rows += len(txns)
        if self.settings.commit_on_append:
            self._unfolded.append(txns)
            self.committed = zxid
        else:
            self._uncommitted.extend(txns)
        return zxid

    def commit(self, zxid: int) -> None:
        """In an ensemble: everything up to `zxid`, which is durable here, is committed."""
        assert zxid <= self.durable, (hex(zxid), hex(self.durable))
        waiting = self._uncommitted
        ready = []
        while waiting and waiting[0][0] <= zxid:
            ready.append(waiting.popleft())
        if ready:
            self._unfolded.append(ready)
        if zxid > self.committed:
            self.committed = zxid

    def truncate(self, zxid: int) -> bool:
        """TRUNC: the log ends at `zxid` from now on, durably. False, and nothing is changed, if
        that is below what is committed here or the log has no such row."""
        if zxid < max(self.committed, self.tree.zxid) or not self.log.has(zxid):
            return False
        self._guarded(lambda: self.log.truncate(zxid))
        failpoints.hit("log.truncated")
        while self._uncommitted and self._uncommitted[-1][0] > zxid:
            self._uncommitted.pop()
        self.durable = self.log.end
        self._pending.upto = min(self._pending.upto, self.durable)
        self.keeper.recount()
        self._claim()
        return True

    def set_epochs(self, accepted: int, current: int) -> None:
        """Both epochs, durably: a promise may be told when this has returned."""
        self._guarded(lambda: self.log.set_epochs(accepted, current))
        self._claim()

    def new_generation(self) -> GenerationWriter:
        """A writer of the next tree beside the present one: SNAP, restore, import."""
        self._alive()
        return GenerationWriter(
            self.data_dir, self.generation + 1, self.log.meta.id, self.settings.tree
        )

    def switch_generation(
        self,
        zxid: int,
        epochs: tuple[int, int] | None = None,
        rows: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        """The tree that `new_generation` finished at `zxid` is the tree from now on: the log is
        `rows`, (zxid, body) above `zxid`, which are not committed yet; what was logged, pending or
        unflushed is gone, (accepted, current) epochs are set, all in one durable transaction.
        Readers open the new file."""
        number = self.generation + 1
        new = TreeWriter(tree_path(self.data_dir, number), self.settings)
        try:
            if (new.id, new.generation, new.zxid) != (self.log.meta.id, number, zxid):
                raise TreeDamaged("not the tree that was announced", str(new.path))
            self._configure(new)
            self._guarded(lambda: self.log.replace(number, zxid, epochs, rows))
        except BaseException:
            new.close()
            raise
        failpoints.hit("generation.switched")
        old, self.tree = self.tree, new
        new.turn = old.turn + 1
        old.close()
        remove_tree(old.path)
        self._unfolded.clear()
        self._uncommitted.clear()
        self.durable, self.committed = self.log.end, zxid
        self._pending.close()
        self._pending = Pending(self.log, self.effects_of, new, self.durable)
        self.keeper.recount()
        self.must_synchronise = ""
        self._claim()
        self.mark.sync()

    # -- errors --------------------------------------------------------------------------------

    def _alive(self) -> None:
        if self.dead:
            raise LogFailed(self.dead)

    def _guarded(self, what: Callable[[], Any]) -> Any:
        """A transaction of the log other than append, with the same judgement of errors."""
        self._alive()
        try:
            return what()
        except (apsw.Error, OSError) as e:
            raise self._judge(e) from e

    def _judge(self, error: Exception) -> LogFull | LogFailed:
        """Full (rolled back; may end) or failed (dead for ever)."""
        self.accepting = False
        if database.is_full(error) and not self.log.db.in_transaction:
            self._became_full()
            return LogFull(f"{self.log_dir}: the disk is full ({error})")
        self.dead = f"{self.log.path}: {type(error).__name__}: {error}"
        return LogFailed(self.dead)

    def _became_full(self) -> None:
        self.accepting = False
        self.full = True
        self.reserve.release()
        self.keeper.became_full()

    # -- work ----------------------------------------------------------------------------------

    def work(self, budget_s: float) -> bool:
        """Slices of folding, flushing, checkpoints and purging for about `budget_s` seconds.
        True if there is more to do at once. LogFailed as for append. Call it at least every
        quarter of a second, also when nothing happens."""
        self._alive()
        deadline = time.monotonic() + budget_s
        try:
            if self._fold(deadline):
                return True
            synced, refusals = self.tree.synced, self.tree.refusals
            more = self.tree.work(deadline)
            if self.tree.synced != synced:
                self._claim()
            if self.tree.refusals != refusals:
                self._became_full()
            self.keeper.checkpoint()
            return more or self.keeper.purge(self.tree.synced)
        except (apsw.Error, OSError) as e:
            judged = self._judge(e)
            if isinstance(judged, LogFull):
                return False
            raise judged from e

    def _fold(self, deadline: float) -> bool:
        """Fold what is committed into the tree's changes."""
        if self._pending.open and self._pending.fold(self.committed, deadline):
            return True
        unfolded = self._unfolded
        while unfolded:
            txns = unfolded.popleft()
            if len(txns) > FOLD:
                unfolded.appendleft(txns[FOLD:])
                txns = txns[:FOLD]
            self.tree.accumulate(txns)
            if time.monotonic() >= deadline:
                return bool(unfolded)
        return False

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Flush everything, checkpoint, close. After a failure: just close."""
        try:
            if not self.dead:
                self._flush_all()
        finally:
            self._close_files()
            for lock in self._locks:
                lock.release()

    def _flush_all(self) -> None:
        self._fold(float("inf"))
        try:
            self.tree.flush()
        except apsw.FullError:
            return  # the log has it all
        self._claim()

    def _close_files(self) -> None:
        self._pending.close()
        self.keeper.close()
        self.tree.close()
        self.log.close()
        self.mark.close()

    def statistics(self) -> dict[str, Any]:
        """Numbers for metrics: see statistics.py."""
        return statistics(self)
