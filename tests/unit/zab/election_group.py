"""A group of servers that elect, over a network that one seed decides.

Links are as the election's own: one connection for a pair, one waiting message a direction (a newer
one replaces it), the last message ever sent comes again with a new connection. Faults: connections
break with a message in them, servers crash (the round is lost; epochs and zxid are on the disk) and
come back, the network is cut in two.

What follows an election is played as simply as it can be: a leader waits for a quorum that is not
ahead of it, takes the next epoch, logs transactions that reach some followers; who loses the
leader or its quorum looks again.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

from zkd.config.servers import Membership
from zkd.zab import zxid
from zkd.zab.election import ConnectAll, Decided, Election, Output, SendNotification
from zkd.zab.quorum import verifier_of
from zkd.zab.votes import Notification, ServerState

PATIENCE_MS = 1500  # for a quorum of followers, or for the leader to lead
ROUND_MS = 50  # between two looks at the role


class Server:
    """One server. What a crash leaves: `zxid`, `accepted`, `current`."""

    def __init__(self, sid: int, at_zxid: int) -> None:
        self.sid = sid
        self.zxid = at_zxid
        self.accepted = self.current = zxid.epoch_of(at_zxid)
        self.election: Election | None = None  # None: crashed
        self.life = 0
        self.followers: set[int] = set()
        self.leader: int | None = None
        self.epoch: int | None = None  # of the leader that is established, or is followed
        self.patience_ms = 0

    @property
    def state(self) -> ServerState | None:
        return self.election.state if self.election else None


class Group:
    def __init__(self, membership: Membership, seed: int, zxids: Sequence[int] = ()) -> None:
        self.membership = membership
        self.verifier = verifier_of(membership)
        self.random = random.Random(seed)
        self.now_ms = 0
        self.break_rate = 0.0
        self.cut: frozenset[int] = frozenset()  # one side of a partition
        self.trace: list[tuple[object, ...]] = []
        sids = sorted(membership.servers)
        self.servers = {
            sid: Server(sid, zxids[place] if zxids else 0) for place, sid in enumerate(sids)
        }
        self.connected: set[frozenset[int]] = set()
        self.waiting: dict[tuple[int, int], Notification] = {}
        self.last: dict[tuple[int, int], Notification] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    # ---- time

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now_ms + delay_ms, self._count, action))

    def run(self, until_ms: int, done: Callable[[], bool] = lambda: False) -> bool:
        """Go on until then, or until `done`. Was it done?"""
        while self._events and self._events[0][0] <= until_ms:
            if done():
                return True
            self.now_ms, _, action = heapq.heappop(self._events)
            action()
        self.now_ms = until_ms
        return done()

    # ---- servers

    def begin(self, sid: int) -> None:
        server = self.servers[sid]
        assert server.election is None
        server.election = Election(sid, self.membership)
        server.life += 1
        self._look(server)
        self._watch(server, server.life)

    def crash(self, sid: int) -> None:
        self.trace.append((self.now_ms, sid, "crash"))
        server = self.servers[sid]
        server.election = None
        server.leader = server.epoch = None
        for other in self.servers:
            self._disconnect(sid, other)
            self.waiting.pop((sid, other), None)
            self.last.pop((sid, other), None)

    def divide(self, side: frozenset[int]) -> None:
        """Cut the network in two; an empty side heals it."""
        self.cut = side
        for one in self.servers:
            for other in self.servers:
                if not self.reachable(one, other):
                    self._disconnect(one, other)

    def reachable(self, one: int, other: int) -> bool:
        both_up = self.servers[one].election and self.servers[other].election
        return bool(both_up) and (one in self.cut) == (other in self.cut)

    def settled(self) -> bool:
        """One leader, established; every running server follows or observes it."""
        running = [server for server in self.servers.values() if server.election]
        leaders = [server for server in running if server.state is ServerState.LEADING]
        if len(leaders) != 1 or leaders[0].epoch is None:
            return False
        leader = leaders[0]
        return all((s.leader, s.epoch) == (leader.sid, leader.epoch) for s in running)

    def _look(self, server: Server) -> None:
        assert server.election is not None
        server.leader = server.epoch = None
        server.followers.clear()
        self._carry_out(server, server.election.start(server.zxid, server.current, self.now_ms))

    def _carry_out(self, server: Server, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case SendNotification(to_sid, notification):
                    self._send(server.sid, to_sid, notification)
                case ConnectAll():
                    for sid in sorted(self.membership.servers):
                        self._connect(server.sid, sid)
                case Decided(vote, state, _):
                    self.trace.append((self.now_ms, server.sid, state.name, vote.leader))
                    server.leader = vote.leader
                    server.patience_ms = self.now_ms + PATIENCE_MS
        self._schedule_tick(server)

    def _schedule_tick(self, server: Server) -> None:
        election, life = server.election, server.life
        if election is None or election.deadline_ms is None:
            return

        def tick() -> None:
            if server.life == life and server.election is election:
                due = election.deadline_ms
                if due is not None and due <= self.now_ms:
                    self._carry_out(server, election.tick(self.now_ms, self._delivered(server.sid)))

        self.after(max(0, election.deadline_ms - self.now_ms), tick)

    # ---- what comes after an election

    def _watch(self, server: Server, life: int) -> None:
        if server.election is None or server.life != life:
            return
        if server.state is ServerState.LEADING:
            self._lead(server)
        elif server.state is not ServerState.LOOKING:
            self._follow(server)
        self.after(ROUND_MS, lambda: self._watch(server, life))

    def _lead(self, server: Server) -> None:
        server.followers = {
            sid
            for sid in server.followers
            if self.reachable(server.sid, sid) and self.servers[sid].leader == server.sid
        }
        if not self.verifier.contains_quorum({server.sid, *server.followers}):
            if server.epoch is not None or self.now_ms > server.patience_ms:
                self._look(server)
        elif server.epoch is None:
            followers = [self.servers[sid] for sid in sorted(server.followers)]
            epoch = max(each.accepted for each in (server, *followers)) + 1
            self._establish(server, epoch)
            self.trace.append((self.now_ms, server.sid, "established", epoch))
        else:
            if zxid.epoch_of(server.zxid) < server.epoch:
                server.zxid = zxid.make(server.epoch, 0)
            server.zxid += 1

    def _follow(self, server: Server) -> None:
        assert server.leader is not None
        leader = self.servers[server.leader]
        reachable = self.reachable(server.sid, leader.sid)
        leads = reachable and leader.state is ServerState.LEADING
        if server.epoch is not None:
            if not leads or leader.epoch != server.epoch:
                self._look(server)
            elif self.random.random() < 0.7:
                server.zxid = leader.zxid
        elif leads and (leader.current, leader.zxid) >= (server.current, server.zxid):
            leader.followers.add(server.sid)
            if leader.epoch is not None and leader.epoch >= server.accepted:
                self._establish(server, leader.epoch)
                server.zxid = leader.zxid
        elif leads or self.now_ms > server.patience_ms:
            self._look(server)

    def _establish(self, server: Server, epoch: int) -> None:
        assert server.election is not None
        server.accepted = server.current = server.epoch = epoch
        server.election.established(epoch)

    # ---- the network

    def _send(self, one: int, other: int, notification: Notification) -> None:
        self.waiting[one, other] = self.last[one, other] = notification
        self._connect(one, other)
        self._pump(one, other)

    def _connect(self, one: int, other: int) -> None:
        pair = frozenset((one, other))
        if one == other or pair in self.connected or not self.reachable(one, other):
            return
        self.connected.add(pair)
        for way in ((one, other), (other, one)):
            if way in self.last:
                self.waiting.setdefault(way, self.last[way])
            self._pump(*way)

    def _disconnect(self, one: int, other: int) -> None:
        self.connected.discard(frozenset((one, other)))

    def _pump(self, one: int, other: int) -> None:
        if frozenset((one, other)) not in self.connected or (one, other) not in self.waiting:
            return
        notification = self.waiting.pop((one, other))
        lives = self.servers[one].life, self.servers[other].life
        delay_ms = self.random.choice((1, 1, 2, 5, 20, 120))

        def arrive() -> None:
            server = self.servers[other]
            if lives != (self.servers[one].life, server.life) or server.election is None:
                return
            if frozenset((one, other)) not in self.connected:
                return
            if self.random.random() < self.break_rate:
                self._disconnect(one, other)
                return
            self._carry_out(server, server.election.received(one, notification, self.now_ms))

        self.after(delay_ms, arrive)

    def _delivered(self, sid: int) -> bool:
        """Does nothing wait for one of the others at least?"""
        others = [other for other in self.servers if (sid, other) in self.last]
        return any((sid, other) not in self.waiting for other in others)
