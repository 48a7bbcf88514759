"""Where lines of the log go: a stream, a file that is rotated, the syslog socket.

A sink never raises and never blocks for longer than the system call: a line that cannot be
written is counted in `lost`. A line is one write, so that the processes of a server can share a
file; they agree on its rotation by a lock on a file beside it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from zkd.server.logformat import PRIORITIES, Event

Render = Callable[[Event], str]
_CHECK_EVERY = 64
"""A file's identity and size are looked at once in so many lines."""

_FACILITY_DAEMON = 3


class Sink(Protocol):
    """A destination. `level`: what is below is not sent there."""

    level: int
    lost: int

    def write(self, event: Event) -> None: ...

    def close(self) -> None: ...


def _bytes(line: str) -> bytes:
    return (line + "\n").encode("utf-8", "backslashreplace")


class StreamSink:
    """Standard error or output. `priorities` puts `<6>` before a line, as journald reads it."""

    def __init__(self, fd: int, render: Render, level: int, *, priorities: bool) -> None:
        self.fd = fd
        self.level = level
        self.lost = 0
        self._render = render
        self._priorities = priorities

    def write(self, event: Event) -> None:
        line = self._render(event)
        if self._priorities:
            line = f"<{PRIORITIES[event.level]}>{line}"
        try:
            os.write(self.fd, _bytes(line))
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """The stream belongs to the process; it stays open."""


class FileSink:
    """A file that is renamed to `.1`, `.2` ... when it is larger than `size` bytes.

    `keep` old files stay; a `size` of 0 leaves rotation to others (logrotate): the file is opened
    again when its name leads elsewhere. Raises OSError only when it is made.
    """

    def __init__(self, path: Path, render: Render, level: int, *, size: int, keep: int) -> None:
        self.level = level
        self.lost = 0
        self._path = path
        self._render = render
        self._size = size
        self._keep = keep
        self._lock = threading.Lock()
        self._until_check = _CHECK_EVERY
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path, flags, 0o640)

    def write(self, event: Event) -> None:
        data = _bytes(self._render(event))
        with self._lock:
            try:
                self._until_check -= 1
                if self._until_check <= 0:
                    self._until_check = _CHECK_EVERY
                    self._check()
                os.write(self._fd, data)
            except OSError:
                self.lost += 1

    def _check(self) -> None:
        if self._moved():
            self._reopen()
        if self._size and os.fstat(self._fd).st_size >= self._size:
            self._rotate()

    def _moved(self) -> bool:
        mine = os.fstat(self._fd)
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return True
        return (mine.st_dev, mine.st_ino) != (named.st_dev, named.st_ino)

    def _reopen(self) -> None:
        fresh = self._open()
        os.close(self._fd)
        self._fd = fresh

    def _rotate(self) -> None:
        """One process renames; the others find the file moved and open the new one."""
        lock = os.open(f"{self._path}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._moved():
                self._shift()
            self._reopen()
        finally:
            os.close(lock)

    def _shift(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = Path(f"{self._path}.{number}")
            if older.exists():
                older.replace(f"{self._path}.{number + 1}")
        if self._keep:
            self._path.replace(f"{self._path}.1")
        else:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._fd)


class SyslogSink:
    """The local syslog socket, without waiting: a full queue loses the line, and it is counted."""

    def __init__(self, address: str, render: Render, level: int, *, tag: str) -> None:
        self.level = level
        self.lost = 0
        self._address = address
        self._render = render
        self._tag = tag
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def write(self, event: Event) -> None:
        priority = _FACILITY_DAEMON * 8 + PRIORITIES[event.level]
        line = f"<{priority}>{self._tag}[{event.pid}]: {self._render(event)}"
        try:
            self._socket.sendto(line.encode("utf-8", "backslashreplace"), self._address)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        self._socket.close()
