"""A member of an ensemble whose peer is the test: it says what is committed, and when.

`Member` starts the real storage and front-end processes over a folder of its own; `send` and
`expect` are the peer's side of the bus. Transactions are made by the real preparer over the tree
that the peer would have, in `Tree`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from zkd.bus.messages import (
    ACCEPT,
    BEGIN,
    COMMITTED,
    DURABLE,
    GRANT,
    NO_GRANT,
    OPEN,
    OPENED,
    REFUSE,
    REQUESTS,
    TXNS,
    decode,
)
from zkd.bus.places import listen
from zkd.bus.sockets import Direct, Inbox
from zkd.jute.protocol import Op
from zkd.plugins import loader
from zkd.plugins.auth import AuthRegistry
from zkd.storage.generation import GenerationWriter
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.schema import FRESH_NODES
from zkd.storage.tree import TreeReader, open_tree
from zkd.tree.prepare import Preparer
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

LIMIT_S = 10.0
FRONTEND = "frontend 1"
ROOT = Path(__file__).parents[2]
Txn = tuple[Any, ...]
OPEN_ACL = b"\0\0\0\1\0\0\0\x1f\0\0\0\5world\0\0\0\6anyone"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(4, "big") + data


class Process:
    """One child, in one life."""

    def __init__(self, member: Member, name: str, life: int, failpoints: str) -> None:
        self.name, self.life, self.output = name, life, member.output
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(LIMIT_S)
        with theirs, member.output.open("ab") as out:
            fd = theirs.fileno()
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.member.child", name, str(life)]
                + [str(member.config), str(member.runtime), str(fd)],
                env={**os.environ, "ZKD_FAILPOINTS": failpoints},
                cwd=ROOT,
                pass_fds=(fd,),
                stdout=out,
                stderr=out,
            )

    def ready(self) -> None:
        while not json.loads(self.control.recv(65536) or "{}").get("ready"):
            assert self.popen.poll() is None, self.output.read_text()

    def tell(self, **message: object) -> None:
        self.control.send(json.dumps(message).encode())

    def killed(self) -> None:
        """Wait until a fail point has killed it."""
        assert self.popen.wait(LIMIT_S) == -signal.SIGKILL
        self.control.close()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(LIMIT_S)
        self.control.close()


class Tree:
    """The peer's tree, and the transactions that it makes."""

    def __init__(self, base: TreeReader) -> None:
        settings = TreeSettings()
        self.state = TreeState(base, cache_bytes=1 << 20, settings=settings)
        self.preparer = Preparer(self.state, settings, AuthRegistry(loader.load({}, "peer")))
        self.zxid = base.zxid

    def write(self, op: int, body: bytes, *, session: int = 0, asked: Any = (0, 0, 0)) -> Txn:
        """`asked`: life, connection and xid of the request."""
        self.zxid += 1
        err, txn, effects, results = self.preparer.prepare(
            op, body, session, asked[2], (("ip", "127.0.0.1"),), self.zxid, 1_700_000_000_000
        )
        return (self.zxid, *asked, err, txn, effects, results)

    def create(self, path: str, data: bytes = b"") -> Txn:
        return self.write(Op.CREATE, text(path) + text(data) + OPEN_ACL + bytes(4))

    def creates(self, first: int, count: int) -> list[Txn]:
        return [self.create(f"/n{i}") for i in range(first, first + count)]


