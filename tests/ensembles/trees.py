"""The whole tree of one member, to be compared with another's node by node.

A node is its data, the Stat as a client sees it, its ACL and its children. `/zookeeper/config` is
compared by its data alone: each server writes that node itself, at its own time.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tests.conformance import wire
from tests.conformance.wire import Client

CONFIG = "/zookeeper/config"
READER = (b"digest", b"reader:secret")
"""Added by who reads a tree, so that nodes of `furnish` with this identity's ACL can be read."""
READER_ID = "reader:TwMYkJISsEPORbrSYGWeRLjeNEk="
_BATCH = 64
_STAT = struct.Struct(">qqqqiiiqiiq")


class Node(NamedTuple):
    """What a client is told of a node."""

    data: bytes | None
    stat: tuple[int, ...]
    acl: bytes
    children: tuple[str, ...]


Tree = dict[str, Node]


def _buffer(body: bytes, at: int) -> tuple[bytes | None, int]:
    length: int = struct.unpack_from(">i", body, at)[0]
    at += 4
    return (None, at) if length < 0 else (body[at : at + length], at + length)


class _Reader(Client):
    def many(self, requests: list[tuple[int, str]]) -> list[bytes]:
        """The bodies of the replies to reads of paths, in order."""
        bodies = []
        for begin in range(0, len(requests), _BATCH):
            part = requests[begin : begin + _BATCH]
            self.send(*(wire.request(1, op, _body(op, path)) for op, path in part))
            for op, path in part:
                reply = self.receive()
                if reply is None:
                    raise ConnectionError(f"closed while {path} was read")
                xid, _, err = struct.unpack_from(">iqi", reply)
                if err or xid != 1:
                    raise ValueError(f"reading {path} (op {op}): xid {xid}, error {err}")
                bodies.append(reply[16:])
        return bodies


def _body(op: int, path: str) -> bytes:
    return wire.text(path) if op in (wire.GET_ACL, wire.SYNC) else wire.watched(path)


def read_tree(address: tuple[str, int]) -> Tree:
    """All nodes, as this server has them after a sync."""
    host, port = address
    reader = _Reader(port, 30.0, host)
    try:
        reader.call(wire.AUTH, wire.auth(*READER))
        reader.call(wire.SYNC, wire.text("/"))
        tree: Tree = {}
        level = ["/"]
        while level:
            found = dict(zip(level, _nodes(reader, level), strict=True))
            tree |= found
            level = [f"{p.rstrip('/')}/{c}" for p, node in found.items() for c in node.children]
        return tree
    finally:
        with contextlib.suppress(ConnectionError, wire.ServerSilent):
            reader.close()


def _nodes(reader: _Reader, paths: list[str]) -> Iterator[Node]:
    ops = (wire.GET_DATA, wire.GET_ACL, wire.GET_CHILDREN)
    bodies = iter(reader.many([(op, path) for path in paths for op in ops]))
    for path in paths:
        got = next(bodies)
        data, at = _buffer(got, 0)
        stat = _STAT.unpack_from(got, at)
        acl = next(bodies)[: -_STAT.size]
        listed = next(bodies)
        names, at = [], 4
        for _ in range(struct.unpack_from(">i", listed)[0]):
            name, at = _buffer(listed, at)
            names.append((name or b"").decode())
        if path == CONFIG:
            stat = ()
        yield Node(data, stat, acl, tuple(sorted(names)))


async def tree_of(address: tuple[str, int]) -> Tree:
    """`read_tree` in a thread, while the event loop runs."""
    return await asyncio.to_thread(read_tree, address)


def differences(one: Tree, other: Tree, at_most: int = 20) -> list[str]:
    """What is not the same, a line a node."""
    lines = []
    for path in sorted(one.keys() | other.keys()):
        if one.get(path) != other.get(path):
            lines.append(f"{path}: {one.get(path)} / {other.get(path)}")
    return lines[:at_most]


def furnish(address: tuple[str, int], top: str) -> None:
    """Make nodes of every kind below `top`, which is made too; some are changed and deleted."""
    host, port = address
    client = Client(port, 30.0, host)
    locked = ((31, "digest", READER_ID), (1, "ip", "127.0.0.1"))

    def call(op: int, body: bytes) -> None:
        err, _ = client.call(op, body)
        if err:
            raise ValueError(f"op {op}: error {err}, {body[:80]!r}")

    def create(path: str, data: bytes | None, *, flags: int = 0, acl: object = wire.OPEN) -> None:
        call(wire.CREATE2, wire.create(f"{top}{path}", data, acl, flags))  # type: ignore[arg-type]

    call(wire.AUTH, wire.auth(*READER))
    create("", b"top")
    create("/null", None)
    create("/empty", b"")
    create("/é", b"\0\xff" * 700)
    create("/locked", b"x", acl=locked)
    create("/locked/below", b"y", acl=locked[:1])
    create("/many", b"")
    for number in range(60):
        create("/many/n-", b"%d" % number * 30, flags=2)
    for number in range(0, 60, 7):
        call(wire.DELETE, wire.versioned(f"{top}/many/n-{number:010d}", -1))
    for number in range(3):
        call(wire.SET_DATA, wire.set_data(f"{top}/empty", b"set %d" % number, number))
    call(wire.SET_ACL, wire.text(f"{top}/null") + wire.acls(locked) + wire.int_(0))
    call(wire.CREATE_CONTAINER, wire.create(f"{top}/container", b"c", wire.OPEN, 4))
    create("/container/child", b"")
    call(wire.CREATE_TTL, wire.create_ttl(f"{top}/ttl", b"t", wire.OPEN, 5, 3_600_000))
    call(wire.MULTI, wire.multi([
        (wire.CREATE, wire.create(f"{top}/together", b"1", wire.OPEN, 0)),
        (wire.SET_DATA, wire.set_data(f"{top}/together", b"2", 0)),
        (wire.CREATE, wire.create(f"{top}/together/below", b"3", wire.OPEN, 0)),
        (wire.DELETE, wire.versioned(f"{top}/many/n-{1:010d}", 0)),
    ]))  # fmt: skip
    create("/gone", b"", flags=1)
    client.close()
