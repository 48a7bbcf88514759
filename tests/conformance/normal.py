"""Replies as values that two servers must agree on.

A frame is decoded by the opcode that it answers, strictly: every byte ends up in the value or in
its `rest`, so equal values mean equal bytes. What may differ between two servers is replaced:

- times become T (or T! where one transaction has two times on one server),
- session ids become numbers in order of creation, passwords become a word,
- lists whose order Apache ZooKeeper does not define (children, ephemerals, whoAmI) are sorted, and
  so are neighbouring digest entries of an ACL that came from one `auth` entry.

zxids stay as they are: two fresh servers that saw the same requests count the same. One
exception: Apache ZooKeeper 3.8 spends one on a write whose body cannot be decoded, 3.9 does not
(see `Side.undecodable`), so the zxids of 3.8 are shifted to what 3.9 has.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.conformance import wire

Value = Any  # nested tuples of str, int, bytes, None


class Undecodable(Exception):
    """The reply is not of the shape that its opcode has."""


@dataclass
class Side:
    """What one server has said so far that normalising needs."""

    sessions: dict[int, int] = field(default_factory=dict)  # id -> number
    passwords: dict[int, bytes] = field(default_factory=dict)  # number -> password
    times: dict[int, int] = field(default_factory=dict)  # zxid -> ms
    old: bool = False  # counts zxids as Apache ZooKeeper 3.8 does
    shifts: list[tuple[int, int]] = field(default_factory=list)  # above this zxid: this much more

    def session_name(self, session: int) -> Value:
        if session == 0:
            return 0
        number = self.sessions.get(session)
        return f"session {number}" if number is not None else f"unknown session {session:#x}"

    def time(self, zxid: int, ms: int) -> Value:
        """T, if it is the time that this zxid has had before."""
        if zxid == 0 or ms == 0:
            return ms  # the first nodes carry zeros
        return "T" if self.times.setdefault(zxid, ms) == ms else "T!"

    def zxid(self, zxid: int) -> int:
        """A transaction's zxid as 3.9 would count it."""
        return zxid + sum(more for above, more in self.shifts if zxid > above)

    def last_zxid(self, zxid: int) -> int:
        """The same for a header, which names the last transaction there is."""
        return zxid + sum(more for _, more in self.shifts) if zxid > 0 else zxid

    def raw_zxid(self, zxid: int) -> int:
        """The inverse of `zxid`, for a number that goes to the server."""
        raw = zxid
        for above, more in self.shifts:
            if raw > above:
                raw -= more
        return max(min(raw, (1 << 63) - 1), -(1 << 63))

    def undecodable(self, request: bytes, zxid: int, err: int) -> None:
        """Note a zxid that 3.8 spent on a single write that it could not decode."""
        if self.old and err == -5 and not decodable(request):
            self.shifts.append((zxid, -1))


