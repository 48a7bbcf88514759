"""Making a server's files out of a snapshot: what `zkd restore` does, the server being stopped.

Two ways. `KEEP_LOG`: the tree is written anew from the snapshot and this server's own log above
it; nothing that the log holds is lost. That the two belong together is shown by the digests in the
log's transactions. `REPLACE`: the server begins anew with the snapshot and an empty log of another
id; all else is given up.

Everything is written and checked beside what is there. Then one rename or one transaction makes it
valid, and what was there before goes into a folder `replaced-...`, never away. A crash before that
moment leaves what was there, or files that no server starts with (a tree without its log).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import apsw

from zkd.errors import OperatorError
from zkd.jute import txn
from zkd.jute.codec import Malformed
from zkd.storage.agreement import MEND_LOG
from zkd.storage.check import Progress, check_tree_file
from zkd.storage.engine import Engine
from zkd.storage.errors import LogCorrupt
from zkd.storage.files import (
    LOCK_NAME,
    MARK_NAME,
    RESERVE_NAME,
    Lock,
    Mark,
    read_mark,
    sync_file,
    sync_folder,
)
from zkd.storage.generation import GenerationWriter, remove_tree
from zkd.storage.log import LOG_NAME, LogWriter
from zkd.storage.reader import TreeReader, tree_path
from zkd.storage.recovery import TREE_FILE, EffectsOf, Opened, explained, replay
from zkd.storage.settings import StorageSettings
from zkd.storage.snapshot import opened, restore_into
from zkd.storage.treewriter import TreeWriter

NEW_LOG = "restore-log.db"
DIGEST_ROWS = 1000
"""So many rows are looked through for one with a digest."""
TOLD_MAX = 5


class Way(Enum):
    """What happens to data that is there already."""

    REFUSE = "refuse"
    KEEP_LOG = "keep-log"
    REPLACE = "replace"


@dataclass(frozen=True)
class Restored:
    """What was done."""

    snapshot_zxid: int
    zxid: int
    """Where the server goes on."""
    nodes: int
    """As `zk_znode_count` says."""
    replayed: int
    """Transactions of the log above the snapshot."""
    moved: tuple[Path, ...]
    """The folders that hold what was there before."""
    refusal: OperatorError | None
    """Why the server would still refuse to start (the log lacks something); None if it starts."""


def restore(
    snapshot: Path,
    data_dir: Path,
    log_dir: Path,
    settings: StorageSettings,
    *,
    effects_of: EffectsOf,
    progress: Progress,
    way: Way = Way.REFUSE,
) -> Restored:
    """See the module's text. OperatorError: nothing was changed."""
    if not snapshot.is_file():
        raise OperatorError("there is no such snapshot", str(snapshot), "see `zkd snapshot`")
    for folder in (data_dir, log_dir):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(data_dir, log_dir), ExitStack() as stack:
        _refuse(data_dir, log_dir, way)
        with explained(snapshot, "use another snapshot, of the format zkd"):
            reader = stack.enter_context(opened(snapshot, data_dir))
        stack.enter_context(_writing(data_dir))
        _check(reader.path, None, settings, progress, f"{snapshot} is not sound")
        job = _Restore(reader, data_dir, log_dir, settings, effects_of, progress)
        replayed = job.onto_log() if way is Way.KEEP_LOG else job.anew()
    moved, zxid = job.moved, reader.zxid
    refusal: OperatorError | None = None
    try:
        engine = Engine(data_dir, log_dir, settings, effects_of=effects_of)
        zxid = engine.durable
        nodes = engine.tree.node_count
        engine.close()
    except OperatorError as e:
        refusal, nodes = e, job.node_count
    for folder in {data_dir, log_dir}:
        give_to_owner(folder)
    return Restored(reader.zxid, zxid, nodes, replayed, tuple(moved), refusal)


@contextmanager
def _locked(data_dir: Path, log_dir: Path) -> Iterator[None]:
    locks = [Lock(data_dir)]
    try:
        if log_dir.resolve() != data_dir.resolve():
            locks.append(Lock(log_dir))
        yield
    finally:
        for lock in locks:
            lock.release()