class Member:
    """The folders and processes of a server, and the peer's side of its bus."""

    def __init__(self, settings: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="zkd-m-"))
        self.runtime = self.folder / "run"
        self.data = self.folder / "data"
        self.output = self.folder / "out"
        self.port = free_port()
        self.runtime.mkdir()
        self.data.mkdir()
        (self.data / "myid").write_text("1")
        self.config = self.folder / "zoo.cfg"
        lines = [f"server.{i}=127.0.0.1:{10_000 + i}:{11_000 + i}" for i in (1, 2, 3)]
        lines += [f"dataDir={self.data}", f"clientPort={self.port}", "frontends=1"]
        lines += ["clientPortAddress=127.0.0.1", "initLimit=10", "syncLimit=5"]
        lines += ["flush.interval=20", settings]
        self.config.write_text("\n".join(lines))
        self.processes: dict[str, Process] = {}
        self.outs: dict[str, Direct] = {}
        self.context: zmq.Context[Any] = zmq.Context()
        self.life = 1000
        self.peer_life = self.next_life()
        self.inbox = self._inbox()
        self.incarnation = self.committed = 0
        self.seq = 1
        self.heard: list[Txn] = []

    def _inbox(self) -> Inbox:
        listener = listen(self.runtime, "peer", self.peer_life)
        return Inbox(self.context, self.runtime, "peer", self.peer_life, listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            process.kill()
        for out in self.outs.values():
            out.close()
        self.inbox.close()
        self.context.term()
        if error is not None:
            print(self.output.read_text())  # pytest shows it
        shutil.rmtree(self.folder)

    def next_life(self) -> int:
        self.life += 1
        return self.life

    # -- processes -----------------------------------------------------------------------------

    def start(self, name: str, failpoints: str = "") -> Process:
        """(Re)start a process, and tell all of the lives."""
        process = Process(self, name, self.next_life(), failpoints)
        self.processes[name] = process
        process.ready()
        if name in self.outs:
            self.outs[name].close()
        self.outs[name] = Direct(self.inbox, self.runtime, name, process.life)
        self.tell_lives()
        return process

    def tell_lives(self) -> None:
        lives = {name: process.life for name, process in self.processes.items()}
        for process in self.processes.values():
            process.tell(lives={**lives, "peer": self.peer_life})

    def new_peer(self) -> None:
        """The peer's process begins another life."""
        self.inbox.close()
        self.peer_life = self.next_life()
        self.inbox = self._inbox()
        self.heard.clear()
        for name, process in self.processes.items():
            self.outs[name].close()
            self.outs[name] = Direct(self.inbox, self.runtime, name, process.life)
        self.tell_lives()

    # -- the bus -------------------------------------------------------------------------------

    def send(self, name: str, *message: Any) -> None:
        self.outs[name].send(message)

    def order(self, kind: int, *rest: Any) -> None:
        """Something for storage, in the present incarnation."""
        self.send("storage", kind, self.incarnation, *rest)

    def receive(self, within_s: float = LIMIT_S) -> Txn | None:
        """The next message that has not been handed out."""
        if self.heard:
            return self.heard.pop(0)
        frame = self.inbox.recv(within_s)
        return decode(frame) if frame else None

    def expect(self, *kinds: int, where: Any = lambda message: True) -> Txn:
        """The next message of these kinds that fits; what comes before it is dropped."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            message = self.receive(max(0.0, until - time.monotonic()))
            if message is not None and message[0] in kinds and where(message):
                return message
        raise AssertionError(f"no message of kind {kinds}")

    def open(self) -> Txn:
        """A new incarnation; what OPENED says from `durable` on, but for the tree's zxid: its flush
        may be seen before storage itself notices."""
        self.send("storage", OPEN, self.peer_life)
        opened = self.expect(OPENED)
        self.incarnation = opened[2]
        self.seq = 1
        assert opened[4] <= opened[-1]
        return (opened[3], *opened[5:])

    # -- a role --------------------------------------------------------------------------------

    def begin(self, committed: int, pending: Sequence[Txn] = (), writes: int = ACCEPT) -> None:
        """The front-end may serve."""
        self.committed = committed
        deadline = time.monotonic() + 60
        begin = (BEGIN, self.incarnation, self.peer_life, committed, self.seq, False, deadline)
        self.send(FRONTEND, *begin, writes, False, list(pending))

    def hand_on(self, *txns: Txn) -> None:
        """To storage and to the front-end, until it is durable."""
        for name in ("storage", FRONTEND):
            self.send(name, TXNS, self.incarnation, self.seq, list(txns))
        self.seq += 1
        self.expect(DURABLE, where=lambda message: message[3] == txns[-1][0])

    def commit(self, zxid: int) -> None:
        for name in ("storage", FRONTEND):
            self.send(name, COMMITTED, self.incarnation, zxid)

    def grant(self, for_s: float, writes: int = ACCEPT) -> None:
        self.send(FRONTEND, GRANT, self.incarnation, time.monotonic() + for_s, writes)

    def role_over(self) -> None:
        self.send(FRONTEND, GRANT, self.incarnation, NO_GRANT, REFUSE)

    def request(self, op: int) -> tuple[int, int, int, Any]:
        """The next request of this kind: connection, xid, op, payload."""
        while True:
            for item in self.expect(REQUESTS)[3]:
                if item[2] == op:
                    return tuple(item)  # type: ignore[return-value]

    def nothing_comes(self, sock: socket.socket, for_s: float = 0.2) -> bool:
        """Whether a client hears nothing for a while."""
        return not select.select([sock], [], [], for_s)[0]

    # -- files ---------------------------------------------------------------------------------

    def read_tree(self) -> TreeReader:
        return open_tree(self.data, self.data, cache_bytes=1 << 20)

    def tree_zxid(self) -> int:
        reader = self.read_tree()
        try:
            return reader.zxid
        finally:
            reader.close()

    def has(self, *paths: str) -> list[bool]:
        reader = self.read_tree()
        try:
            return [reader.node(path) is not None for path in paths]
        finally:
            reader.close()

    def snapshot(self, zxid: int, path: str) -> None:
        """What the reception of a snapshot leaves: the next generation, with one more node."""
        log = LogReader(self.data / LOG_NAME)
        meta = log.meta()
        log.close()
        writer = GenerationWriter(self.data, meta.generation + 1, meta.id, TreeSettings())
        stat = zxid.to_bytes(8, "big") * 2 + bytes(52)
        writer.nodes([*FRESH_NODES, (path, b"snapped", stat, None)])
        writer.finish(zxid)