class Cursor:
    """Reads a reply from the left."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def take(self, form: str) -> Any:
        try:
            values = struct.unpack_from(form, self.data, self.position)
        except struct.error:
            raise Undecodable from None
        self.position += struct.calcsize(form)
        return values[0] if len(values) == 1 else values

    def int_(self) -> int:
        value: int = self.take(">i")
        return value

    def buffer(self) -> bytes | None:
        length = self.int_()
        if length == -1:
            return None
        end = self.position + length
        if length < 0 or end > len(self.data):
            raise Undecodable
        value = self.data[self.position : end]
        self.position = end
        return value

    def vector(self, item: Callable[[], Value]) -> list[Value] | None:
        count = self.int_()
        if count < -1 or count > len(self.data):
            raise Undecodable
        return None if count == -1 else [item() for _ in range(count)]

    def rest(self) -> bytes:
        return self.data[self.position :]


def _entry(cursor: Cursor) -> Value:
    return (cursor.int_(), cursor.buffer(), cursor.buffer())


_BODIES: dict[int, str] = {  # s: string or buffer, i: int, l: long, a: ACL
    wire.CREATE: "ssai",
    wire.CREATE2: "ssai",
    wire.CREATE_CONTAINER: "ssai",
    wire.CREATE_TTL: "ssail",
    wire.DELETE: "si",
    wire.SET_DATA: "ssi",
    wire.SET_ACL: "sai",
}


def decodable(request: bytes) -> bool:
    """Whether the body of a single write has the fields of its record; true for other requests."""
    cursor = Cursor(request, 8)
    try:
        for kind in _BODIES.get(int.from_bytes(request[4:8], "big", signed=True), ""):
            if kind == "s":
                cursor.buffer()
            elif kind == "a":
                for _ in range(cursor.int_()):
                    _entry(cursor)
            else:
                cursor.take(">i" if kind == "i" else ">q")
    except Undecodable:
        return False
    return True


def _sorted(values: list[Value] | None) -> Value:
    return None if values is None else tuple(sorted(values, key=repr))


def _stat(cursor: Cursor, side: Side) -> Value:
    (czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, length, children, pzxid) = (
        cursor.take(">qqqqiiiqiiq")
    )
    return (
        "stat", side.zxid(czxid), side.zxid(mzxid), side.time(czxid, ctime),
        side.time(mzxid, mtime), version, cversion, aversion, side.session_name(owner), length,
        children, side.zxid(pzxid),
    )  # fmt: skip


def _acl(cursor: Cursor, _side: Side) -> Value:
    entries = cursor.vector(lambda: _entry(cursor))
    if entries is None:
        return None
    # One `auth` entry becomes the connection's digest identities in the order of a hash set.
    result: list[Value] = []
    run: list[Value] = []
    for item in entries:
        if run and (item[1] != b"digest" or item[0] != run[0][0]):
            result += sorted(run)
            run = []
        if item[1] == b"digest":
            run.append(item)
        else:
            result.append(item)
    return ("acl", *result, *sorted(run))


def _multi(cursor: Cursor, side: Side) -> Value:
    results: list[Value] = []
    while True:
        kind, done, err = cursor.take(">iBi")
        if done:
            return ("multi", *results, ("end", kind, done, err))
        body: Value = ()
        if kind == wire.ERROR:
            body = (cursor.int_(),)
        elif kind in _RECORDS and kind not in (wire.DELETE, wire.CHECK):
            body = _RECORDS[kind](cursor, side)
        elif kind not in (wire.DELETE, wire.CHECK):
            raise Undecodable
        results.append((wire.OP_NAMES.get(kind, kind), done, err, body))


def _who(cursor: Cursor, _side: Side) -> Value:
    return _sorted(cursor.vector(lambda: (cursor.buffer(), cursor.buffer())))


_Record = Callable[[Cursor, Side], Value]
_RECORDS: dict[int, _Record] = {
    wire.CREATE: lambda c, s: (c.buffer(),),
    wire.CREATE2: lambda c, s: (c.buffer(), _stat(c, s)),
    wire.EXISTS: lambda c, s: (_stat(c, s),),
    wire.GET_DATA: lambda c, s: (c.buffer(), _stat(c, s)),
    wire.SET_DATA: lambda c, s: (_stat(c, s),),
    wire.GET_ACL: lambda c, s: (_acl(c, s), _stat(c, s)),
    wire.SET_ACL: lambda c, s: (_stat(c, s),),
    wire.GET_CHILDREN: lambda c, s: (_sorted(c.vector(c.buffer)),),
    wire.GET_CHILDREN2: lambda c, s: (_sorted(c.vector(c.buffer)), _stat(c, s)),
    wire.SYNC: lambda c, s: (c.buffer(),),
    wire.MULTI: _multi,
    wire.MULTI_READ: _multi,
    wire.GET_EPHEMERALS: lambda c, s: (_sorted(c.vector(c.buffer)),),
    wire.GET_ALL_CHILDREN_NUMBER: lambda c, s: (c.int_(),),
    wire.ADD_WATCH: lambda c, s: (c.int_(),),
    wire.WHO_AM_I: lambda c, s: (_who(c, s),),
    wire.RECONFIG: lambda c, s: (c.buffer(), _stat(c, s)),
}
_RECORDS[wire.CREATE_CONTAINER] = _RECORDS[wire.CREATE_TTL] = _RECORDS[wire.CREATE2]


@dataclass(frozen=True, slots=True)
class Reply:
    """A normalised reply. `body` is () where the server sent none."""

    op: int
    xid: int
    zxid: int
    err: int
    body: Value = ()
    rest: bytes = b""

    def __str__(self) -> str:
        name = wire.OP_NAMES.get(self.op, str(self.op))
        tail = f" +{self.rest.hex()}" if self.rest else ""
        return f"{name} xid={self.xid} zxid={self.zxid} err={self.err} {self.body!r}{tail}"


@dataclass(frozen=True, slots=True)
class Event:
    """A normalised notification."""

    kind: int
    state: int
    path: bytes | None
    zxid: int
    err: int = 0
    rest: bytes = b""

    def __str__(self) -> str:
        names = {1: "created", 2: "deleted", 3: "changed", 4: "children"}
        return f"event {names.get(self.kind, self.kind)} {self.path!r} zxid={self.zxid}"


def xid_of(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big", signed=True)


def reply(payload: bytes, request: bytes, side: Side) -> Reply:
    """The reply to that request. Never fails: what cannot be decoded stays bytes."""
    op = int.from_bytes(request[4:8], "big", signed=True)
    if len(payload) < 16:
        return Reply(op, 0, 0, 0, ("short", payload))
    xid, zxid, err = struct.unpack_from(">iqi", payload)
    side.undecodable(request, zxid, err)
    zxid = side.last_zxid(zxid)
    cursor = Cursor(payload, 16)
    record = _RECORDS.get(op)
    if record is None or (err != 0 and len(payload) == 16):
        return Reply(op, xid, zxid, err, (), cursor.rest())
    try:
        return Reply(op, xid, zxid, err, record(cursor, side), cursor.rest())
    except Undecodable:
        return Reply(op, xid, zxid, err, ("undecodable",), payload[16:])


def event(payload: bytes, side: Side) -> Event:
    """The notification in a frame with xid -1."""
    cursor = Cursor(payload)
    try:
        _xid, zxid, err = cursor.take(">iqi")
        kind, state = cursor.take(">ii")
        return Event(kind, state, cursor.buffer(), side.zxid(zxid), err, cursor.rest())
    except Undecodable:
        return Event(0, 0, payload, 0)


def connect(payload: bytes | None, number: int, side: Side) -> Value:
    """A ConnectResponse; a session that is new gets `number`."""
    if payload is None:
        return ("closed",)
    try:
        got = wire.connected(payload)
    except struct.error:
        return ("short", payload)
    if got.session and got.session not in side.sessions:
        side.sessions[got.session] = number
    known = side.sessions.get(got.session, -1)
    password = "zeros" if not any(got.password) else "password"
    if len(got.password) != 16 or side.passwords.setdefault(known, got.password) != got.password:
        password = "another password"
    name = side.session_name(got.session)
    return ("connected", got.protocol, got.timeout_ms, name, password, got.rest)