@contextmanager
def _writing(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except (apsw.Error, OSError, UnicodeDecodeError) as e:
        raise OperatorError(
            f"the restored files could not be written: {e}",
            str(data_dir),
            "is there room on the disk, and may this user write there?",
        ) from e


def _refuse(data_dir: Path, log_dir: Path, way: Way) -> None:
    """OperatorError if there is data, and the operator has not said what to do with it."""
    for folder in (data_dir, log_dir):
        old = folder / "version-2"
        if old.is_dir() and any(old.iterdir()):
            raise OperatorError(
                "this folder holds the data of Apache ZooKeeper", str(old), "name another dataDir"
            )
    there = _files(data_dir) + _files(log_dir)
    if there and way is Way.REFUSE:
        raise OperatorError(
            "there is data of a server already",
            str(there[0]),
            "--keep-log writes the tree anew, from the snapshot and this server's log above it;"
            " --replace gives up what is there (it is moved aside)",
        )


def _files(folder: Path) -> list[Path]:
    """A server's data in a folder, the log's main file first, then what must go with it."""
    log = [folder / (LOG_NAME + suffix) for suffix in ("", "-wal", "-shm")]
    found = [path for path in [*log, folder / MARK_NAME] if path.exists()]
    return found + sorted(path for path in folder.iterdir() if TREE_FILE.match(path.name))


def _check(
    path: Path, tree_id: bytes | None, settings: StorageSettings, progress: Progress, text: str
) -> None:
    found = check_tree_file(path, tree_id, settings.tree, progress)
    if found:
        told = "; ".join(finding.what for finding in found[:TOLD_MAX])
        raise OperatorError(f"{text}: {told}", str(path), "use another snapshot")


class _Restore:
    """The folders are locked, the snapshot is sound."""

    def __init__(
        self,
        reader: TreeReader,
        data_dir: Path,
        log_dir: Path,
        settings: StorageSettings,
        effects_of: EffectsOf,
        progress: Progress,
    ) -> None:
        self.reader = reader
        self.data_dir, self.log_dir = data_dir, log_dir
        self.settings = settings
        self.effects_of = effects_of
        self.progress = progress
        self.moved: list[Path] = []
        self.node_count = reader.node_count

    def _write_tree(self, number: int, tree_id: bytes) -> Path:
        writer = GenerationWriter(self.data_dir, number, tree_id, self.settings.tree)
        try:
            restore_into(writer, self.reader, self.progress)
        except BaseException:
            writer.abandon()
            raise
        return writer.path

    # -- a new log -----------------------------------------------------------------------------

    def anew(self) -> int:
        """REPLACE, or into folders without data."""
        old = [int(match[1]) for p in self.data_dir.iterdir() if (match := TREE_FILE.match(p.name))]
        number = max(old, default=0) + 1
        fresh = self.log_dir / NEW_LOG
        remove_tree(fresh)
        try:
            tree_id = self._write_log(fresh, number)
            path = self._write_tree(number, tree_id)
            _check(path, tree_id, self.settings, self.progress, "what was written is not sound")
            self._put_aside([p for p in self._all_files() if not p.name.startswith(path.name)])
            fresh.rename(self.log_dir / LOG_NAME)
            sync_folder(self.log_dir)
        except BaseException:
            remove_tree(fresh)
            if not self.moved:  # else no server must start here as with nothing
                remove_tree(tree_path(self.data_dir, number))
            raise
        return 0

    def _all_files(self) -> list[Path]:
        return list(dict.fromkeys(_files(self.log_dir) + _files(self.data_dir)))

    def _write_log(self, path: Path, number: int) -> bytes:
        """An empty log that goes on above the snapshot; its id."""
        claims, _ = read_mark(self.log_dir / MARK_NAME)
        epoch = self.reader.zxid >> 32
        epochs = (epoch, epoch)
        if claims is not None:
            epochs = (max(epoch, claims.accepted_epoch), max(epoch, claims.current_epoch))
        log = LogWriter(path, cache_bytes=self.settings.log_cache_bytes)
        try:
            log.replace(number, self.reader.zxid, epochs)
            log.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            log.close()
        sync_file(path)
        return log.meta.id

    # -- the server's own log ------------------------------------------------------------------

    def onto_log(self) -> int:
        """KEEP_LOG; how many transactions were replayed."""
        path = self.log_dir / LOG_NAME
        if not path.exists():
            raise OperatorError("there is no log to keep", str(path), MEND_LOG)
        with explained(path, MEND_LOG):
            log = LogWriter(path, cache_bytes=self.settings.log_cache_bytes)
        try:
            old = log.meta.generation
            self._compare(log)
            replayed = self._replay(log, old + 1)
        finally:
            log.close()
        self._put_aside(self._tree_files(old))
        return replayed

    def _tree_files(self, number: int) -> list[Path]:
        name = tree_path(self.data_dir, number).name
        return [p for p in _files(self.data_dir) if p.name.startswith(name)]

    def _compare(self, log: LogWriter) -> None:
        """OperatorError unless the log goes on from the snapshot, and has its digest there."""
        zxid, where = self.reader.zxid, str(log.path)
        if not log.meta.purged_to <= zxid <= log.end:
            raise OperatorError(
                f"the log has 0x{log.meta.purged_to:x} to 0x{log.end:x}, the snapshot is of"
                f" 0x{zxid:x}: it cannot go on from there",
                where,
                "use a snapshot that lies in the log, or --replace",
            )
        if log.meta.id == self.reader.id:
            return
        digest = _digest_at(log, zxid)
        if digest is None:
            if self.reader.digest and log.end > zxid:
                return  # the tree after the replay will be compared
        elif digest == self.reader.digest:
            return
        raise OperatorError(
            "nothing shows that this snapshot is one of this server's history",
            where,
            "use a snapshot of this server, or --replace",
        )

    def _replay(self, log: LogWriter, number: int) -> int:
        """Write the next tree, bring the log into it, check it, and name it."""
        path = self._write_tree(number, log.meta.id)
        mark = Mark(self.log_dir)
        tree = TreeWriter(path, self.settings)
        try:
            now = Opened(log, tree, mark, created=False)
            total = log.count(tree.zxid)
            try:
                replay(
                    now, self.effects_of, self.settings, lambda n, of: self.progress("log", n, of)
                )
            except (LogCorrupt, apsw.CorruptError):
                pass  # what is good has been replayed; the start will say that more is missing
            tree.flush()
            replayed = total - log.count(tree.zxid)
            self.node_count = tree.node_count
        finally:
            tree.close()
            mark.close()
        try:
            text = "snapshot and log do not go together"
            _check(path, log.meta.id, self.settings, self.progress, text)
        except BaseException:
            remove_tree(path)
            raise
        sync_file(path)
        sync_folder(self.data_dir)
        log.name_tree(number)
        return replayed

    def _put_aside(self, files: list[Path]) -> None:
        """Move files into a new folder beside them, in this order."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for path in files:
            folder = path.parent / f"replaced-{stamp}"
            if folder not in self.moved:
                folder = _make(folder)
                self.moved.append(folder)
            path.rename(folder / path.name)
        for folder in {path.parent for path in files}:
            sync_folder(folder)


def _make(folder: Path) -> Path:
    number = 1
    made = folder
    while made.exists():
        number += 1
        made = folder.with_name(f"{folder.name}-{number}")
    made.mkdir(mode=0o750)
    return made


def _digest_at(log: LogWriter, zxid: int) -> int | None:
    """The tree's digest after transaction `zxid`, by the log; None if the log does not say."""
    rows: list[Any] = log.db.execute(
        "SELECT body FROM txn WHERE zxid <= ? ORDER BY zxid DESC LIMIT ?", (zxid, DIGEST_ROWS)
    ).fetchall()
    for (body,) in rows:
        try:
            digest = txn.decode(body, len(body)).digest
        except Malformed:
            return None
        if digest is not None:
            return digest
    return None


def give_to_owner(folder: Path) -> None:
    """Root has worked in another user's folder: its files are that user's."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    ours = {LOCK_NAME, MARK_NAME, RESERVE_NAME}
    for path in folder.iterdir():
        named = path.name in ours or path.name.startswith((LOG_NAME, "replaced-"))
        if (named or TREE_FILE.match(path.name)) and path.stat().st_uid == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
