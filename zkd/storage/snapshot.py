"""Snapshots: compact, consistent copies of the tree at one zxid, beside a running server.

`snapshot.<zxid in hex>.zkd` is a tree file like tree-N.db (packed: `.zkd.gz`). It is written under
a temporary name, read back and checked (structure, counts, digest), synced and renamed: whatever
has the final name is whole. `take` reads in one read transaction of its own and needs no lock; it
is meant for a short-lived child, as SQLite copies in one long step.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from zkd import failpoints
from zkd.errors import OperatorError
from zkd.storage import database
from zkd.storage.check import Progress, check_tree_file, scan_all
from zkd.storage.files import sync_file, sync_folder
from zkd.storage.generation import GenerationWriter, NodeRow, remove_tree
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.reader import TreeReader, tree_path
from zkd.storage.schema import put_meta
from zkd.tree.settings import TreeSettings

NAME = re.compile(r"snapshot\.([0-9a-f]+)\.zkd(\.gz)?$")
TEMPORARY = ".tmp"
SMOOTH_S = 0.05
"""So often what has been written is brought to the disk, so that no large fsync stands before
the log's."""
COPY_BYTES = 1 << 20
TELL_NODES = 1000
"""So often the progress is told."""


@dataclass(frozen=True)
class SnapshotInfo:
    """One snapshot on disk."""

    path: Path
    zxid: int
    size: int
    """Bytes of the file."""
    taken_s: float
    """Unix time."""

    @property
    def packed(self) -> bool:
        """Whether it is compressed."""
        return self.path.suffix == ".gz"


def take(
    data_dir: Path,
    log_dir: Path,
    target: Path,
    settings: TreeSettings,
    *,
    packed: bool = False,
    progress: Progress | None = None,
) -> SnapshotInfo:
    """Copy the tree that log.db names into the folder `target`, at the zxid that it is at.

    OperatorError if the copy is not sound (the tree is damaged then) or cannot be written."""
    log = LogReader(log_dir / LOG_NAME)
    try:
        meta = log.meta()
    finally:
        log.close()
    target.mkdir(parents=True, exist_ok=True)
    copy = target / f"snapshot-{os.getpid()}.zkd{TEMPORARY}"
    try:
        _copy(tree_path(data_dir, meta.generation), copy)
        failpoints.hit("snapshot.written")
        zxid = _verified(copy, meta.id, settings, progress)
        return _publish(copy, target, zxid, packed)
    except (apsw.Error, OSError) as e:
        raise OperatorError(
            f"the snapshot could not be written: {e}", str(target), "is there room on the disk?"
        ) from e
    finally:
        remove_tree(copy)


