"""Opening SQLite the way each file wants it, and telling its errors apart.

Nobody but the writer's two connections (one for transactions, one for checkpoints in a thread)
ever writes or checkpoints. Readers open read-only; all of them use WAL with normal locking.

A process must never open a database's main file or its `-shm` by other means: closing such a
descriptor drops the POSIX locks of the whole process. The `-wal` file carries no locks.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import apsw

BUSY_TIMEOUT_MS = 5000
WRITER_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
ZEROS = bytes(64 * 1024)


def open_writer(
    path: Path, *, synchronous: str, cache_bytes: int, vfs: str = "", page_size: int = 4096
) -> apsw.Connection:
    """A connection that may write: WAL, no automatic checkpoint, WAL file kept and reused."""
    db = apsw.Connection(str(path), flags=WRITER_FLAGS, vfs=vfs or None)
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    db.pragma("page_size", page_size)
    if db.pragma("journal_mode", "wal") != "wal":
        raise apsw.CantOpenError(f"{path}: the file system cannot hold a WAL")
    db.pragma("synchronous", synchronous)
    db.pragma("wal_autocheckpoint", 0)
    db.pragma("journal_size_limit", -1)
    db.pragma("cache_size", -max(64, cache_bytes // 1024))
    db.pragma("temp_store", "memory")
    return db


def open_reader(path: Path, cache_bytes: int, vfs: str = "") -> apsw.Connection:
    """A read-only connection with a page cache of at most `cache_bytes`."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs or None)
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    db.pragma("cache_size", -max(64, cache_bytes // 1024))
    db.pragma("query_only", True)
    return db


def wal_path(path: Path) -> Path:
    """The WAL file of a database."""
    return path.with_name(path.name + "-wal")


def settle_wal(path: Path) -> None:
    """Before SQLite reads a WAL: make what is in it durable, and read it from the disk itself.

    After a failed fsync Linux takes the pages for clean, so the page cache may show rows that the
    disk does not have. Dropping the cache shows the disk's own bytes.
    """
    try:
        fd = os.open(wal_path(path), os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def extend_wal(path: Path, size: int) -> None:
    """Bring a quiet WAL file to `size` bytes of zeros behind its end, and sync it: an fsync of a
    file that does not grow costs half of one that does. Zeros are no frame, SQLite stops there.
    A full disk leaves it as it is."""
    fd = os.open(wal_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        at = os.fstat(fd).st_size
        while at < size:
            at += os.pwrite(fd, ZEROS[: size - at], at)
        os.fdatasync(fd)
    except OSError as e:
        if not is_full(e):
            raise
    finally:
        os.close(fd)


def sync_wal(path: Path) -> None:
    """Make everything committed to a database with synchronous=NORMAL durable."""
    fd = os.open(wal_path(path), os.O_RDWR)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def checkpoint(db: apsw.Connection) -> tuple[int, int]:
    """A PASSIVE checkpoint: (frames in the WAL, frames that are in the main file too)."""
    try:
        return db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.BusyError:
        return (1, 0)


def is_full(error: BaseException) -> bool:
    """Whether an error means that the disk is full (rolled back, may be tried again)."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, apsw.FullError):
        return True
    return (
        isinstance(error, apsw.IOError)
        and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE
    )
