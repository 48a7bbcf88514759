"""Requests of the ZooKeeper protocol that a shell makes, in the form that kazoo sends.

kazoo takes any object with `type`, `serialize()` and `deserialize(buffer, offset)`; its own classes
lack half of the opcodes and couple a watch to a callback, so the shell brings its own, one function
an opcode, on kazoo's primitives. Layouts: zookeeper.jute of Apache ZooKeeper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kazoo.protocol.serialization import (
    int_struct,
    long_struct,
    multiheader_struct,
    read_acl,
    read_buffer,
    read_string,
    stat_struct,
    write_buffer,
)
from kazoo.protocol.states import ZnodeStat
from kazoo.security import ACL

CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN = range(1, 9)
SYNC, GET_CHILDREN2, MULTI, CREATE2, RECONFIG = 9, 12, 14, 15, 16
REMOVE_WATCHES, CREATE_CONTAINER, CREATE_TTL, MULTI_READ = 18, 19, 21, 22
GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER, SET_WATCHES2, ADD_WATCH, WHO_AM_I = 103, 104, 105, 106, 107
ERROR = -1

# CreateMode flags.
PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL = 0, 1, 2, 3
CONTAINER, TTL, SEQUENTIAL_TTL = 4, 5, 6


@dataclass(frozen=True, slots=True)
class Request:
    """An opcode, its encoded record, and how its reply is read."""

    type: int
    record: bytes
    read: Callable[[bytes, int], Any]

    def serialize(self) -> bytes:
        return self.record

    def deserialize(self, buffer: bytes, offset: int) -> Any:
        return self.read(buffer, offset)


# -- primitives ----------------------------------------------------------------------------------


def _string(value: str | None) -> bytes:
    data: bytes = write_buffer(None if value is None else value.encode())
    return data


def _int(value: int) -> bytes:
    data: bytes = int_struct.pack(value)
    return data


def _flag(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _strings(values: Sequence[str]) -> bytes:
    return _int(len(values)) + b"".join(map(_string, values))


def _acls(acl: Sequence[Any]) -> bytes:
    rows = (_int(a.perms) + _string(a.id.scheme) + _string(a.id.id) for a in acl)
    return _int(len(acl)) + b"".join(rows)


def _nothing(buffer: bytes, offset: int) -> None:
    return None


def _read_string(buffer: bytes, offset: int) -> str:
    value: str = read_string(buffer, offset)[0]
    return value


def _read_strings(buffer: bytes, offset: int) -> tuple[list[str], int]:
    (count,) = int_struct.unpack_from(buffer, offset)
    offset += int_struct.size
    values = []
    for _ in range(count):
        value, offset = read_string(buffer, offset)
        values.append(value)
    return values, offset


def _read_only_strings(buffer: bytes, offset: int) -> list[str]:
    return _read_strings(buffer, offset)[0]


def _read_stat(buffer: bytes, offset: int) -> Any:
    return ZnodeStat._make(stat_struct.unpack_from(buffer, offset))


def _read_data(buffer: bytes, offset: int) -> tuple[bytes | None, Any]:
    data, offset = read_buffer(buffer, offset)
    return data, _read_stat(buffer, offset)


def _read_children(buffer: bytes, offset: int) -> tuple[list[str], Any]:
    children, offset = _read_strings(buffer, offset)
    return children, _read_stat(buffer, offset)


def _read_acls(buffer: bytes, offset: int) -> tuple[list[Any], Any]:
    (count,) = int_struct.unpack_from(buffer, offset)
    offset += int_struct.size
    acl: list[ACL] = []
    for _ in range(count):
        entry, offset = read_acl(buffer, offset)
        acl.append(entry)
    return acl, _read_stat(buffer, offset)


def _read_identities(buffer: bytes, offset: int) -> list[tuple[str, str]]:
    (count,) = int_struct.unpack_from(buffer, offset)
    offset += int_struct.size
    identities = []
    for _ in range(count):
        scheme, offset = read_string(buffer, offset)
        user, offset = read_string(buffer, offset)
        identities.append((scheme or "", user or ""))
    return identities


# -- requests ------------------------------------------------------------------------------------


def create(path: str, data: bytes | None, acl: Sequence[Any], mode: int, ttl_ms: int) -> Request:
    """The name of the new node. The opcode follows from the mode, as in Apache's client."""
    record = _string(path) + write_buffer(data) + _acls(acl) + _int(mode)
    if mode in (TTL, SEQUENTIAL_TTL):
        return Request(CREATE_TTL, record + long_struct.pack(ttl_ms), _read_string)
    return Request(CREATE_CONTAINER if mode == CONTAINER else CREATE, record, _read_string)


def delete(path: str, version: int) -> Request:
    return Request(DELETE, _string(path) + _int(version), _nothing)


