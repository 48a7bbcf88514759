"""The loop of a member's peer process: the core is stepped, its outputs are carried out.

One event loop for everything: the bus, the ports between servers, time. The outputs of a step are
carried out in their order before the next step; what they bring about is stepped after it. A role's
end closes all clients; when storage has died, or cannot write, the core ends with it, and another
is made of what the disk says then. See docs/zab.md for what the core wants of its driver.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import uvloop

from zkd.bus.messages import (
    CONN_CLOSED,
    DURABLE,
    FAILED,
    INSTALLED,
    JOIN,
    OPEN,
    OPENED,
    QUERY,
    REQUESTS,
    SAVED,
    TOUCH,
    TRUNCATED,
    decode,
)
from zkd.bus.sockets import Direct
from zkd.server.member import standing
from zkd.server.member.disk import Disk, LogHistory
from zkd.server.member.leading import Leading
from zkd.server.member.learning import Learning
from zkd.server.member.network import Network
from zkd.server.member.served import Served
from zkd.server.peer import HAND_ON_AT, RELEASE_PATHS, RETRY_S
from zkd.server.process import SupervisorGone
from zkd.server.quorum import seen
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.peer import Peer
from zkd.zab.votes import ServerState

if TYPE_CHECKING:
    from zkd.server.process import Child
    from zkd.storage.reader import TreeReader
    from zkd.tree.state import TreeState

MESSAGES_A_TURN: Final = 64
"""So many messages of the bus are handled before other sockets get their turn."""
BEAT_S: Final = 0.05
"""Sessions, grants and containers are looked at so often."""
LATE_S: Final = 0.05
"""A tick that comes later than this lets the sockets be read first."""
OF_A_ROLE: Final = (i.Propose, i.LearnerSync, i.RevalidateAnswer, i.Forward, i.Revalidate, i.Sync)
"""Inputs that mean nothing once the role is over."""


def now_ms() -> int:
    """The core's clock."""
    return int(monotonic() * 1000)


