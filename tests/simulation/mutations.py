"""The protocol broken on purpose, one thing at a time: the simulation must notice each.

The core's own assertions (`zkd/zab/invariants.py`) are off meanwhile: what is broken has to be
found from outside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from tests.zab.disk import Disk
from tests.zab.node import Node
from zkd.jute.quorum import Packet
from zkd.zab import leader as leading
from zkd.zab import outputs as o
from zkd.zab import peer as peers
from zkd.zab.catch_up import CatchUp, Phase
from zkd.zab.establish import Establishing
from zkd.zab.establish import Phase as Established
from zkd.zab.inputs import Txn
from zkd.zab.leader import Leader
from zkd.zab.learner import Learner
from zkd.zab.learner_link import LearnerLink, LinkPhase
from zkd.zab.state import State

Patch = tuple[Any, str, Any]


def _acknowledge_before_sync() -> list[Patch]:
    take = CatchUp._take

    def acknowledging(self: Learner, txns: list[Txn], told: int) -> None:
        take(self, txns, told)
        received = self.state.positions.received
        if self.phase is Phase.BROADCAST and not self.observer and received > self.acked:
            assert self.conn is not None
            self.state.out.append(o.SendAcks(self.conn, self.acked + 1, received))
            self.acked = received

    return [(CatchUp, "_take", acknowledging)]


def _leader_acknowledges_before_sync() -> list[Patch]:
    propose = Leader.propose

    def proposing(self: Leader, txns: Sequence[Txn]) -> None:
        propose(self, txns)
        self._acks[self.state.sid] = self.proposed
        self._try_to_commit()

    return [(Leader, "propose", proposing)]


def _promise_before_sync() -> list[Patch]:
    leader_info = CatchUp._leader_info

    def promising(self: CatchUp, packet: Packet) -> None:
        leader_info(self, packet)
        if self.phase is Phase.PROMISING:
            self._acknowledge_epoch(self.state.current)

    return [(CatchUp, "_leader_info", promising)]


def _forget_the_promised_epoch() -> list[Patch]:
    """It is told, and written, and not there any more when the server comes back."""
    crash = Node.crash

    def crashing(self: Node) -> None:
        crash(self)
        self.disk.accepted = self.disk.current

    return [(Node, "crash", crashing)]


def _promise_twice() -> list[Patch]:
    acknowledge = CatchUp._acknowledge_epoch

    def acknowledging(self: CatchUp, current: int) -> None:
        acknowledge(self, self.state.current)

    return [(CatchUp, "_acknowledge_epoch", acknowledging)]


def _count_an_observer_in_a_quorum() -> list[Patch]:
    def count(self: Establishing, link: LearnerLink) -> None:
        if link.sid is not None:
            self._track.acked |= {link.sid}

    def has_quorum(self: Establishing) -> bool:
        return 2 * len(self._track.acked) > len(self._track.voters)

    return [(Establishing, "_count", count), (Establishing, "_has_quorum", has_quorum)]


def _skip_trunc() -> list[Patch]:
    return [(CatchUp, "_truncate", lambda self, zxid: True)]


def _commit_out_of_order() -> list[Patch]:
    """Followers get the last two of a run of proposals the other way round."""
    propose = Leader.propose

    def proposing(self: Leader, txns: Sequence[Txn]) -> None:
        propose(self, txns)
        if len(txns) > 1:
            out = self.state.out
            for at, output in enumerate(out):
                if isinstance(output, o.SendProposals):
                    *rest, (first, one), (second, other) = output.txns
                    swapped = [*rest, (first, other), (second, one)]
                    out[at] = o.SendProposals(output.conns, swapped)

    return [(Leader, "propose", proposing)]


def _commit_without_a_quorum() -> list[Patch]:
    """One ack is as good as any."""
    return [(leading, "joint_point", lambda verifiers, acked: max(acked.values()))]


def _count_stale_acks() -> list[Patch]:
    def forget(self: Establishing, link: LearnerLink) -> None:
        del self.links[link.conn]

    return [(Establishing, "_forget", forget)]


def _commit_before_uptodate() -> list[Patch]:
    take = CatchUp._take

    def taking(self: CatchUp, txns: list[Txn], told: int) -> None:
        take(self, txns, told)
        early = self.phase is not Phase.BROADCAST and self._snapshot is None
        if early and told > self.state.positions.committed:
            self.state.commit(min(told, self.state.positions.received))

    return [(CatchUp, "_take", taking)]


def _follow_a_leader_that_is_behind() -> list[Patch]:
    acknowledged = Establishing._epoch_acknowledged

    def acknowledging(self: Establishing, link: LearnerLink, zxid: int, current: int) -> None:
        summary, self._summary = self._summary, (1 << 62, 0)
        try:
            acknowledged(self, link, zxid, current)
        finally:
            self._summary = summary

    return [
        (Establishing, "_epoch_acknowledged", acknowledging),
        (peers.Peer, "_look", _votes_of_nothing),
    ]


def _votes_of_nothing(self: peers.Peer) -> None:
    """As if the election compared no histories: what the check in discovery is for."""
    self._elect(self.election.start(0, 0, self.state.now_ms))


def _vote_for_what_is_not_durable() -> list[Patch]:
    return [(State, "settled", property(lambda self: True))]


def _serve_before_the_quorum() -> list[Patch]:
    """The leader takes NEWLEADER for acknowledged when it is sent."""
    go_on = Establishing._go_on_from

    def going_on(self: Establishing, link: LearnerLink, after: int) -> None:
        go_on(self, link, after)
        if link.phase is LinkPhase.SYNC and self.phase is not Established.BROADCAST:
            self._count(link)
            self._serve_if_quorum()

    return [(Establishing, "_go_on_from", going_on)]


def _answer_a_sync_at_once() -> list[Patch]:
    """Before what was told with it is delivered here."""

    def answer(self: Learner) -> None:
        while self._answered:
            told, (conn, tag) = self._answered.popleft()
            if conn is None:
                self.state.out.append(o.Synced(tag, told))

    return [(Learner, "_answer_syncs", answer)]


def _forward_out_of_order() -> list[Patch]:
    forward = Learner.forward

    def forwarding(self: Learner, requests: Sequence[Any]) -> None:
        forward(self, list(reversed(requests)))

    return [(Learner, "forward", forwarding)]


def _install_without_the_rows_above() -> list[Patch]:
    """Of a snapshot and what follows it, the tree is installed first and alone."""
    carry_out = Disk.carry_out

    def carrying(self: Disk, order: Any) -> None:
        what = order.what
        if isinstance(what, o.InstallSnapshot):
            order.what = o.InstallSnapshot(what.zxid, (), what.accepted, what.current)
        carry_out(self, order)

    return [(Disk, "carry_out", carrying)]


MUTATIONS: dict[str, Callable[[], list[Patch]]] = {
    make.__name__.lstrip("_").replace("_", " "): make
    for make in (
        _acknowledge_before_sync,
        _leader_acknowledges_before_sync,
        _promise_before_sync,
        _forget_the_promised_epoch,
        _promise_twice,
        _count_an_observer_in_a_quorum,
        _skip_trunc,
        _commit_out_of_order,
        _commit_without_a_quorum,
        _count_stale_acks,
        _commit_before_uptodate,
        _follow_a_leader_that_is_behind,
        _vote_for_what_is_not_durable,
        _serve_before_the_quorum,
        _answer_a_sync_at_once,
        _forward_out_of_order,
        _install_without_the_rows_above,
    )
}


@contextlib.contextmanager
def mutated(name: str) -> Iterator[None]:
    """Broken in this one way as long as it lasts."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("zkd.zab.invariants.check"))
        for where, what, other in MUTATIONS[name]():
            stack.enter_context(mock.patch.object(where, what, other))
        yield
