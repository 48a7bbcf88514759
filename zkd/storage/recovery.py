"""From the files of one server to an open log and tree, or to a refusal that says why.

What must fit together is in agreement.py.

log.db is the root: it names the tree's generation. A first start makes log.db (generation 0), then
the tree, then names it: a crash between leaves nothing that could be taken for data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from zkd import failpoints
from zkd.errors import OperatorError
from zkd.storage import database, schema
from zkd.storage.agreement import GO_ON, MEND_LOG, MEND_TREE, missing, tree_fault
from zkd.storage.check import tree_digest
from zkd.storage.errors import DiskFull, LogBehind, LogCorrupt, TreeDamaged
from zkd.storage.files import MARK_NAME, Mark, sync_folder
from zkd.storage.log import LOG_NAME, LogWriter
from zkd.storage.reader import TreeReader, tree_path
from zkd.storage.settings import StorageSettings
from zkd.storage.treewriter import TreeWriter
from zkd.tree.effects import Effect

EffectsOf = Callable[[TreeReader], Callable[[bytes], list[Effect]]]
"""Given the tree at T, returns what computes the effects of each transaction above T, in order."""
Progress = Callable[[int, int], None]
"""Called with (transactions replayed, transactions to replay), at most every PROGRESS_ROWS."""

REPLAY_ROWS = 10_000
"""Rows replayed between two flushes: bounds memory."""
PROGRESS_ROWS = 256
FORGET_ROWS = 1000
GIVEN_UP_ROWS = 1000
"""So many rows that are given up are told."""
TREE_FILE = re.compile(r"tree-(\d+)\.db(-wal|-shm)?$")


@dataclass(frozen=True)
class GivenUp:
    """What the operator's word (`accept_log_end`) has cost."""

    reason: str
    end: int
    """The log goes on above this zxid."""
    promised: int
    """The last zxid that was in the log or said to be durable; if it is not above `end`, no
    transaction is lost."""
    rows: tuple[tuple[int, bytes], ...]
    """(zxid, body) of those above `end` that could still be read, the first GIVEN_UP_ROWS."""
    forgotten: int = 0
    """The log's rows up to here are gone, one of them was damaged; the tree holds what they did."""


@dataclass
class Opened:
    """Open files after the checks, before replay."""

    log: LogWriter
    tree: TreeWriter
    mark: Mark
    created: bool
    must_synchronise: str = ""
    """Why this server may not vote before it is synchronised; empty if it may."""
    notes: list[str] = field(default_factory=list)
    """What the operator should know about these files."""
    given_up: GivenUp | None = None


