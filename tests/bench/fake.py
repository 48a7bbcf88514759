"""A little ZooKeeper server for the generators' tests: right, or wrong in one planted way.

It keeps nodes in a dict, speaks as much of the protocol as the generators use, and serves all
connections from one thread, so everything is in one order.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

CREATE, DELETE, EXISTS, GET, SET, CHILDREN, CHILDREN2 = 1, 2, 3, 4, 5, 8, 12
CHECK, MULTI, CLOSE = 13, 14, -11
NO_NODE, NODE_EXISTS = -101, -110
FAULT_AFTER = 500
"""Answers before the fault shows, so that the set-up is over."""


@dataclass(frozen=True)
class Node:
    data: bytes
    czxid: int
    mzxid: int
    version: int = 0
    children: int = 0
    cversion: int = 0
    pzxid: int = 0

    def stat(self) -> bytes:
        return struct.pack(
            ">qqqqiiiqiiq", self.czxid, self.mzxid, 1, 1, self.version, self.cversion, 0, 0,
            len(self.data), self.children, self.pzxid,
        )  # fmt: skip


@dataclass
class Link:
    """One connection."""

    sock: socket.socket
    buffer: bytes = b""
    greeted: bool = False
    out: list[bytes] = field(default_factory=list)


class Refused(Exception):
    """An error code for a reply."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class FakeServer:
    """Serves until `stop`. `fault`: one of the generators' kinds of wrong answers, or "slow"."""

    def __init__(self, fault: str = "", workload_paths: str = "/keys/") -> None:
        self.fault = fault
        self.where = workload_paths
        self.answers = 0
        self.zxid = 1
        self.nodes: dict[str, Node] = {"/": Node(b"", 0, 0)}
        self.children: dict[str, dict[str, None]] = {}
        self.before: dict[str, Node] = {}
        self.watches: dict[str, set[int]] = {}
        self.links: dict[int, Link] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._wake, self._sleep = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._wake.close()
        self._thread.join(10)
        self._sleep.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self.listener:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(self._sleep, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._sleep:
                        for link in self.links.values():
                            link.sock.close()
                        return
                    if key.fileobj is self.listener:
                        sock, _ = self.listener.accept()
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        self.links[sock.fileno()] = Link(sock)
                        selector.register(sock, selectors.EVENT_READ)
                    else:
                        self._serve(selector, self.links[key.fd])

    def _serve(self, selector: selectors.BaseSelector, link: Link) -> None:
        number = link.sock.fileno()
        try:
            data = link.sock.recv(65536)
            alive = bool(data) and self._frames(link, number, data)
            for other in self.links.values():
                if other.out:
                    other.sock.sendall(b"".join(other.out))
                    other.out.clear()
        except OSError:
            alive = False
        if not alive:
            selector.unregister(link.sock)
            del self.links[number]
            link.sock.close()

    def _frames(self, link: Link, number: int, data: bytes) -> bool:
        """Answer what is whole; False: close the connection."""
        link.buffer += data
        while len(link.buffer) >= 4:
            size = int.from_bytes(link.buffer[:4], "big")
            if len(link.buffer) < 4 + size:
                break
            frame, link.buffer = link.buffer[4 : 4 + size], link.buffer[4 + size :]
            if not link.greeted:
                link.greeted = True
                link.out.append(struct.pack(">iiiqi16sb", 37, 0, 30000, 99, 16, bytes(16), 0))
                continue
            xid, op = struct.unpack_from(">ii", frame)
            if op == CLOSE:
                self.zxid += 1
                link.out.append(struct.pack(">iiqi", 16, xid, self.zxid, 0))
                link.sock.sendall(b"".join(link.out))
                link.out.clear()
                return False
            if self._faulty("closed", ""):
                return False
            self._answer(link, number, xid, op, frame[8:])
        return True

    def _faulty(self, fault: str, path: str) -> bool:
        """Whether to be wrong now; once for all but the first few answers."""
        wrong = self.fault == fault and self.answers > FAULT_AFTER and self.where in path + "/keys/"
        if wrong:
            self.fault = ""
        return wrong

    def _answer(self, link: Link, number: int, xid: int, op: int, body: bytes) -> None:
        self.answers += 1
        if op in (CREATE, DELETE, SET, MULTI):
            self.zxid += 1
        try:
            reply, err = self._do(number, op, body), 0
        except Refused as e:
            reply, err = b"", e.code
        zxid = self.zxid
        if self._faulty("order", ""):
            xid += 1
        if self._faulty("error", ""):
            reply, err = b"", -1
        if self._faulty("zxid", ""):
            zxid = 1
        link.out.append(struct.pack(">iiqi", 16 + len(reply), xid, zxid, err) + reply)

    def _do(self, number: int, op: int, body: bytes) -> bytes:
        if op == MULTI:
            return self._multi(number, body)
        path, rest = self._path(body)
        if op in (GET, EXISTS, CHILDREN, CHILDREN2):
            return self._read(number, op, path, bool(rest[0]))
        return self._write(op, path, rest)[0]

    @staticmethod
    def _path(body: bytes) -> tuple[str, bytes]:
        size = int.from_bytes(body[:4], "big")
        return body[4 : 4 + size].decode(), body[4 + size :]

    def _read(self, number: int, op: int, path: str, watch: bool) -> bytes:
        node = self.nodes.get(path)
        if node is None:
            raise Refused(NO_NODE)
        if watch:
            self.watches.setdefault(path, set()).add(number)
        if path in self.before and self._faulty("stale", path):
            node = self.before[path]
        if self._faulty("stat", path):
            node = replace(node, mzxid=self.zxid + 50)
        if self._faulty("conflict", path):
            node = replace(node, version=node.version + 7)
        data = node.data
        if self._faulty("data", path):
            data = data[:-1] + b"?"
        if op == GET:
            return struct.pack(">i", len(data)) + data + node.stat()
        if op == EXISTS:
            return node.stat()
        names = self.children.get(path, {})
        listed = b"".join(struct.pack(">i", len(n)) + n.encode() for n in names)
        return struct.pack(">i", len(names)) + listed + (node.stat() if op == CHILDREN2 else b"")

    def _write(self, op: int, path: str, rest: bytes) -> tuple[bytes, bytes]:
        """The reply of one write, and what of `rest` is not its own."""
        if op == DELETE:
            if self.nodes.pop(path, None) is None:
                raise Refused(NO_NODE)
            self._child(path, -1)
            return b"", rest[4:]
        if op == CHECK:
            return b"", rest[4:]
        size = int.from_bytes(rest[:4], "big")
        data, rest = rest[4 : 4 + size], rest[4 + size :]
        if op == SET:
            old = self.nodes.get(path)
            if old is None:
                raise Refused(NO_NODE)
            self.before[path] = old
            self.nodes[path] = replace(old, data=data, mzxid=self.zxid, version=old.version + 1)
            self._fire(path)
            return self.nodes[path].stat(), rest[4:]
        if path in self.nodes:
            raise Refused(NODE_EXISTS)
        self.nodes[path] = Node(data, self.zxid, self.zxid, pzxid=self.zxid)
        self._child(path, 1)
        told = path[:-1] + "?" if self._faulty("path", "") else path
        return struct.pack(">i", len(told)) + told.encode(), rest[4 + 27 :]

    def _child(self, path: str, change: int) -> None:
        parent, _, name = path.rpartition("/")
        parent = parent or "/"
        node = self.nodes[parent]
        if change > 0:
            self.children.setdefault(parent, {})[name] = None
        else:
            del self.children[parent][name]
        self.nodes[parent] = replace(
            node, children=node.children + change, cversion=node.cversion + 1, pzxid=self.zxid
        )

    def _fire(self, path: str) -> None:
        told = b"/elsewhere" if self._faulty("event", path) else path.encode()
        event = struct.pack(">iqiiii", -1, self.zxid, 0, 3, 3, len(told)) + told
        for number in self.watches.pop(path, set()):
            if number in self.links:
                self.links[number].out.append(struct.pack(">i", len(event)) + event)

    def _multi(self, number: int, body: bytes) -> bytes:
        out = b""
        while True:
            op, done, _ = struct.unpack_from(">ibi", body)
            body = body[9:]
            if done:
                return out + struct.pack(">ibi", -1, 1, -1)
            path, rest = self._path(body)
            reply, body = self._write(op, path, rest)
            out += struct.pack(">ibi", op, 0, 0) + reply


@contextlib.contextmanager
def fake_server(fault: str = "", where: str = "/keys/") -> Iterator[FakeServer]:
    """A running server, stopped at the end."""
    server = FakeServer(fault, where)
    try:
        yield server
    finally:
        server.stop()