def _copy(source: Path, copy: Path) -> None:
    remove_tree(copy)
    db = database.open_reader(source, 4 << 20)
    try:
        db.pragma("query_only", False)
        with _smoothly(copy):
            db.execute("VACUUM INTO ?", (str(copy),))
    finally:
        db.close()
    made = apsw.Connection(str(copy))
    try:
        put_meta(made, {"taken_ms": time.time_ns() // 1_000_000})
    finally:
        made.close()


@contextmanager
def _smoothly(path: Path) -> Iterator[None]:
    """Sync the file all the time while it is written."""
    over = threading.Event()

    def sync() -> None:
        while not over.wait(SMOOTH_S):
            if path.exists():
                sync_file(path)

    thread = threading.Thread(target=sync, name="snapshot-sync")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _verified(copy: Path, tree_id: bytes, settings: TreeSettings, progress: Progress | None) -> int:
    """The zxid of a sound copy."""
    quiet = progress or (lambda what, done, total: None)
    findings = check_tree_file(copy, tree_id, settings, quiet)
    if findings:
        raise OperatorError(
            f"the copy is not sound: {'; '.join(f.what for f in findings)}",
            str(copy),
            "the tree itself is damaged: see `zkd check`",
        )
    reader = TreeReader(copy)
    try:
        return reader.zxid
    finally:
        reader.close()


def _publish(copy: Path, target: Path, zxid: int, packed: bool) -> SnapshotInfo:
    """Pack, sync, rename, sync the folder."""
    path = target / f"snapshot.{zxid:x}.zkd{'.gz' if packed else ''}"
    ready = copy
    if packed:
        ready = copy.with_name(copy.name + ".gz")
    try:
        if packed:
            with copy.open("rb") as plain, gzip.open(ready, "wb", compresslevel=1) as out:
                shutil.copyfileobj(plain, out, COPY_BYTES)
        sync_file(ready)
        ready.rename(path)
    finally:
        if packed:
            ready.unlink(missing_ok=True)
    failpoints.hit("snapshot.renamed")
    sync_folder(target)
    return _info(path, zxid)


def _info(path: Path, zxid: int) -> SnapshotInfo:
    stat = path.stat()
    return SnapshotInfo(path, zxid, stat.st_size, stat.st_mtime)


def list_snapshots(folder: Path) -> list[SnapshotInfo]:
    """All snapshots in a folder, the newest zxid first."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = NAME.match(path.name)
        if match:
            found.append(_info(path, int(match[1], 16)))
    return sorted(found, key=lambda s: (s.zxid, s.taken_s), reverse=True)


def purge(folder: Path, keep: int) -> list[Path]:
    """Remove all but the `keep` newest snapshots (at least one stays), and what a snapshot that
    was interrupted left behind; what was removed."""
    gone = [s.path for s in list_snapshots(folder)[max(1, keep) :]]
    for path in folder.glob(f"snapshot-*.zkd{TEMPORARY}*"):
        pid = re.match(r"snapshot-(\d+)\.", path.name)
        if pid and not Path(f"/proc/{pid[1]}").exists():
            gone.append(path)
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[TreeReader]:
    """A snapshot to read from; a packed one is unpacked into the folder `scratch` meanwhile."""
    plain = path
    if path.suffix == ".gz":
        plain = scratch / f"snapshot-{os.getpid()}.zkd{TEMPORARY}"
    try:
        if plain != path:
            _unpack(path, plain)
        reader = TreeReader(plain)
        try:
            yield reader
        finally:
            reader.close()
    finally:
        if plain != path:
            remove_tree(plain)


def _unpack(path: Path, plain: Path) -> None:
    try:
        with gzip.open(path, "rb") as packed, plain.open("wb") as out:
            shutil.copyfileobj(packed, out, COPY_BYTES)
    except (EOFError, OSError, zlib.error) as e:
        raise OperatorError(
            f"the snapshot cannot be unpacked: {e}", str(path), "use another snapshot"
        ) from e


def verify(path: Path, scratch: Path, settings: TreeSettings) -> list[str]:
    """What is wrong with a snapshot; empty if nothing is."""
    try:
        with opened(path, scratch) as reader:
            return [f.what for f in check_tree_file(reader.path, None, settings)]
    except (OperatorError, apsw.Error, UnicodeDecodeError) as e:
        return [e.what if isinstance(e, OperatorError) else str(e)]


def restore_into(
    writer: GenerationWriter, reader: TreeReader, progress: Progress | None = None
) -> int:
    """Copy a snapshot's tree into the next generation and finish it; its zxid."""
    tell = progress or (lambda what, done, total: None)

    def counted() -> Iterator[NodeRow]:
        for done, node in enumerate(scan_all(reader)):
            if done % TELL_NODES == 0:
                tell("copy", done, reader.node_count)
            yield node

    writer.nodes(counted())
    writer.sessions(reader.sessions().items())
    writer.finish(reader.zxid)
    return reader.zxid


class SnapshotSchedule:
    """When a snapshot is due: by count or bytes of transactions, each time with another threshold
    between half of the limit and all of it, so that the servers of an ensemble do not do it at
    the same moment (`SyncRequestProcessor` of Apache ZooKeeper).
    """

    def __init__(self, count: int, size: int, rng: random.Random) -> None:
        """`count`: snapCount (at least 2). `size`: snapSizeLimit in bytes, 0 or less for none."""
        self._limits = (max(2, count), size)
        self._rng = rng
        self._begin()

    def _begin(self) -> None:
        count, size = self._limits
        self._count = count // 2 + self._rng.randrange(max(1, count // 2))
        self._size = size // 2 + self._rng.randrange(max(1, size // 2)) if size > 0 else 0
        self._counted = self._sized = 0

    def passed(self, count: int, size: int) -> bool:
        """`count` transactions of `size` bytes were logged. True if a snapshot is due now; the
        counting begins again then."""
        self._counted += count
        self._sized += size
        due = self._counted > self._count or (self._size > 0 and self._sized > self._size)
        if due:
            self._begin()
        return due
