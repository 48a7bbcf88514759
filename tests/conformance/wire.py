"""A client of the ZooKeeper protocol that sends what it is told, right or wrong.

Independent of zkd's own codec on purpose: a shared mistake would hide. Encoders build request
payloads (no length in front); `Wire` is one connection: bytes out, frames in, nothing interpreted.
A path may be `bytes` where no str stands for it, and `None` is a null string or buffer.
Source: zookeeper.jute and the client protocol's framing.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Text = str | bytes | None
Acl = tuple[int, Text, Text]  # perms, scheme, id

NOTIFICATION, CREATE, DELETE, EXISTS, GET_DATA, SET_DATA = 0, 1, 2, 3, 4, 5
GET_ACL, SET_ACL, GET_CHILDREN, SYNC, PING, GET_CHILDREN2 = 6, 7, 8, 9, 11, 12
CHECK, MULTI, CREATE2, RECONFIG, CHECK_WATCHES, REMOVE_WATCHES = 13, 14, 15, 16, 17, 18
CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL, MULTI_READ = 19, 20, 21, 22
AUTH, SET_WATCHES, SASL, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER = 100, 101, 102, 103, 104
SET_WATCHES2, ADD_WATCH, WHO_AM_I = 105, 106, 107
CREATE_SESSION, CLOSE_SESSION, ERROR = -10, -11, -1

PING_XID, EVENT_XID, AUTH_XID, SET_WATCHES_XID = -2, -1, -4, -8
OPEN: tuple[Acl, ...] = ((31, "world", "anyone"),)
NO_PASSWORD = bytes(16)
FRAME_BYTES_MAX = 1 << 26  # a length above this is a broken server, not a long answer

OP_NAMES: dict[int, str] = {
    value: name.lower()
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, int) and not name.endswith(("XID", "MAX"))
}


class ServerSilent(Exception):
    """The server kept the connection and sent nothing within the deadline."""


def int_(value: int) -> bytes:
    return struct.pack(">i", value)


def long(value: int) -> bytes:
    return struct.pack(">q", value)


def buffer(value: bytes | None) -> bytes:
    return int_(-1) if value is None else int_(len(value)) + value


def text(value: Text) -> bytes:
    return buffer(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)


def vector(items: Iterable[bytes] | None) -> bytes:
    if items is None:
        return int_(-1)
    encoded = list(items)
    return int_(len(encoded)) + b"".join(encoded)


def texts(values: Iterable[Text] | None) -> bytes:
    return vector(None if values is None else (text(value) for value in values))


def acls(entries: Iterable[Acl] | None) -> bytes:
    if entries is None:
        return int_(-1)
    return vector(int_(perms) + text(scheme) + text(id_) for perms, scheme, id_ in entries)


def request(xid: int, op: int, body: bytes = b"") -> bytes:
    """The payload of a frame: RequestHeader, then the record."""
    return struct.pack(">ii", xid, op) + body


def create(path: Text, data: bytes | None, acl: Iterable[Acl] | None, flags: int) -> bytes:
    return text(path) + buffer(data) + acls(acl) + int_(flags)


def create_ttl(
    path: Text, data: bytes | None, acl: Iterable[Acl] | None, flags: int, ttl_ms: int
) -> bytes:
    return create(path, data, acl, flags) + long(ttl_ms)


def versioned(path: Text, version: int) -> bytes:
    """The body of delete and check."""
    return text(path) + int_(version)


def set_data(path: Text, data: bytes | None, version: int) -> bytes:
    return text(path) + buffer(data) + int_(version)


def set_acl(path: Text, acl: Iterable[Acl] | None, version: int) -> bytes:
    return text(path) + acls(acl) + int_(version)


def watched(path: Text, watch: int = 0) -> bytes:
    """The body of exists, getData, getChildren, getChildren2; `watch` goes out as one byte."""
    return text(path) + bytes([watch])


def auth(scheme: Text, credential: bytes | None, kind: int = 0) -> bytes:
    return int_(kind) + text(scheme) + buffer(credential)


def set_watches(zxid: int, lists: Sequence[Iterable[Text] | None]) -> bytes:
    """Three lists (data, exist, child) for setWatches, five for setWatches2."""
    return long(zxid) + b"".join(texts(paths) for paths in lists)


def multi(ops: Iterable[tuple[int, bytes]]) -> bytes:
    """MultiHeader and record of each operation, then the closing header."""
    parts = [int_(op) + b"\0" + int_(-1) + body for op, body in ops]
    return b"".join(parts) + int_(-1) + b"\1" + int_(-1)


def connect_request(
    *,
    zxid: int = 0,
    timeout_ms: int = 30000,
    session: int = 0,
    password: bytes | None = NO_PASSWORD,
    read_only: bytes = b"\0",
    protocol: int = 0,
) -> bytes:
    """ConnectRequest; `read_only` is b"" for the clients that do not send that byte."""
    head = struct.pack(">iqiq", protocol, zxid, timeout_ms, session)
    return head + buffer(password) + read_only


def frame(payload: bytes) -> bytes:
    return int_(len(payload)) + payload


@dataclass(frozen=True, slots=True)
class Connected:
    """A ConnectResponse. `session` 0 means that the server refused the session."""

    protocol: int
    timeout_ms: int
    session: int
    password: bytes
    rest: bytes  # the readOnly byte, if the request had one


def connected(payload: bytes) -> Connected:
    protocol, timeout_ms, session, length = struct.unpack_from(">iiqi", payload)
    end = 20 + max(length, 0)
    return Connected(protocol, timeout_ms, session, payload[20:end], payload[end:])


class Wire:
    """One TCP connection. `closed` turns true at the server's FIN or RST."""

    def __init__(self, port: int, timeout_s: float = 10.0, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout_s = timeout_s
        self.closed = False
        self._pending = bytearray()

    def send(self, *payloads: bytes) -> None:
        """Send payloads as frames, with one call."""
        self.send_raw(b"".join(map(frame, payloads)))

    def send_raw(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the server sent before it closed can still be read

    def receive(self) -> bytes | None:
        """The next frame's payload, or None when the server closed the connection."""
        while True:
            pending = self._pending
            if len(pending) >= 4:
                length = int.from_bytes(pending[:4], "big", signed=True)
                if not 0 <= length <= FRAME_BYTES_MAX:
                    raise ValueError(f"the server sent a frame of length {length}")
                if len(pending) >= 4 + length:
                    payload = bytes(pending[4 : 4 + length])
                    del pending[: 4 + length]
                    return payload
            if not self._fill():
                return None

    def receive_raw(self) -> bytes:
        """All that comes until the server closes, frames or not."""
        while self._fill():
            pass
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def _fill(self) -> bool:
        if self.closed:
            return False
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            raise ServerSilent(f"nothing within {self.timeout_s} s") from None
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return False
        self._pending += data
        return True

    def wait_closed(self) -> bytes:
        """Read until the server closes; what came before that."""
        return self.receive_raw()

    def drop(self) -> None:
        """Close without a word, as a client whose network went away."""
        self.socket.close()
        self.closed = True


class Client(Wire):
    """A session on a connection, for tests that need one plainly: `call` gives err and body."""

    def __init__(
        self, port: int, timeout_s: float = 10.0, host: str = "127.0.0.1", **connect: object
    ) -> None:
        super().__init__(port, timeout_s, host)
        self.send(connect_request(**connect))  # type: ignore[arg-type]
        answer = self.receive()
        if answer is None:
            raise ConnectionError("the server closed the connection instead of a session")
        self.session = connected(answer)
        self.events: list[tuple[int, str]] = []  # type, path
        self._xid = 0

    def call(self, op: int, body: bytes = b"") -> tuple[int, bytes]:
        """Send one request and wait for its reply; events on the way go to `events`."""
        self._xid += 1
        xid = {PING: PING_XID, AUTH: AUTH_XID, SET_WATCHES: -8}.get(op, self._xid)
        self.send(request(xid, op, body))
        while (reply := self.receive()) is not None:
            got, _zxid, err = struct.unpack_from(">iqi", reply)
            if got == EVENT_XID:
                self._event(reply)
                continue
            if got != xid:
                raise ValueError(f"reply with xid {got}, expected {xid}")
            return err, reply[16:]
        raise ConnectionError("the server closed the connection instead of a reply")

    def _event(self, reply: bytes) -> None:
        kind, _state, length = struct.unpack_from(">iii", reply, 16)
        self.events.append((kind, reply[28 : 28 + length].decode()))

    def round_trip_s(self) -> float:
        """How long a ping takes, in seconds."""
        begin = time.monotonic()
        self.call(PING)
        return time.monotonic() - begin

    def close(self) -> None:
        """End the session as a client does, and the connection."""
        if not self.closed:
            self.call(CLOSE_SESSION)
        self.drop()