def exists(path: str, watch: bool) -> Request:
    """The stat; kazoo answers None for a node that is not there."""
    return Request(EXISTS, _string(path) + _flag(watch), _read_stat)


def get_data(path: str, watch: bool) -> Request:
    """(data or None, stat)"""
    return Request(GET_DATA, _string(path) + _flag(watch), _read_data)


def set_data(path: str, data: bytes | None, version: int) -> Request:
    """The stat."""
    return Request(SET_DATA, _string(path) + write_buffer(data) + _int(version), _read_stat)


def get_acl(path: str) -> Request:
    """(list of kazoo's ACL, stat)"""
    return Request(GET_ACL, _string(path), _read_acls)


def set_acl(path: str, acl: Sequence[Any], version: int) -> Request:
    """The stat."""
    return Request(SET_ACL, _string(path) + _acls(acl) + _int(version), _read_stat)


def get_children(path: str, watch: bool) -> Request:
    """(names, stat)"""
    return Request(GET_CHILDREN2, _string(path) + _flag(watch), _read_children)


def sync(path: str) -> Request:
    """The path."""
    return Request(SYNC, _string(path), _read_string)


def get_ephemerals(prefix: str) -> Request:
    """Paths of this session's ephemerals that begin with the prefix."""
    return Request(GET_EPHEMERALS, _string(prefix), _read_only_strings)


def get_all_children_number(path: str) -> Request:
    """The number of all descendants."""

    def read(buffer: bytes, offset: int) -> int:
        (count,) = int_struct.unpack_from(buffer, offset)
        return int(count)

    return Request(GET_ALL_CHILDREN_NUMBER, _string(path), read)


def who_am_i() -> Request:
    """[(scheme, user)]"""
    return Request(WHO_AM_I, b"", _read_identities)


def add_watch(path: str, mode: int) -> Request:
    """`mode`: 0 persistent, 1 persistent and recursive."""
    return Request(ADD_WATCH, _string(path) + _int(mode), _nothing)


def remove_watches(path: str, kind: int) -> Request:
    """`kind`: 1 children, 2 data, 3 any, 4 persistent, 5 persistent and recursive."""
    return Request(REMOVE_WATCHES, _string(path) + _int(kind), _nothing)


def set_watches2(zxid: int, paths: Sequence[Sequence[str]]) -> Request:
    """`paths`: of data, exist, child, persistent and recursive watches."""
    record = long_struct.pack(zxid) + b"".join(map(_strings, paths))
    return Request(SET_WATCHES2, record, _nothing)


def reconfig(
    joining: str | None, leaving: str | None, members: str | None, version: int
) -> Request:
    """(configuration, stat)"""
    record = _string(joining) + _string(leaving) + _string(members) + long_struct.pack(version)
    return Request(RECONFIG, record, _read_data)


def multi(operations: Iterable[Request]) -> Request:
    """One error code for each operation, 0 where it was done; all are done or none is."""

    def read(buffer: bytes, offset: int) -> list[int]:
        return [result if kind == ERROR else 0 for kind, result in _results(buffer, offset)]

    return Request(MULTI, _multi_record(operations), read)


def multi_read(operations: Iterable[Request]) -> Request:
    """For each getChildren its names and for each getData (data, stat); an int is an error code."""

    def read(buffer: bytes, offset: int) -> list[Any]:
        return [result for _, result in _results(buffer, offset)]

    return Request(MULTI_READ, _multi_record(operations), read)


def children_of_many(paths: Iterable[str]) -> Request:
    """For each path the names of its children, or an error code."""
    record = (Request(GET_CHILDREN, _string(p) + _flag(False), _nothing) for p in paths)
    return multi_read(record)


def _multi_record(operations: Iterable[Request]) -> bytes:
    items = (multiheader_struct.pack(op.type, 0, -1) + op.record for op in operations)
    end: bytes = multiheader_struct.pack(-1, 1, -1)
    return b"".join(items) + end


def _results(buffer: bytes, offset: int) -> Iterable[tuple[int, Any]]:
    """(kind of result, value) for each operation of a multi or multiRead."""
    while True:
        kind, done, _ = multiheader_struct.unpack_from(buffer, offset)
        offset += multiheader_struct.size
        if done:
            return
        value: Any = None
        if kind == ERROR:
            (value,) = int_struct.unpack_from(buffer, offset)
            offset += int_struct.size
        elif kind in (CREATE, CREATE2):
            value, offset = read_string(buffer, offset)
            offset += stat_struct.size if kind == CREATE2 else 0
        elif kind == SET_DATA:
            value = _read_stat(buffer, offset)
            offset += stat_struct.size
        elif kind == GET_DATA:
            data, offset = read_buffer(buffer, offset)
            value = (data, _read_stat(buffer, offset))
            offset += stat_struct.size
        elif kind == GET_CHILDREN:
            value, offset = _read_strings(buffer, offset)
        yield kind, value