@contextmanager
def explained(path: Path, mend: str) -> Iterator[None]:
    """SQLite's refusal to read a file, as an error for the operator."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError) as e:
        raise TreeDamaged(f"the file is damaged: {e}", str(path), mend) from e
    except (apsw.FullError, apsw.IOError, OSError) as e:
        if database.is_full(e):
            raise DiskFull(str(path)) from e
        raise OperatorError(f"cannot be opened: {e}", str(path), "check disk and rights") from e
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as e:
        raise OperatorError(
            f"cannot be opened: {e}", str(path), "check the owner and the rights of the folder"
        ) from e


def open_files(data_dir: Path, log_dir: Path, settings: StorageSettings) -> Opened:
    """Open (or make) the files of a server whose folders are locked by the caller."""
    log_path = log_dir / LOG_NAME
    created = not log_path.exists()
    if created:
        _refuse_strangers(data_dir, log_dir, settings)
    mark: Mark | None = None
    log: LogWriter | None = None
    tree: TreeWriter | None = None
    try:
        with explained(log_path, MEND_LOG):
            log = LogWriter(
                log_path,
                cache_bytes=settings.log_cache_bytes,
                vfs=settings.vfs,
                force_sync=settings.force_sync,
            )
            mark = Mark(log_dir)
            if log.meta.generation == 0:
                created = True
                _first_tree(log, data_dir, settings)
                sync_folder(log_dir)
            tree = _open_tree(log, data_dir, settings)
            opened = Opened(log, tree, mark, created)
            if not created:
                _check(opened, settings)
            database.extend_wal(log_path, settings.log_wal_bytes)
        _remove_other_generations(data_dir, log.meta.generation)
    except BaseException:
        for it in (tree, log, mark):
            if it is not None:
                it.close()
        raise
    return opened


def _refuse_strangers(data_dir: Path, log_dir: Path, settings: StorageSettings) -> None:
    """No log.db: make one, unless the folder holds something that a new one would hide."""
    trees = [p for p in data_dir.iterdir() if TREE_FILE.match(p.name)]
    if trees:
        raise OperatorError(
            f"there is a tree ({trees[0].name}) but no {LOG_NAME}",
            str(log_dir),
            f"is dataLogDir what it was? Otherwise: {MEND_LOG}",
        )
    for folder in {data_dir, log_dir}:
        old = folder / "version-2"
        if old.is_dir() and any(old.iterdir()):
            raise OperatorError(
                "this folder holds the data of Apache ZooKeeper, and none of zkd's",
                str(old),
                "name another dataDir, and copy the znodes over with a client: this version of zkd"
                " does not read that folder",
            )
    if not settings.autocreate:
        permit = data_dir / "initialize"
        if not permit.exists():
            raise OperatorError(
                "there is no data, and db.autocreate=false forbids to begin with nothing",
                str(data_dir),
                f"bring the data back; for a new server create the file {permit}",
            )
        permit.unlink()


def _first_tree(log: LogWriter, data_dir: Path, settings: StorageSettings) -> None:
    _fresh_tree(log, data_dir, 1, settings)
    log.replace(1, 0, None)


def _fresh_tree(log: LogWriter, data_dir: Path, generation: int, settings: StorageSettings) -> None:
    """Make the file of a tree without transactions."""
    path = tree_path(data_dir, generation)
    for name in (path.name, path.name + "-wal", path.name + "-shm"):
        (data_dir / name).unlink(missing_ok=True)
    db = database.open_writer(path, synchronous="FULL", cache_bytes=0, vfs=settings.vfs)
    with db:
        schema.create_tree(db, log.meta.id, generation)
        schema.fill_fresh(db)
    db.close()
    sync_folder(data_dir)


def _open_tree(log: LogWriter, data_dir: Path, settings: StorageSettings) -> TreeWriter:
    path = tree_path(data_dir, log.meta.generation)
    if not path.exists() and settings.trust_empty and log.meta.purged_to == 0:
        _fresh_tree(log, data_dir, log.meta.generation, settings)
    if not path.exists():
        raise TreeDamaged(
            f"{log.path} names this tree, which is not there"
            + (", and no longer begins with the first transaction" if settings.trust_empty else ""),
            str(path),
            f"is dataDir what it was? Otherwise: {MEND_TREE}",
        )
    with explained(path, MEND_TREE):
        tree = TreeWriter(path, settings)
    if tree.id != log.meta.id or tree.generation != log.meta.generation:
        tree.close()
        raise TreeDamaged(
            f"this tree does not belong to {log.path}",
            str(path),
            f"put the files of one server back together, or {MEND_TREE}",
        )
    return tree


def _check(opened: Opened, settings: StorageSettings) -> None:
    """Whether log, mark and tree fit together, and the log's rows above the tree are good."""
    log, tree, claims = opened.log, opened.tree, opened.mark.claims
    fault = tree_fault(log.meta, tree.zxid, tree.generation, claims)
    if fault and not (settings.trust_empty and tree.zxid == log.meta.purged_to == 0):
        raise TreeDamaged(fault, str(tree.path), MEND_TREE)
    if claims is None:
        opened.notes.append(
            f"{MARK_NAME} says nothing: whether the log lacks something at its end is not known"
        )
    reason, promised = missing(log.meta, log.end, tree.zxid, claims)
    if not reason:
        reason, promised = _verify(opened)
    if settings.accept_log_end:
        _accept(opened, reason, max(promised, log.end))
    elif not reason:
        return
    elif settings.commit_on_append:
        raise LogBehind(reason, str(log.path), end=log.end, promised=promised, mend=GO_ON)
    else:
        opened.must_synchronise = f"{log.path}: {reason}"


