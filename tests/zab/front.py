"""What a server does for clients beside the core: sessions, the order of requests, answers.

    a leader prepares the requests of all servers in the order in which they come; each gets its
    zxid before the next is looked at
    answers of a learner: its own forwarded requests, in their order, each when its transaction is
    delivered here
    all of it ends with the role

Sessions are followed by the real tracker (`zkd.zab.sessions`): owners, touches, expiry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tests.zab.bodies import Body, Kind, read_body, write_body
from tests.zab.checks import Violation
from zkd.jute.protocol import Op
from zkd.jute.quorum import request, touches
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.inputs import Txn
from zkd.zab.sessions import SessionTracker
from zkd.zab.votes import ServerState

if TYPE_CHECKING:
    from tests.zab.node import Node

HERE = "here"
"""The owner of a session whose client is with the leader itself."""


class Client(Protocol):
    """Who is told."""

    session: int

    def answered(self, cxid: int, zxid: int, body: Body) -> None: ...
    def revalidated(self, valid: bool) -> None: ...
    def synced(self, tag: int) -> None: ...
    def dropped(self) -> None: ...


class Front:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.clients: dict[int, Client] = {}
        self.known: dict[int, int] = {}
        """Sessions of the tree, with their timeouts."""
        self._tracker: SessionTracker | None = None
        self._batch: list[Txn] = []
        self._next: list[i.Input] = []
        self._waiting: deque[tuple[int, int]] = deque()
        self._asked: list[int] = []
        self._syncs: dict[int, tuple[Client, int, int, int]] = {}
        self._heard: dict[int, int] = {}
        self._tag = 0

    # ---- roles

    def serves(self, output: o.Serving) -> None:
        if output.role is ServerState.LEADING:
            node = self.node
            tick = node.group.settings.tick_ms
            self._tracker = SessionTracker(tick, dict(self.known), node.clock_ms)

    def ends(self) -> None:
        """The role, or this life of the server."""
        clients, self.clients = list(self.clients.values()), {}
        self._tracker = None
        self._waiting.clear()
        for things in (self._batch, self._next, self._asked, self._heard, self._syncs):
            things.clear()
        for client in clients:
            client.dropped()

    def may_serve(self) -> bool:
        node = self.node
        if not node.serving or node.peer is None or node.stalled:
            return False
        lease_ms = node.peer.lease_ms
        return lease_ms is not None and node.clock_ms <= lease_ms

    # ---- clients of this server

    def ask(self, client: Client, requests: Sequence[tuple[int, int, bytes]]) -> None:
        """Requests, each a cxid, an operation, a body, read from the client at once."""
        self.clients[client.session] = client
        self._waiting.extend((client.session, cxid) for cxid, _, _ in requests)
        if self._tracker is not None:
            for cxid, op, body in requests:
                self._prepare(HERE, client.session, cxid, op, body)
            self.node.feed(*self.flush())
        else:
            ids = (("ip", "10.0.0.1"),)
            session = client.session
            forwarded = [(request(session, cxid, op, body), ids) for cxid, op, body in requests]
            self.node.feed(i.Forward(forwarded))

    def sync(self, client: Client, floor: int) -> None:
        """`floor`: what somebody has been told already."""
        node = self.node
        self._tag += 1
        self._syncs[self._tag] = (client, self._tag, floor, node.epoch)
        node.feed(i.Sync(self._tag, request(client.session, self._tag, Op.SYNC, b"/")))

    def attach(self, client: Client, timeout_ms: int) -> None:
        """A client comes with a session that it had elsewhere."""
        node = self.node
        self.clients[client.session] = client
        if self._tracker is not None:
            client.revalidated(self._take_over(client.session, HERE))
        else:
            self._asked.append(client.session)
            node.feed(i.Revalidate(client.session, timeout_ms))

    def detach(self, client: Client) -> None:
        self.clients.pop(client.session, None)

    def touch(self, client: Client, timeout_ms: int) -> None:
        if self._tracker is not None:
            self._tracker.touch(client.session, self.node.clock_ms)
        else:
            self._heard[client.session] = timeout_ms

    # ---- the leader

    def _take_over(self, session: int, owner: object) -> bool:
        assert self._tracker is not None
        self._tracker.touch(session, self.node.clock_ms)
        return self._tracker.set_owner(session, owner)

    def _prepare(self, owner: object, session: int, cxid: int, op: int, data: bytes) -> None:
        """A request becomes a transaction: of the session, or an error."""
        tracker = self._tracker
        assert tracker is not None
        body = read_body(data)
        assert body is not None, "a request of this simulation"
        assert (body.session, body.cxid) == (session, cxid), "a request arrives as it was sent"
        kind = body.kind
        if op == Op.CREATE_SESSION:
            tracker.create(session, body.timeout_ms, self.node.clock_ms, owner)
        elif tracker.check(session, owner):
            kind = Kind.ERROR
            self.node.group.count("refused")
        elif op == Op.CLOSE_SESSION:
            tracker.set_closing(session)
        self._propose(Body(kind, session, body.base, cxid, body.timeout_ms))

    def _propose(self, body: Body) -> None:
        node = self.node
        first = node.peer.next_zxid if node.peer is not None else None
        if first is not None:
            first += sum(len(e.txns) for e in self._next if isinstance(e, i.Propose))
            self._batch.append((first + len(self._batch), write_body(body)))

    def expire(self) -> None:
        if self._tracker is not None and not self.node.stalled:
            for session in self._tracker.expire(self.node.clock_ms):
                self.node.group.count("expired")
                self._propose(Body(Kind.CLOSE, session, 0, 0))
            self.node.feed(*self.flush())

    def flush(self) -> list[i.Input]:
        """What has been prepared, for the core."""
        self._flush_batch()
        events, self._next = self._next, []
        return events

    def _flush_batch(self) -> None:
        if self._batch:
            self.node.group.checks.proposed(self._batch)
            self._next.append(i.Propose(self._batch))
            self._batch = []

    # ---- outputs of the core

    def carry(self, output: o.Output) -> None:
        if isinstance(output, o.LearnerRequest):
            if self._tracker is None:
                return
            if output.op == Op.SYNC:
                self._flush_batch()
                self._next.append(i.LearnerSync(output.conn))
            else:
                self._prepare(output.conn, output.session, output.cxid, output.op, output.body)
        elif isinstance(output, o.RevalidateAsked):
            if self._tracker is not None:
                valid = self._take_over(output.session, output.conn)
                self._next.append(i.RevalidateAnswer(output.conn, output.session, valid))
        elif isinstance(output, o.Touched):
            for session, timeout_ms in output.sessions:
                if self._tracker is not None:
                    self._tracker.touch(session, self.node.clock_ms)
                else:
                    self._heard[session] = timeout_ms
        elif isinstance(output, o.Synced):
            client, tag, floor, epoch = self._syncs.pop(output.tag)
            self.node.group.checks.synced(self.node, output.zxid, floor, epoch)
            client.synced(tag)
        elif isinstance(output, o.Revalidated):
            self._revalidated(output)

    def _revalidated(self, output: o.Revalidated) -> None:
        if output.session not in self._asked:
            raise Violation("sessions", "an answer to a REVALIDATE that nobody asked")
        self._asked.remove(output.session)
        client = self.clients.get(output.session)
        if client is not None:
            client.revalidated(output.valid)

    def touch_table(self) -> bytes:
        table, self._heard = self._heard, {}
        return touches(table)

    # ---- what is delivered

    def applied(self, txns: list[Txn]) -> None:
        for zxid, raw in txns:
            body = read_body(raw)
            if body is not None:
                self._apply(body)
                self._answer(zxid, body)

    def replaced(self, txns: list[Txn]) -> None:
        """By a snapshot."""
        self.known.clear()
        for _, raw in txns:
            body = read_body(raw)
            if body is not None:
                self._apply(body)

    def _apply(self, body: Body) -> None:
        if body.kind is Kind.CREATE:
            self.known[body.session] = body.timeout_ms
        elif body.kind is Kind.CLOSE:
            self.known.pop(body.session, None)
            if self._tracker is not None:
                self._tracker.close(body.session)

    def _answer(self, zxid: int, body: Body) -> None:
        key = (body.session, body.cxid)
        if key not in self._waiting or (body.kind is Kind.CLOSE and not body.base):
            return
        if self._waiting.popleft() != key:
            raise Violation("sessions", f"{key} is answered before its turn")
        client = self.clients.get(body.session)
        if client is not None:
            client.answered(body.cxid, zxid, body)
