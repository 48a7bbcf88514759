"""A member that leads and serves: it prepares the requests of its own clients and of learners'.

In the order in which they came, all against the state after what was proposed before. A learner's
request that cannot be read becomes an error transaction (Apache ZooKeeper never answers it).
Source: `PrepRequestProcessor.java`, `LearnerHandler.java`, `LeaderSessionTracker.java`.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from zkd.bus.messages import CLOSE_CONN
from zkd.jute.protocol import Err, Op
from zkd.server.peer import monotonic
from zkd.zab.inputs import LearnerSync, RevalidateAnswer
from zkd.zab.outputs import LearnerRequest, RevalidateAsked, Touched

if TYPE_CHECKING:
    from zkd.server.member.process import Member
    from zkd.tree.apply import Applied

UNCHECKED = frozenset({Op.CREATE_SESSION, Op.CLOSE_SESSION})
"""Requests that need not come from the session's owner."""


class Leading:
    """See the module's text."""

    def __init__(self, member: Member, zxid: int) -> None:
        """`zxid`: before the first one of this epoch."""
        self.member = member
        self._first = zxid
        self._asked: deque[LearnerRequest | RevalidateAsked] = deque()

    def begin(self) -> None:
        """The state is loaded: requests may be prepared."""
        member = self.member
        assert member.tree is not None
        member.zxid = self._first
        member.sessions.lead(member.tree.sessions, monotonic())

    def answered_by(self, applied: Applied) -> tuple[int, int, int, Any]:
        """Nobody waits for a transaction that this server has not prepared."""
        return 0, 0, 0, applied.results

    # -- learners ------------------------------------------------------------------------------

    def learner_asks(self, request: LearnerRequest | RevalidateAsked) -> None:
        """In its turn, when the outputs of this step are carried out."""
        self._asked.append(request)

    def touched(self, output: Touched) -> None:
        self.member.sessions.heard_by_learner(output.sessions, monotonic())

    def go_on(self) -> None:
        """Do what learners have asked."""
        member, asked = self.member, self._asked
        if not asked or member.tree is None:
            return
        while asked:
            request = asked.popleft()
            if isinstance(request, RevalidateAsked):
                self._revalidate(request)
            elif request.op == Op.SYNC:
                member.hand_on()
                member.feed(LearnerSync(request.conn))
            else:
                self._prepare(request)
        member.hand_on()

    def _revalidate(self, asked: RevalidateAsked) -> None:
        member = self.member
        told = (asked.session, asked.timeout_ms, asked.conn, monotonic())
        valid, old = member.sessions.revalidate(*told)
        if old is not None:
            old.link.outbox.send((CLOSE_CONN, old.number, "the client has gone to another server"))
        member.feed(RevalidateAnswer(asked.conn, asked.session, valid))

    def _prepare(self, request: LearnerRequest) -> None:
        member, sessions = self.member, self.member.sessions
        session, op, cxid, body = request.session, request.op, request.cxid, request.body
        error = 0 if op in UNCHECKED else sessions.check(session, request.conn)
        member.zxid += 1
        zxid, now_ms = member.zxid, int(time.time() * 1000)
        told = (op, body, session, cxid, request.authinfo or (), zxid, now_ms, error)
        err, txn, effects, results = member.prepare(*told)
        if not txn:
            refused = (zxid, Err.MARSHALLING_ERROR, session, cxid, now_ms)
            err, txn, effects, results = member.preparer.error(*refused)
        member.batch.append((zxid, 0, 0, 0, err, txn, effects, results))
        if op == Op.CLOSE_SESSION:
            sessions.close(session)
        elif op == Op.CREATE_SESSION and not err:
            timeout_ms = int.from_bytes(body[:4], "big", signed=True)
            sessions.create_at(session, timeout_ms, request.conn, monotonic())
