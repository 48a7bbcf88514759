"""The network in memory: quorum connections, messages of the election, and what happens to both.

    packets of one connection keep their order, each way; connections overtake each other
    what a connection loses, it loses from there to its end: it is broken, both sides hear so later
    a message of the election may be lost, or come a second time much later

Links are cut by direction. Through a cut nothing passes; connections over it stay open and are
found dead after a while, as TCP does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.zab.disk import Stream
from zkd.jute.quorum import Kind, Packet, PacketDecoder, encode
from zkd.zab import inputs as i
from zkd.zab import outputs as o

if TYPE_CHECKING:
    from tests.zab.group import Group
    from tests.zab.node import Node

Item = Sequence[Packet] | Stream

_NEVER = 1 << 62


@dataclass
class Conn:
    """A quorum connection. `ends`: the learner and whom it follows."""

    id: int
    ends: tuple[int, int]
    lives: tuple[int, int]
    open: bool = True
    arrival: dict[int, int] = field(default_factory=dict)
    paused: bool = False
    held: list[Item] = field(default_factory=list)
    snap: Stream | None = None
    wanted: bool = False
    """The core has asked for the stream, which has not come."""
    epoch: int = 0
    """Of LEADERINFO."""

    def other(self, sid: int) -> int:
        return self.ends[1] if sid == self.ends[0] else self.ends[0]


class Network:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.conn_ids = itertools.count(1)
        self.cut_links: set[tuple[int, int]] = set()
        self.delay_ms = (1, 20)
        self.late_chance, self.late_ms = 0.0, 0
        """So many messages take up to so much longer."""
        self.loss = self.repeats = 0.0
        self.dead_ms = 2000
        """After so long a connection over a cut is known to be dead."""
        self.wire = False
        """Packets go through their bytes."""
        self._last: dict[tuple[int, int], int] = {}

    def delay(self) -> int:
        dice = self.group.random
        delay = dice.randint(*self.delay_ms)
        if self.late_chance and dice.random() < self.late_chance:
            delay += dice.randint(1, self.late_ms)
        return delay

    def _lost(self) -> bool:
        if self.loss and self.group.random.random() < self.loss:
            self.group.count("losses")
            return True
        return False

    # ---- cuts

    def reachable(self, one: int, other: int) -> bool:
        both = {(one, other), (other, one)}
        return not both & self.cut_links and self.group.nodes[other].peer is not None

    def partition(self, side: Sequence[int]) -> None:
        """These servers and the others hear nothing of each other; connections stay open."""
        rest = set(self.group.nodes) - set(side)
        self.cut_links |= {(a, b) for a in side for b in rest}
        self.cut_links |= {(b, a) for a in side for b in rest}

    def cut(self, conn: Conn | None) -> None:
        if conn is None or not conn.open:
            return
        group = self.group
        conn.open = False
        for sid, life in zip(conn.ends, conn.lives, strict=True):
            node = group.nodes[sid]
            if node.life != life:
                node.conns.pop(conn.id, None)
            else:
                group.after(self.delay(), partial(node.ended, conn))

    # ---- the election

    def notify(self, from_sid: int, output: o.Notify) -> None:
        to = self.group.nodes[output.to_sid]
        link = (from_sid, to.sid)
        if to.peer is None or link in self.cut_links or self._lost():
            return
        when = max(self._last.get(link, 0), self.group.now + self.delay())
        self._last[link] = when
        life = to.life

        def arrive() -> None:
            if to.life == life and link not in self.cut_links:
                to.feed(i.Notified(from_sid, output.notification))

        self.group.at(when, arrive)
        if self.repeats and self.group.random.random() < self.repeats:
            self.group.at(when + self.group.random.randint(1, 3000), arrive)

    # ---- quorum connections

    def connect(self, learner: Node, leader: Node) -> None:
        conn = Conn(next(self.conn_ids), (learner.sid, leader.sid), (learner.life, leader.life))
        learner.conns[conn.id] = leader.conns[conn.id] = conn
        leader.feed(i.Accepted(conn.id))
        learner.feed(i.Connected(conn.id))

    def send(self, sender: Node, conn_id: int, item: Item) -> int:
        """Queue it; when it arrives."""
        group = self.group
        conn = sender.conns.get(conn_id)
        if conn is None or not conn.open:
            return group.now
        if not isinstance(item, Stream):
            group.checks.sends(sender, conn, item)
            group.log_packets(sender.sid, conn, item)
            if self.wire:
                item = through_bytes(item)
        to = conn.other(sender.sid)
        when = max(conn.arrival.get(to, 0), group.now + self.delay())
        conn.arrival[to] = when
        if self._lost():
            self._break(conn, to)
        else:
            group.at(when, self._arrival(conn, sender.sid, to, when, item))
        return min(when, group.now + 1000)

    def _arrival(
        self, conn: Conn, from_sid: int, to: int, when: int, item: Item
    ) -> Callable[[], None]:
        def arrive() -> None:
            if not conn.open:
                return
            if (from_sid, to) in self.cut_links:
                self._break(conn, to)
            elif when <= conn.arrival[to] < _NEVER:
                self.group.nodes[to].arrived(conn, item)

        return arrive

    def _break(self, conn: Conn, to: int) -> None:
        """Nothing arrives there any more; that the connection is dead is found out later."""
        if conn.arrival.get(to, 0) < _NEVER:
            conn.arrival[to] = _NEVER
            self.group.at(self.group.now + self.dead_ms, lambda: self.cut(conn))


def through_bytes(packets: Sequence[Packet]) -> list[Packet]:
    """The packets as the other side reads them."""
    decoder = PacketDecoder()
    found = decoder.feed(b"".join([encode(*packet) for packet in packets]))
    assert not decoder.stopped or packets[-1][0] == Kind.SNAP, "packets behind a SNAP"
    return found
