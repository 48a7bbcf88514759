"""The sockets between the processes of one server.

Each process has one inbox, named after the process and its life, which takes messages from two
kinds of outbox:

- `Outbox`, a ZeroMQ PUSH socket: statistics, counts, whatever may wait a moment;
- `Direct`, a Unix stream socket: what lies on the way of a client's write. ZeroMQ wakes two more
  threads for each message, its I/O threads on both sides; on two cores that is what a write's
  latency and most of a small batch's CPU were made of (docs/performance.md).

Neither ever blocks or drops: what a peer does not take yet is kept here, and is bounded by the
requests that were admitted (credits of the front-ends). Order holds within one outbox, not between
a process's two outboxes to the same receiver.

The supervisor binds the listener of `Direct` before it forks the receiver, so that a connect never
comes too early; a receiver that is gone takes nothing any more, which is no error: its life has
ended and the supervisor says so.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from pathlib import Path
from typing import Any, Final

import zmq

from zkd.bus.messages import encode
from zkd.bus.places import direct_place, place

RECONNECT_MS: Final = 5
"""How soon a connect to a ZeroMQ inbox that is not bound yet is tried again."""
READ_BYTES: Final = 1 << 18
"""So much is taken from a stream at once."""
EMPTY: Final = b""
LENGTH_BYTES: Final = 4


class _Stream:
    """The receiving end of one sender's `Direct`."""

    __slots__ = ("rest", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = bytearray()
        """The beginning of a message that has not come whole."""


class Inbox:
    """What others send to this process, in each outbox's order."""

    def __init__(
        self,
        context: zmq.Context[Any],
        runtime_dir: Path,
        name: str,
        life: int,
        listener: socket.socket | None = None,
    ) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.set(zmq.RCVHWM, 0)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind("ipc://" + place(runtime_dir, name, life))
        self._zmq_fd: int = self.socket.get(zmq.FD)
        self._listener = listener
        self._epoll = select.epoll()
        self._epoll.register(self._zmq_fd, select.EPOLLIN)
        self._streams: dict[int, _Stream] = {}
        self._full: dict[int, Direct] = {}
        """Outboxes that wait until their receiver takes more."""
        self._ready: deque[Any] = deque()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        if listener is not None:
            self._epoll.register(listener.fileno(), select.EPOLLIN)
        self.fd = self._epoll.fileno()
        """Readable when something is there."""

    def recv(self, timeout_s: float = 0.0) -> Any:
        """The next message, to be decoded before the next call; EMPTY if none comes in time."""
        ready = self._ready
        while not ready:
            events = self._epoll.poll(timeout_s)
            if not events:
                return EMPTY
            for fd, _ in events:
                stream = self._streams.get(fd)
                if stream is not None:
                    self._take(stream)
                else:
                    self._other(fd)
            timeout_s = 0.0
        return ready.popleft()

    def _take(self, stream: _Stream) -> None:
        """Cut what has come into messages."""
        data = self._view
        try:
            if self._ready:  # the buffer holds another sender's messages
                data = memoryview(stream.sock.recv(READ_BYTES))
                size = len(data)
            else:
                size = stream.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._end(stream)
            return
        rest = stream.rest
        append = self._ready.append
        if rest:
            rest += data[:size]
            if not _has_whole(rest):
                return
            data = memoryview(bytes(rest))
            size = len(data)
            rest.clear()
        pos = 0
        while size - pos >= LENGTH_BYTES:
            end = pos + LENGTH_BYTES + int.from_bytes(data[pos : pos + LENGTH_BYTES], "little")
            if end > size:
                break
            append(data[pos + LENGTH_BYTES : end])
            pos = end
        if pos < size:
            rest += data[pos:size]

    def _end(self, stream: _Stream) -> None:
        self._epoll.unregister(stream.sock.fileno())
        del self._streams[stream.sock.fileno()]
        stream.sock.close()

    def _other(self, fd: int) -> None:
        if fd == self._zmq_fd:
            with contextlib.suppress(zmq.Again):
                while True:
                    self._ready.append(self.socket.recv(zmq.DONTWAIT))
        elif fd in self._full:
            self._full[fd].flush()
        elif self._listener is not None:
            with contextlib.suppress(BlockingIOError):
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                self._streams[sock.fileno()] = _Stream(sock)
                self._epoll.register(sock.fileno(), select.EPOLLIN)

    def wait_for(self, outbox: Direct, full: bool) -> None:
        """Flush this outbox as soon as its receiver takes more, or no longer."""
        fd = outbox.sock.fileno()
        if full and fd not in self._full:
            self._full[fd] = outbox
            self._epoll.register(fd, select.EPOLLOUT)
        elif not full and self._full.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        self.socket.close(0)
        self._epoll.close()
        if self._listener is not None:
            self._listener.close()
        for stream in self._streams.values():
            stream.sock.close()
        self._streams.clear()


def _has_whole(data: bytearray) -> bool:
    """Is the first message whole? (A large one comes in many parts and is copied once.)"""
    size = len(data)
    return size >= LENGTH_BYTES and size - LENGTH_BYTES >= int.from_bytes(
        data[:LENGTH_BYTES], "little"
    )


class Outbox:
    """One way to one life of another process, through ZeroMQ."""

    def __init__(self, context: zmq.Context[Any], runtime_dir: Path, name: str, life: int) -> None:
        self.name = name
        self.life = life
        self.socket = context.socket(zmq.PUSH)
        self.socket.set(zmq.SNDHWM, 0)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        self.socket.connect("ipc://" + place(runtime_dir, name, life))

    def send(self, message: tuple[Any, ...]) -> None:
        """Queue a message; never blocks."""
        self.socket.send(encode(message), zmq.DONTWAIT)

    def send_frame(self, frame: bytes) -> None:
        """The same for an encoded message."""
        self.socket.send(frame, zmq.DONTWAIT)

    def close(self, linger_ms: int = 0) -> None:
        self.socket.close(linger_ms)


class Direct:
    """One way to one life of another process, without threads."""

    def __init__(self, inbox: Inbox, runtime_dir: Path, name: str, life: int) -> None:
        self.name = name
        self.life = life
        self._inbox = inbox
        self._waiting: deque[memoryview] = deque()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._open = True
        try:
            self.sock.connect(direct_place(runtime_dir, name, life))
        except OSError:  # this life has ended already
            self._open = False
        self.sock.setblocking(False)

    def send(self, message: tuple[Any, ...]) -> None:
        """Queue a message; never blocks."""
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """The same for an encoded message."""
        self._write(len(frame).to_bytes(LENGTH_BYTES, "little") + frame)

    def send_frames(self, frames: list[bytes]) -> None:
        """Several at once: the receiver is woken once."""
        parts: list[bytes] = []
        for frame in frames:
            parts += (len(frame).to_bytes(LENGTH_BYTES, "little"), frame)
        self._write(b"".join(parts))

    def _write(self, data: bytes) -> None:
        if not self._open:
            return
        if self._waiting:
            self._waiting.append(memoryview(data))
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._gone()
            return
        if sent < len(data):
            self._waiting.append(memoryview(data)[sent:])
            self._inbox.wait_for(self, True)

    def flush(self) -> None:
        """Send on what was kept."""
        waiting = self._waiting
        while waiting:
            try:
                sent = self.sock.send(waiting[0])
            except BlockingIOError:
                return
            except OSError:
                self._gone()
                return
            if sent < len(waiting[0]):
                waiting[0] = waiting[0][sent:]
                return
            waiting.popleft()
        self._inbox.wait_for(self, False)

    def _gone(self) -> None:
        """The receiver is no more: so is what was meant for it."""
        self._inbox.wait_for(self, False)
        self._waiting.clear()
        self._open = False

    def close(self) -> None:
        self._inbox.wait_for(self, False)
        self._open = False
        self.sock.close()