def _verify(opened: Opened) -> tuple[str, int]:
    """The chain above T; where it breaks is where the log is taken to end."""
    try:
        for _ in opened.log.verify(opened.tree.zxid):
            pass
    except LogCorrupt as e:
        return e.what, opened.log.end
    return "", 0


def _accept(opened: Opened, reason: str, promised: int) -> None:
    """The operator's word: the log ends at its last good row, or at the tree."""
    log, tree, claims = opened.log, opened.tree, opened.mark.claims
    if not reason:
        forgotten = _forget_damaged(log, tree.zxid)
        opened.given_up = GivenUp("", log.end, log.end, (), forgotten)
        return
    good = tree.zxid
    if tree.zxid <= log.end:
        try:
            for zxid, _ in log.verify(tree.zxid):
                good = zxid
        except LogCorrupt:
            pass
    rows = tuple(log.unchecked(good, GIVEN_UP_ROWS))
    log.give_up(good, tree.zxid, claims.cut if claims is not None else 0)
    forgotten = _forget_damaged(log, tree.zxid)
    opened.given_up = GivenUp(reason, good, promised, rows, forgotten)
    opened.notes.append(f"{reason}: accepted, the log ends at 0x{good:x}")


def _forget_damaged(log: LogWriter, tree_zxid: int) -> int:
    """Remove the oldest rows, if one of those that the tree holds is damaged, up to the last such
    one; its zxid, or 0."""
    forgotten = 0
    while True:
        try:
            for zxid, _ in log.verify(log.meta.purged_to):
                if zxid >= tree_zxid:
                    break
            return forgotten
        except LogCorrupt as e:
            if e.zxid > tree_zxid:
                return forgotten
            forgotten = e.zxid
            log.purge(e.zxid, FORGET_ROWS)
            while log.meta.purged_to < e.zxid:
                log.purge(e.zxid, FORGET_ROWS)


def _remove_other_generations(data_dir: Path, generation: int) -> None:
    for path in list(data_dir.iterdir()):
        match = TREE_FILE.match(path.name)
        if match and int(match[1]) != generation:
            path.unlink()


def replay(
    opened: Opened,
    effects_of: EffectsOf,
    settings: StorageSettings,
    progress: Progress | None,
) -> int:
    """Bring the rows above T into the tree writer; how many there were."""
    log, tree = opened.log, opened.tree
    total = log.count(tree.zxid)
    done = 0
    while done < total:
        reader = TreeReader(tree.path, cache_bytes=settings.tree_cache_bytes, vfs=settings.vfs)
        try:
            done += _replay_some(opened, effects_of(reader), done, total, progress)
        finally:
            reader.close()
        if done < total:
            tree.flush()
    failpoints.hit("recovery.replayed")
    return total


def renew_digest(tree: TreeWriter, settings: StorageSettings) -> None:
    """Digests were off and are on again: the stored one, 0, says nothing. Reads the whole tree."""
    if tree.digest or not settings.tree.digest_enabled:
        return
    reader = TreeReader(tree.path, cache_bytes=settings.tree_cache_bytes, vfs=settings.vfs)
    try:
        digest = tree_digest(reader)
    finally:
        reader.close()
    tree.set_digest(digest)


def _replay_some(
    opened: Opened,
    apply: Callable[[bytes], list[Effect]],
    done: int,
    total: int,
    progress: Progress | None,
) -> int:
    count = 0
    for zxid, body in opened.log.verify(opened.tree.taken):
        opened.tree.accumulate([(zxid, 0, 0, 0, 0, body, apply(body), None)])
        count += 1
        if progress is not None and (done + count) % PROGRESS_ROWS == 0:
            progress(done + count, total)
        if count >= REPLAY_ROWS:
            break
    return count
