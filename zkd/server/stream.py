"""A front-end's place in the peer's stream: incarnations, gaps, what is handed out and not applied.

    applied <= committed        txns = handed out, above applied, in order

A message of another incarnation is dropped; a number that is missing means to join again. What is
announced before its bytes have come waits for them. Alone, what storage says is durable is
committed; in an ensemble the peer says it, and storage's word only moves the tree on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zkd import failpoints
from zkd.bus.messages import JOIN, REFUSE

if TYPE_CHECKING:
    from zkd.bus.sockets import Direct
    from zkd.server.frontend import FrontEnd

Txn = tuple[Any, ...]


class Stream:
    """Feeds the front-end with committed transactions and the peer's answers, in order."""

    def __init__(self, fe: FrontEnd) -> None:
        self.fe = fe
        self.txns: deque[Txn] = deque()
        self.answers: deque[tuple[int, tuple[Any, ...]]] = deque()
        """(zxid that must be applied first, answer)"""
        self.incarnation = -1
        """-1: in none, everything is dropped until BEGIN."""
        self.peer_life = 0
        self.alone = True
        """What is durable is committed."""
        self.next_seq = 0
        self.committed = 0
        self.turn = -1
        """The one of the tree's that is read here,"""
        self.turned = -1
        """and the newest one that storage has spoken of."""
        self.deadline = 0.0
        """Until when the peer's grant lasts (CLOCK_MONOTONIC)."""
        self.granted: int = REFUSE
        """What the peer lets clients' writes do (bus/messages.py)."""
        self._announced: dict[int, int] = {}
        """incarnation -> durable zxid, for the latest one that storage has spoken of."""

    def join(self, peer: Direct) -> None:
        """Tell the peer who lives here; it answers with BEGIN."""
        fe = self.fe
        fe.requests.clear()
        fe.throttle.clear()
        living = [(c.number, c.session, c.identities) for c in fe.sessions.values()]
        peer.send((JOIN, fe.child.name, fe.child.life, living))

    def begin(self, message: tuple[Any, ...]) -> None:
        """An incarnation begins for this front-end, or the peer has lost what it had handed out."""
        _, incarnation, life, committed, seq, alone, deadline, granted, forget, pending = message
        fe = self.fe
        if fe.peer is None or life != fe.peer.life:
            return
        if life != self.peer_life or forget:
            fe.close_unanswered("the request may or may not have been done")
        self.peer_life, self.incarnation, self.alone = life, incarnation, alone
        self.next_seq = seq
        self.txns.clear()
        self.answers.clear()
        first = pending[0][0] if pending else committed + 1
        fe.served.catch_up(min(first - 1, committed), fe.close_watching)
        self.txns.extend(txn for txn in pending if txn[0] > fe.served.applied)
        announced = self._announced.get(incarnation, 0) if alone else 0
        self.committed = max(committed, announced)
        self.deadline, self.granted = deadline, granted
        fe.log.debug("frontend.joined", incarnation=incarnation, applied=hex(fe.served.applied))
        fe.begun()

    def take_txns(self, message: tuple[Any, ...]) -> None:
        """A batch that the peer has handed out."""
        _, incarnation, seq, txns = message
        if incarnation != self.incarnation:
            return
        if seq != self.next_seq:
            self._gap(seq)
            return
        self.next_seq = seq + 1
        self.txns += txns
        failpoints.hit("frontend.after-txns")

    def take_answers(self, message: tuple[Any, ...]) -> None:
        """Answers that need no transaction; seq is that of the next batch."""
        _, incarnation, seq, answers = message
        if incarnation != self.incarnation:
            return
        if seq != self.next_seq:
            self._gap(seq)
            return
        self.answers.extend((answer[2], answer) for answer in answers)

    def take_durable(self, message: tuple[Any, ...]) -> None:
        """Storage's word."""
        _, incarnation, _seq, durable, _tree_zxid, turn = message
        if incarnation != self.incarnation:
            self._announced = {incarnation: durable}
            return
        if self.alone:
            self.committed = durable
        self.turned = turn
        if turn != self.turn:
            self.move_on()

    def move_on(self) -> None:
        """Read the tree on disk as it is since its last turn, if what it holds is applied here."""
        if self.fe.served.started:
            turn = self.turned
            self.fe.apply_ready()
            if self.fe.served.view.advance():
                self.turn = turn
                self.fe.unpin()

    def take_committed(self, message: tuple[Any, ...]) -> None:
        """The peer's word, in an ensemble."""
        _, incarnation, zxid = message
        if incarnation == self.incarnation:
            self.committed = max(self.committed, zxid)

    def take_grant(self, message: tuple[Any, ...]) -> None:
        """The peer lets this front-end serve a while longer."""
        _, incarnation, deadline, granted = message
        if incarnation == self.incarnation:
            self.deadline = deadline
            self.granted = granted

    def _gap(self, seq: int) -> None:
        """Something is missing: join again, never go on."""
        self.fe.log.error("bus.gap", expected=self.next_seq, got=seq)
        self.join_again()

    def join_again(self) -> None:
        """Begin anew with the present peer; what it was asked and has not answered is lost."""
        self.incarnation = -1
        self.peer_life = 0
        if self.fe.peer is not None:
            self.join(self.fe.peer)

    def lapsed(self) -> bool:
        """Has the grant run out?"""
        return time.monotonic() > self.deadline

    def each_ready(self, apply: Callable[[Txn], None], answer: Callable[[Txn], None]) -> None:
        """Apply what is committed and answer what has no transaction, in the peer's order."""
        txns, committed, answers = self.txns, self.committed, self.answers
        while txns and txns[0][0] <= committed:
            txn = txns.popleft()
            while answers and answers[0][0] < txn[0]:
                answer(answers.popleft()[1])
            apply(txn)
        served = self.fe.served
        while answers and answers[0][0] <= served.applied:
            answer(answers.popleft()[1])
