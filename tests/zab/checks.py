"""What must hold of a group, looked at from outside whenever it could be broken.

    history     every server delivers a prefix of one history
    leaders     one established leader an epoch; a quorum has kept its epoch, and unless a later
                one is established it has everything that any server ever delivered
    future      what is delivered first anywhere is durable at a quorum of the voters
    promises    nobody goes below an epoch it has promised, or promises one to two leaders, whatever
                it has forgotten meanwhile
    durable     what a server tells of its log and its epochs is on its disk at that moment
    sessions    of the requests of one connection of a client no one is skipped or done out of
                order; nothing of a session after its end
    syncs       what anybody was told before a sync is there when it is answered

Each can be left out (`without`): a fault that one finds at its root others may find by its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.zab.bodies import Kind as Body
from tests.zab.bodies import read_body
from zkd.config.servers import Membership
from zkd.jute.quorum import Kind, Packet, name, read_int
from zkd.zab import outputs as o
from zkd.zab.inputs import Txn
from zkd.zab.votes import Notification, ServerState
from zkd.zab.zxid import counter_of, epoch_of, text

if TYPE_CHECKING:
    from tests.zab.group import Group
    from tests.zab.network import Conn
    from tests.zab.node import Node


class Violation(AssertionError):
    """A property does not hold. `rule`: which one."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