class Member(Served):
    """See the module's text."""

    def __init__(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        super().__init__(child)
        self.role = ServerState.LOOKING
        self.leader: int | None = None
        self.full = False
        """Storage cannot write."""
        self.trusted = True
        self.failure: BaseException | None = None
        self.disk = Disk(self)
        self.network = Network(self)
        self.core_settings = standing.core_settings(self.config)
        self._history: LogHistory | None = None
        self._events: deque[i.Input] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._retry_at = 0.0
        self._beat_due = 0.0
        self._led_since = 0.0
        self._carriers = self._make_carriers()
        self.handlers: dict[int, Callable[[tuple[Any, ...]], None]] = {
            OPENED: self._on_opened,
            FAILED: self._on_failed,
            DURABLE: self._on_durable,
            SAVED: self._on_answer,
            TRUNCATED: self._on_answer,
            INSTALLED: self._on_answer,
            JOIN: self._on_join,
            TOUCH: self._on_touch,
            CONN_CLOSED: self._on_conn_closed,
            QUERY: self._on_query,
        }
        seen.register(self.metrics, lambda: self.core, self._led_ms)

    def role_statistics(self) -> dict[str, Any]:
        if self.core is None:
            return {"mode": "looking", "serving": False, "server_id": self.config.my_id}
        return seen.statistics(self.core) | {"serving": self.begun}

    def _led_ms(self) -> int | None:
        leads = isinstance(self.service, Leading)
        return int((monotonic() - self._led_since) * 1000) if leads else None

    # -- beginning and end ---------------------------------------------------------------------

    async def main(self) -> None:
        """Take up the ports and the bus."""
        loop, child = self.loop, self.child
        await self.network.election.start()
        loop.add_reader(self.inbox.fd, self._on_inbox)
        loop.add_reader(child.control.fileno(), self._on_control)
        child.ready()
        self._beat_due = monotonic()
        self._beat()
        self._on_control()
        self._on_inbox()

    def _on_control(self) -> None:
        self.child.read_control()
        if self.child.stopping:
            self.loop.stop()

    def failed(self, error: BaseException) -> None:
        """Something that cannot be gone on from: the process ends."""
        self.failure = self.failure or error
        self.loop.stop()

    # -- the bus -------------------------------------------------------------------------------

    def _on_inbox(self) -> None:
        """Take what has arrived; a bounded number of messages a turn."""
        recv, handlers = self.inbox.recv, self.handlers
        began = monotonic()
        for _ in range(MESSAGES_A_TURN):
            frame = recv()
            if not frame:
                break
            message = decode(frame)
            if message[0] == REQUESTS:
                self._requests(message[1], message[2], message[3])
                if len(self.batch) >= HAND_ON_AT:
                    self.hand_on()
            else:
                handlers[message[0]](message)
        else:
            self.loop.call_soon(self._on_inbox)
        self.hand_on()
        if self.backlog and self.tree is not None:
            self.backlog = self.tree.release(RELEASE_PATHS)
        self.metrics.turned(monotonic() - began)

    def _lives(self, lives: dict[str, int]) -> None:
        life = lives.get("storage", 0)
        new = self.storage is None or self.storage.life < life
        if self.core is not None and (new or not life):
            self._end_core("storage has died")
        if new and life:
            if self.storage is not None:
                self.storage.close()
            self.storage = Direct(self.inbox, self.child.runtime_dir, "storage", life)
            self._open()
        for link in list(self.frontends.values()):
            if lives.get(link.name, 0) > link.life:
                self._forget(link)

    def order(self, kind: int, *rest: Any) -> None:
        """Ask storage for something."""
        assert self.storage is not None
        self.storage.send((kind, self.incarnation, *rest))

    def _open(self) -> None:
        assert self.storage is not None
        self.storage.send((OPEN, self.child.life))

    def _on_opened(self, message: tuple[Any, ...]) -> None:
        """Storage has begun an incarnation: begin with what is on the disk."""
        _, life, incarnation, durable, _, _, accepted, current, must, committed = message
        if life != self.child.life:
            return
        self.incarnation, self.seq = incarnation, 1
        self.full = False
        self.announced = self.committed = committed
        if must:
            self.log.warning("member.must_synchronise", reason=must)
        told = (durable, accepted, current, committed)
        stands = standing.standing_of(self.config, *told, trusted=self.trusted and not must)
        if self._history is None:
            self._history = LogHistory(self)
        self.core = Peer(stands, self.core_settings, self._history, self.config.membership)
        self.log.info(
            "member.begins",
            incarnation=incarnation,
            zxid=hex(stands.logged),
            epoch=stands.current_epoch,
            trusted=stands.trusted,
        )
        self.disk.begin(stands.logged)
        self.feed(i.Tick())

    def _on_failed(self, message: tuple[Any, ...]) -> None:
        """Storage cannot append: this server is out until it can."""
        _, life, _incarnation, durable, reason = message
        if life != self.child.life:
            return
        self._retry_at = monotonic() + RETRY_S
        if not self.full:
            self.full = True
            self.log.error("log.not_accepting", reason=reason, durable=hex(durable))
        self._end_core("the log does not accept anything")

    def _on_durable(self, message: tuple[Any, ...]) -> None:
        _, incarnation, _seq, durable, _tree_zxid, turn = message
        if incarnation == self.incarnation and self.core is not None:
            self.durable = durable
            self.disk.durable(durable, turn)

    def _on_answer(self, message: tuple[Any, ...]) -> None:
        """SAVED, TRUNCATED, INSTALLED."""
        kind, incarnation = message[:2]
        if incarnation != self.incarnation or self.core is None:
            return
        if kind == SAVED:
            self.disk.saved(message[2], message[3])
        elif kind == TRUNCATED:
            self.disk.truncated(message[2])
        else:
            self.disk.installed(message[2])

    # -- the core ------------------------------------------------------------------------------

    def feed(self, *events: i.Input) -> None:
        """Step the core; what comes of it is stepped before this returns."""
        self._events.extend(events)
        if self.stepping or self.core is None:
            return
        self.stepping = True
        try:
            while self._events and self.core is not None:
                for output in self.core.step(self._events.popleft(), now_ms()):
                    self._carriers[type(output)](output)
                if self.service is not None:
                    self.service.go_on()
        finally:
            self.stepping = False
        self.flush()
        self._arm()

    def _make_carriers(self) -> dict[type, Callable[[Any], None]]:
        network, disk = self.network, self.disk
        return {
            o.Append: disk.submit,
            o.SaveEpochs: disk.submit,
            o.Truncate: disk.submit,
            o.InstallSnapshot: self._install,
            o.ReceiveSnapshot: network.receive,
            o.Notify: network.notify,
            o.ConnectAll: lambda _: network.election.connect_all(),
            o.Connect: network.connect,
            o.Close: network.close,
            o.SendPackets: network.packets,
            o.SendProposals: network.proposals,
            o.SendInforms: network.informs,
            o.SendCommits: network.commits,
            o.SendAcks: network.acks,
            o.SendHistory: network.history,
            o.SendSnapshot: network.snapshot,
            o.SendPing: network.ping,
            o.RoleChanged: self._role_changed,
            o.Serving: self._serving,
            o.Committed: self._on_committed,
            o.LearnerRequest: lambda output: self._leading().learner_asks(output),
            o.RevalidateAsked: lambda output: self._leading().learner_asks(output),
            o.Touched: self._touched,
            o.Synced: lambda output: self._learning().synced(output),
            o.Revalidated: lambda output: self._learning().revalidated(output),
            o.ConfigurationSeen: lambda _: None,
            o.ConfigurationActivated: self._activated,
            o.ReconfigCommitted: lambda _: None,
            o.Warned: lambda output: self.log.warning("quorum.warning", what=output.text),
            o.Halt: lambda output: self.halt(output.reason),
        }

    def _leading(self) -> Leading:
        assert isinstance(self.service, Leading)
        return self.service

    def _learning(self) -> Learning:
        assert isinstance(self.service, Learning)
        return self.service

    def _install(self, output: o.InstallSnapshot) -> None:
        self.network.installing()
        self.disk.submit(output)

    def _touched(self, output: o.Touched) -> None:
        if self.service is not None:
            self.service.touched(output)

    def _activated(self, output: o.ConfigurationActivated) -> None:
        """Known to the core; the files and /zookeeper/config do not follow yet."""
        self.log.info("config.activated", version=hex(output.membership.version))
        members = {
            sid: [(a.host, a.election_port) for a in line.addresses]
            for sid, line in output.membership.servers.items()
        }
        self.network.election.set_members(members)

    def _on_committed(self, output: o.Committed) -> None:
        self.committed = output.zxid

    def halt(self, reason: str) -> None:
        """This server's own state is no good: a snapshot of the leader's has to take its place."""
        self.log.error("member.halted", reason=reason)
        self.trusted = False
        self._end_core(reason)
        self._open()

    def _end_core(self, reason: str) -> None:
        """Of no role until storage has begun another incarnation."""
        if self.core is None:
            return
        self.log.warning("member.ends", reason=reason)
        self.core = None
        self._events.clear()
        self._role_over()
        self.disk.end()

    # -- time ----------------------------------------------------------------------------------

    def _arm(self) -> None:
        """The next tick: four in a tickTime, and when the election wants one."""
        if self.core is None:
            return
        due = monotonic() + self.config.tick_time / 4000
        deadline_ms = self.core.deadline_ms
        if deadline_ms is not None:
            due = min(due, (deadline_ms + 1) / 1000)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = self.loop.call_at(self.loop.time() + max(0.0, due - monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.core is None:
            return
        if monotonic() - self._due > LATE_S:  # nobody has read the sockets meanwhile
            self._due = monotonic()
            self._timer = self.loop.call_later(0.001, self._tick)
            return
        self.feed(i.Tick(self.network.election.delivered()))

    def _beat(self) -> None:
        """Grants, expiry, containers, retries: whatever the clock says is due."""
        now = monotonic()
        self.sessions.stalled(now - self._beat_due)
        self._beat_due = now + BEAT_S
        self.loop.call_later(BEAT_S, self._beat)
        self.child.alive(now)
        for link, conn, answer in self.sessions.overdue(now):
            self.attach(link, conn, answer)
        if self.full and now >= self._retry_at:
            self._retry_at = now + RETRY_S
            self._open()
        if self.begun and now >= self.next_grant:
            self.next_grant = now + self.grant_every_s
            self._grant(now)
        if isinstance(self.service, Leading) and self.tree is not None and now >= self.next_tick:
            self.next_tick = now + self.grant_every_s
            self._work(now)
        self.hand_on()

    # -- roles ---------------------------------------------------------------------------------

    def _role_changed(self, output: o.RoleChanged) -> None:
        self.role, self.leader = output.role, output.leader
        leader = "" if output.leader is None else output.leader
        self.log.info("member.role", role=output.role.name.lower(), leader=leader)
        if output.role is ServerState.LOOKING:
            self._role_over()
        elif output.role is ServerState.LEADING:
            self.network.listen(standing.quorum_addresses(self.config))

    def _serving(self, output: o.Serving) -> None:
        """The epoch stands."""
        assert self.core is not None
        self.trusted = True
        if output.role is ServerState.LEADING:
            assert self.core.next_zxid is not None
            self._led_since = monotonic()
            self.service = Leading(self, self.core.next_zxid - 1)
        else:
            follows = output.role is ServerState.FOLLOWING
            self.service = Learning(self)
            if self.core_settings.observer_master and follows:
                self.network.listen(standing.master_addresses(self.config))
        self.log.info("member.serving", role=output.role.name.lower(), epoch=output.epoch)
        if self.tree is not None:
            self.begin_service()

    def loaded(
        self, base: TreeReader, tree: TreeState, held: list[tuple[Any, ...]], took_s: float
    ) -> None:
        """The tree is there."""
        self._took(tree)
        self.held.extend(held)
        self.zxid = tree.zxid
        self.metrics.loaded(base, tree, self.zxid, took_s)
        if self.service is not None:
            self.begin_service()

    def _role_over(self) -> None:
        """Serve nobody, be connected to nobody."""
        self._events = deque(e for e in self._events if not isinstance(e, OF_A_ROLE))
        self.end_service()
        self.network.role_over()


def run(child: Child) -> None:
    """The life of the process."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    member = Member(child, loop)

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        member.failed(context.get("exception") or RuntimeError(context["message"]))

    loop.set_exception_handler(failed)
    loop.run_until_complete(member.main())
    if not child.stopping and member.failure is None:
        loop.run_forever()
    if member.failure is None or not isinstance(member.failure, SupervisorGone):
        loop.run_until_complete(member.network.stop())
    if member.failure is not None:
        raise member.failure
