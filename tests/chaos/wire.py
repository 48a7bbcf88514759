"""The part of ZooKeeper's client protocol that the chaos clients speak.

Requests are built and replies are read with struct, independent of zkd's own codec, so that a
mistake there cannot hide itself. Record layouts: zookeeper-jute/src/main/resources/zookeeper.jute
in Apache ZooKeeper's repository.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

CREATE, DELETE, GET, SET, CHILDREN, SYNC, PING, MULTI = 1, 2, 4, 5, 8, 9, 11, 14
CLOSE, SET_WATCHES = -11, 101
EVENT_XID, PING_XID, SET_WATCHES_XID = -1, -2, -8
PERSISTENT, EPHEMERAL, SEQUENTIAL = 0, 1, 2
NODE_EXISTS, NO_NODE = -110, -101
PASSWORD_LENGTH = 16

_OPEN_ACL = struct.pack(">iii5si6s", 1, 31, 5, b"world", 6, b"anyone")
_HEADER = struct.Struct(">iqi")
_STAT = struct.Struct(">qqqqiiiqiiq")


class Malformed(Exception):
    """A server's message that is not as it must be."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What the checker needs of a znode's Stat."""

    czxid: int
    mzxid: int
    version: int
    owner: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply's header and what follows it."""

    xid: int
    zxid: int
    err: int
    body: bytes


def frame(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">i", len(data)) + data


def connect_request(zxid: int, timeout_ms: int, session: int, password: bytes) -> bytes:
    head = struct.pack(">iqiqi", 0, zxid, timeout_ms, session, len(password))
    return frame(head + password + b"\0")


def connect_response(payload: bytes) -> tuple[int, int, bytes]:
    """Negotiated timeout in ms (0: the session is no more), session, password."""
    if len(payload) not in (36, 37):
        raise Malformed(f"a connect response of {len(payload)} bytes")
    _, timeout_ms, session, length = struct.unpack_from(">iiqi", payload)
    if length != PASSWORD_LENGTH:
        raise Malformed(f"a password of {length} bytes")
    return timeout_ms, session, payload[20:36]


def request(xid: int, op: int, body: bytes = b"") -> bytes:
    return frame(struct.pack(">ii", xid, op) + body)


def reply(payload: bytes) -> Reply:
    if len(payload) < _HEADER.size:
        raise Malformed(f"a reply of {len(payload)} bytes")
    xid, zxid, err = _HEADER.unpack_from(payload)
    return Reply(xid, zxid, err, payload[_HEADER.size :])


def create(path: str, value: str, flags: int) -> bytes:
    return string(path) + string(value) + _OPEN_ACL + struct.pack(">i", flags)


def delete(path: str) -> bytes:
    return string(path) + struct.pack(">i", -1)


def get(path: str, watch: bool) -> bytes:
    return string(path) + bytes([watch])


def set_(path: str, value: str) -> bytes:
    return string(path) + string(value) + struct.pack(">i", -1)


def multi_set(paths: Iterable[str], value: str) -> bytes:
    head, end = struct.pack(">ibi", SET, 0, -1), struct.pack(">ibi", -1, 1, -1)
    return b"".join(head + set_(path, value) for path in paths) + end


def set_watches(zxid: int, data: Iterable[str]) -> bytes:
    paths = list(data)
    none = struct.pack(">i", 0)
    listed = struct.pack(">i", len(paths)) + b"".join(map(string, paths))
    return struct.pack(">q", zxid) + listed + none + none


class Body:
    """Reads a reply's body from the left."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def int_(self) -> int:
        value: int = struct.unpack_from(">i", self.data, self.at)[0]
        self.at += 4
        return value

    def string(self) -> str:
        length = max(self.int_(), 0)
        self.at += length
        if self.at > len(self.data):
            raise Malformed("a string beyond its message")
        return self.data[self.at - length : self.at].decode()

    def strings(self) -> list[str]:
        return [self.string() for _ in range(self.int_())]

    def stat(self) -> Stat:
        czxid, mzxid, _, _, version, _, _, owner, *_ = _STAT.unpack_from(self.data, self.at)
        self.at += _STAT.size
        return Stat(czxid, mzxid, version, owner)

    def multi_stats(self) -> tuple[list[Stat], int]:
        """The stats of a multi of setData, or [] and the error that it ended with."""
        stats: list[Stat] = []
        error = 0
        while True:
            kind, done, err = struct.unpack_from(">ibi", self.data, self.at)
            self.at += 9
            if done:
                return ([], error) if error else (stats, 0)
            if kind == -1:
                error = error or err
                self.int_()
            elif kind == SET:
                stats.append(self.stat())
            else:
                raise Malformed(f"a result of type {kind} in a multi of setData")


def event(body: bytes) -> tuple[int, int, str]:
    """Type, state and path of a watch event."""
    reader = Body(body)
    return reader.int_(), reader.int_(), reader.string()