class Checks:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.voters = frozenset(line.id for line in group.membership.voters())
        self.without: frozenset[str] = frozenset()
        self.history: list[Txn] = []
        """The longest that any server has delivered."""
        self.told = 0
        """The last zxid that a client was told of."""
        self.acknowledged = 0
        """How many transactions of `history` an established leader has delivered."""
        self.leaders: dict[int, int] = {}
        self._promised: dict[int, int] = {}
        self._promises: dict[tuple[int, int], int] = {}
        self._bodies: dict[int, bytes] = {}
        self._last: dict[tuple[int, int], int] = {}
        self._ended: set[int] = set()

    def demand(self, held: bool, rule: str, what: str) -> None:
        if not held and rule not in self.without:
            raise Violation(rule, what)

    def _is_quorum(self, sids: set[int]) -> bool:
        return is_quorum(self.group.membership, sids) or bool(self.group.alone & sids)

    # ---- leaders

    def served(self, node: Node, output: o.Serving) -> None:
        if output.role is not ServerState.LEADING:
            return
        epoch = output.epoch
        other = self.leaders.setdefault(epoch, node.sid)
        self.demand(other == node.sid, "leaders", f"{other} and {node.sid} lead in epoch {epoch}")
        nodes = self.group.nodes
        kept = {sid for sid in self.voters if nodes[sid].disk.current >= epoch}
        self.demand(
            self._is_quorum(kept), "leaders", f"epoch {epoch} stands, but is kept by {kept} alone"
        )
        if epoch < max(self.leaders):
            self.group.count("late leaders")  # it slept while another was established
            return
        self.demand(
            node.applied[: len(self.history)] == self.history,
            "leaders",
            f"{node.sid} leads epoch {epoch} without what was delivered",
        )

    # ---- deliveries

    def delivered(self, node: Node, since: int) -> None:
        """`node.applied` has grown from `since` on; 0: it is another."""
        mine, history = node.applied, self.history
        common = min(len(mine), len(history))
        if mine[since:common] != history[since:common]:
            at = next(n for n in range(since, common) if mine[n] != history[n])
            self.demand(
                False,
                "history",
                f"transaction {at} is {text(mine[at][0])} {mine[at][1]!r} on server {node.sid},"
                f" {text(history[at][0])} {history[at][1]!r} elsewhere",
            )
        for txn in mine[len(history) :]:
            self._first_delivery(node, txn)
        if node.role is ServerState.LEADING and node.serving:
            self.acknowledged = max(self.acknowledged, len(mine))

    def _first_delivery(self, node: Node, txn: Txn) -> None:
        zxid, body = txn
        before = self.history[-1][0] if self.history else 0
        self.demand(zxid > before, "history", f"{text(zxid)} after {text(before)}")
        self.history.append(txn)
        have = {sid for sid in self.voters if self.group.nodes[sid].disk.holds(txn)}
        self.demand(
            self._is_quorum(have), "future", f"{text(zxid)} on {node.sid}, durable at {have} alone"
        )
        self._session(zxid, body)

    def _session(self, zxid: int, raw: bytes) -> None:
        body = read_body(raw)
        if body is None:
            return
        where = f"{raw!r} at {text(zxid)}"
        if body.kind is not Body.ERROR:
            self.demand(body.session not in self._ended, "sessions", f"{where}, after its end")
        if body.kind is Body.CLOSE:
            self._ended.add(body.session)
        if body.base:
            key = (body.session, body.base)
            before = self._last.get(key, body.base - 1)
            self.demand(body.cxid == before + 1, "sessions", f"{where}, after cxid {before}")
            self._last[key] = body.cxid

    # ---- what is told

    def proposed(self, txns: Sequence[Txn]) -> None:
        for zxid, body in txns:
            first = self._bodies.setdefault(zxid, body)
            self.demand(first == body, "leaders", f"two transactions are {text(zxid)}")

    def notifies(self, node: Node, to_sid: int, said: Notification) -> None:
        """To those who do not vote any old vote may go."""
        own = said.leader == node.sid and said.state is ServerState.LOOKING
        if own and said.zxid >= 0 and to_sid in self.voters:
            disk = node.disk
            self.demand(
                (said.zxid, said.peer_epoch) == (disk.end(), disk.current),
                "durable",
                f"{node.sid} votes for itself with {text(said.zxid)} and epoch {said.peer_epoch},"
                f" its disk has {text(disk.end())} and {disk.current}",
            )

    def acknowledges(self, node: Node, last: int) -> None:
        self.demand(
            node.disk.end() >= last, "durable", f"{node.sid} acknowledges {text(last)} too early"
        )

    def sends(self, node: Node, conn: Conn, packets: Sequence[Packet]) -> None:
        for packet in packets:
            if packet[0] in _TELLS:
                self._tells(node, conn, packet)
            if packet[0] in _COUNTED:
                self.group.count(name(packet[0]))

    def _tells(self, node: Node, conn: Conn, packet: Packet) -> None:
        kind, zxid, data, _ = packet
        sid, disk = node.sid, node.disk
        promised = self._promised.get(sid, 0)
        if kind == Kind.LEADER_INFO:
            conn.epoch = epoch_of(zxid)
            self.demand(disk.accepted >= conn.epoch, "durable", f"{sid} opens {conn.epoch} early")
            self._promised[sid] = max(promised, conn.epoch)
        elif kind == Kind.NEW_LEADER:
            kept = disk.current >= epoch_of(zxid)
            self.demand(kept, "durable", f"{sid} leads in {epoch_of(zxid)} too early")
        elif kind == Kind.ACK and not counter_of(zxid):
            epoch = epoch_of(zxid)
            self.demand(disk.current >= epoch, "durable", f"{sid} follows in {epoch} too early")
            self.demand(epoch >= promised, "promises", f"{sid} follows {epoch} after {promised}")
        elif kind in (Kind.FOLLOWER_INFO, Kind.OBSERVER_INFO):
            accepted = epoch_of(zxid)
            self.demand(
                accepted >= promised, "promises", f"{sid} has {accepted}, promised was {promised}"
            )
        elif kind == Kind.ACK_EPOCH:
            epoch = conn.epoch
            self.demand(disk.accepted >= epoch, "durable", f"{sid} promises {epoch} too early")
            self.demand(epoch >= promised, "promises", f"{sid} promises {epoch} after {promised}")
            self._promised[sid] = epoch
            if read_int(data, "ACKEPOCH") != -1:
                to = self._promises.setdefault((sid, epoch), conn.id)
                self.demand(to == conn.id, "promises", f"{sid} promises {epoch} a second time")

    # ---- syncs

    def synced(self, node: Node, zxid: int, floor: int, epoch: int) -> None:
        """`zxid`: what the answer waits for at a front-end; `floor`: what was told before."""
        if epoch == max(self.leaders, default=0):
            there = min(node.delivered, zxid)
            self.demand(
                there >= floor,
                "syncs",
                f"{node.sid} is at {text(there)}, {text(floor)} was told before",
            )


def is_quorum(membership: Membership, sids: set[int]) -> bool:
    """By words of the documentation, not by the core's own verifiers."""
    voters = {line.id for line in membership.voters()}
    if not membership.groups:
        return 2 * len(voters & sids) > len(voters)
    weight = {sid: membership.weights.get(sid, 1) for sid in voters}
    groups = [[sid for sid in group if weight[sid]] for group in membership.groups.values()]
    won = [
        group
        for group in groups
        if 2 * sum(weight[sid] for sid in group if sid in sids) > sum(weight[s] for s in group)
    ]
    return 2 * len(won) > sum(bool(group) for group in groups)


_TELLS = frozenset(
    {
        Kind.LEADER_INFO,
        Kind.NEW_LEADER,
        Kind.ACK,
        Kind.FOLLOWER_INFO,
        Kind.OBSERVER_INFO,
        Kind.ACK_EPOCH,
    }
)
_COUNTED = frozenset({Kind.DIFF, Kind.TRUNC, Kind.SNAP, Kind.NEW_LEADER, Kind.UP_TO_DATE})
