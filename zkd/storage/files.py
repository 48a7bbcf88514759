"""The small files beside the databases: the lock, the mark, the reserve.

`zkd.lock` is held by flock as long as the process lives: one writer for one folder.

`log.mark` says what this server has claimed to be durable. It is written after every commit, and
never synced by itself: it is there after kill -9, and after a power loss it may be older, but it
never says more than was durable. Two slots are written in turn, each with its own checksum, so
one torn write leaves the other. `cut` counts the transactions that make the log end earlier on
purpose (TRUNC, the next generation): a mark of an older cut says nothing about the present log.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path

from zkd.errors import OperatorError

LOCK_NAME = "zkd.lock"
MARK_NAME = "log.mark"
RESERVE_NAME = "reserve"
SLOT = 4096
MAGIC = b"zkdm"
_MARK = struct.Struct(">4s4xq16sqqqqqqq")
_CRC = struct.Struct(">I")


class Lock:
    """The right to write to a folder, until `release` or the process's end.

    A forked child (a snapshot's) gives up its copy at once, so that it does not hold the lock
    longer than the process that it comes from.
    """

    _held: weakref.WeakSet[Lock] = weakref.WeakSet()

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise OperatorError(
                f"another zkd server (pid {holder or 'unknown'}) is using this folder",
                str(folder),
                "stop that server, or give this one another dataDir and dataLogDir",
            ) from e
        with contextlib.suppress(OSError):  # a full disk: the lock counts, not the name
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        Lock._held.add(self)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two servers lock two files."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _forget_locks() -> None:
    for lock in list(Lock._held):
        lock.release()


os.register_at_fork(after_in_child=_forget_locks)


@dataclass
class Claims:
    """What a mark says. `tree_synced` is the zxid that tree-`generation`.db had on disk."""

    log_id: bytes = bytes(16)
    cut: int = 0
    incarnation: int = 0
    accepted_epoch: int = 0
    current_epoch: int = 0
    zxid: int = 0
    generation: int = 0
    tree_synced: int = 0


class Mark:
    """The mark file, open for writing; `claims` is what it said when it was opened, or None."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MARK_NAME
        self.claims, self._seq = read_mark(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self._fd).st_size < 2 * SLOT:
            os.pwrite(self._fd, bytes(2 * SLOT), 0)
            os.fsync(self._fd)

    def write(self, claims: Claims) -> None:
        """Put a claim into the older slot. No fsync: see above."""
        self._seq = seq = self._seq + 1
        body = _MARK.pack(
            MAGIC,
            seq,
            claims.log_id,
            claims.cut,
            claims.incarnation,
            claims.accepted_epoch,
            claims.current_epoch,
            claims.zxid,
            claims.generation,
            claims.tree_synced,
        )
        try:
            os.pwrite(self._fd, body + _CRC.pack(zlib.crc32(body)), (seq & 1) * SLOT)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # a file system that needs room to overwrite: the mark stays older

    def sync(self) -> None:
        """Make the mark durable (after the log was made shorter on purpose)."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_mark(path: Path) -> tuple[Claims | None, int]:
    """The newer valid slot of a mark file and its sequence number; (None, 0) without one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, 0
    best: Claims | None = None
    best_seq = 0
    for at in (0, SLOT):
        slot = content[at : at + _MARK.size + _CRC.size]
        if len(slot) < _MARK.size + _CRC.size or slot[:4] != MAGIC:
            continue
        body = slot[: _MARK.size]
        if _CRC.unpack(slot[_MARK.size :])[0] != zlib.crc32(body):
            continue
        _, seq, *fields = _MARK.unpack(body)
        if seq > best_seq:
            best, best_seq = Claims(*fields), seq
    return best, best_seq


class Reserve:
    """A file that holds room for an emergency: given up when the disk is full, made again later."""

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / RESERVE_NAME
        self.size = size

    @property
    def held(self) -> bool:
        """Whether the whole reserve is there."""
        try:
            return self.path.stat().st_size >= self.size
        except FileNotFoundError:
            return self.size == 0

    def make(self) -> bool:
        """Take the reserve (again). False if there is no room for it."""
        if self.held:
            return True
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self.size)
        except OSError:
            self.release()
            return False
        finally:
            os.close(fd)
        return True

    def release(self) -> None:
        """Give the room up."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make a file durable that no SQLite connection of this process has open."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
