"""The core's network: connections have numbers, packets are encoded once, the rest is `quorum/`.

    links: the connections of the present role, by number; what comes of others is dropped

A number is never given twice. After a SNAP nothing of its connection is handed in before the
snapshot has been received. The quorum port is open while this server leads, the observer master
port while it follows and has one.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

import apsw

from zkd.errors import OperatorError
from zkd.jute import election as votes
from zkd.jute import quorum
from zkd.jute.quorum import Kind, Packet, encode
from zkd.server.member import standing
from zkd.server.quorum.election_net import ElectionNet
from zkd.server.quorum.history import history
from zkd.server.quorum.learner_net import LearnerListener, connect
from zkd.server.quorum.link import Link, Sink
from zkd.server.quorum.net import Address
from zkd.server.quorum.snapshots import receive_snapshot, send_snapshot
from zkd.storage.generation import remove_tree
from zkd.storage.reader import tree_path
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.votes import Notification, ServerState

if TYPE_CHECKING:
    from zkd.server.member.process import Member

BIND_AGAIN_S = 0.5
STATES = frozenset(ServerState)


class Network:
    """See the module's text. It is told the outputs of the core, and feeds it."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.loop = member.loop
        config = member.config
        self.links: dict[int, Link] = {}
        self._numbers: dict[Link, int] = {}
        self._held: dict[int, list[list[Packet]]] = {}
        """What comes behind a SNAP, by connection."""
        self._counter = itertools.count(1)
        self._role = 0
        """Counts the roles: what was begun in an earlier one is dropped."""
        self._received: int | None = None
        """The generation of a snapshot that was received and is not installed."""
        self._listener: LearnerListener | None = None
        self._listening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._masters = standing.observer_masters(config)
        self.link_settings = standing.link_settings(config)
        members = {
            sid: [(a.host, a.election_port) for a in line.addresses]
            for sid, line in config.membership.servers.items()
        }
        self.election = ElectionNet(
            self.loop, standing.election_settings(config), members, self, random.Random()
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this beside everything else. What it raises ends the process."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.member.failed(error)

    # -- elections -----------------------------------------------------------------------------

    def on_message(self, sid: int, message: bytes) -> None:
        """A notification."""
        told = votes.Notification.read(message)
        if told is None or told.state not in STATES:
            return
        state = ServerState(told.state)
        vote = (told.leader, told.zxid, told.round, told.peer_epoch, told.config, told.version)
        self.member.feed(i.Notified(sid, Notification(state, *vote)))

    def on_unreachable(self, sid: int, reason: str) -> None:
        """The election repeats itself."""

    def notify(self, output: o.Notify) -> None:
        told = output.notification
        vote = (told.state, told.leader, told.zxid, told.round, told.peer_epoch)
        message = votes.Notification(*vote, told.version, told.config).encode()
        self.election.send(output.to_sid, message)

    # -- connections ---------------------------------------------------------------------------

    def _number(self, link: Link) -> int:
        number = next(self._counter)
        self.links[number] = link
        self._numbers[link] = number
        return number

    def on_learner(self, link: Link) -> None:
        """A learner has connected here."""
        self.member.feed(i.Accepted(self._number(link)))

    def on_packets(self, link: Link, packets: list[Packet]) -> None:
        """Something has come."""
        number = self._numbers.get(link)
        if number is None:
            return
        held = self._held.get(number)
        if held is not None:
            held.append(packets)
        else:
            self.member.feed(i.Received(number, packets))

    def on_closed(self, link: Link, reason: str) -> None:
        """A connection has ended."""
        number = self._numbers.pop(link, None)
        if number is not None:
            del self.links[number]
            self.member.feed(i.Disconnected(number, reason))

    def connect(self, output: o.Connect) -> None:
        self.spawn(self._connect(output.sid, self._role))

    async def _connect(self, sid: int, role: int) -> None:
        config = self.member.config
        try:
            link = await connect(
                self.loop,
                self._addresses(sid),
                self.link_settings,
                self,
                within_s=config.connect_to_learner_master_limit * config.tick_time / 1000,
                pause_s=config.leader_connect_delay_during_retry / 1000,
            )
        except OSError as e:
            if role == self._role:
                self.member.feed(i.ConnectFailed(str(e) or "no connection in time"))
            return
        if role != self._role:
            link.abort("the role is over")
        else:
            self.member.feed(i.Connected(self._number(link)))

    def _addresses(self, sid: int) -> list[Address]:
        """The quorum port of a leader; an observer of observer masters goes from one to the
        next."""
        if self._masters:
            self._masters.append(self._masters.pop(0))
            return self._masters[-1]
        line = self.member.config.membership.servers.get(sid)
        return [(a.host, a.quorum_port) for a in line.addresses] if line is not None else []

    def close(self, output: o.Close) -> None:
        link = self.links.pop(output.conn, None)
        if link is not None:
            del self._numbers[link]
            self.member.log.info("quorum.closed", peer=link.where, reason=output.reason)
            link.close(output.reason)

    # -- roles ---------------------------------------------------------------------------------

    def listen(self, addresses: list[Address]) -> None:
        """Accept learners from now on."""
        self._listening = self.spawn(self._listen(addresses, self._role, self._listening))

    async def _listen(
        self, addresses: list[Address], role: int, before: asyncio.Task[None] | None
    ) -> None:
        await self._after(before)
        config = self.member.config
        while role == self._role:
            listener = LearnerListener(self.loop, self.link_settings, self)
            try:
                await listener.start(addresses, everywhere=config.quorum_listen_on_all_ips)
            except OperatorError as e:
                self.member.log.error("quorum.bind_failed", what=e.what, where=e.where)
                await asyncio.sleep(BIND_AGAIN_S)
                continue
            if role != self._role:
                await listener.close("the role is over")
            else:
                self._listener = listener
            return

    async def _after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])

    def role_over(self) -> None:
        """End all connections."""
        self._role += 1
        links = list(self.links.values())
        self.links.clear()
        self._numbers.clear()
        for link in links:
            link.abort("the role is over")
        self.drop_snapshot()
        listening, self._listening = self._listening, None
        if listening is not None:
            self._listening = self.spawn(self._unlisten(listening))

    async def _unlisten(self, listening: asyncio.Task[None]) -> None:
        await self._after(listening)
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close("the role is over")

    async def stop(self) -> None:
        """Close everything."""
        self.role_over()
        await self.election.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            await self._listener.close("the server stops")

    # -- sending -------------------------------------------------------------------------------

    def _send(self, conns: Iterable[int], data: bytes) -> None:
        for conn in conns:
            link = self.links.get(conn)
            if link is not None:
                link.send(data)

    def packets(self, output: o.SendPackets) -> None:
        self._send((output.conn,), b"".join([encode(*packet) for packet in output.packets]))

    def proposals(self, output: o.SendProposals) -> None:
        self._send(output.conns, quorum.encode_proposals(output.txns))

    def informs(self, output: o.SendInforms) -> None:
        self._send(output.conns, quorum.encode_proposals(output.txns, Kind.INFORM))

    def commits(self, output: o.SendCommits) -> None:
        self._send(output.conns, quorum.encode_commits(range(output.first, output.last + 1)))

    def acks(self, output: o.SendAcks) -> None:
        self._send((output.conn,), quorum.encode_acks(range(output.first, output.last + 1)))

    def ping(self, output: o.SendPing) -> None:
        table = quorum.touches(self.member.sessions.take_table())
        self._send((output.conn,), encode(Kind.PING, output.zxid, table))

    def history(self, output: o.SendHistory) -> None:
        link = self.links.get(output.conn)
        if link is not None:
            link.produce(history(self.member.config.data_log_dir, output.after, output.upto))
            self._tell_sent(link, output.conn)

    def _tell_sent(self, link: Link, conn: int) -> None:
        """Say when all that is queued is written."""

        async def written(sink: Sink) -> None:
            await sink.drained()
            if self.links.get(conn) is link:
                self.member.feed(i.Sent(conn))

        link.produce(written)

    def snapshot(self, output: o.SendSnapshot) -> None:
        link = self.links.get(output.conn)
        if link is not None:
            self.spawn(self._snapshot(link, output.conn))

    async def _snapshot(self, link: Link, conn: int) -> None:
        config = self.member.config
        try:
            zxid = await send_snapshot(link, config.data_dir, config.data_log_dir)
        except (OSError, OperatorError, apsw.Error) as e:
            link.abort(f"no snapshot can be sent: {e}")
            return
        if self.links.get(conn) is link:
            self.member.feed(i.SnapshotStarted(conn, zxid))
            self._tell_sent(link, conn)

    # -- receiving a snapshot ------------------------------------------------------------------

    def receive(self, output: o.ReceiveSnapshot) -> None:
        link = self.links.get(output.conn)
        if link is None:
            self.member.feed(i.SnapshotFailed("the connection has ended"))
        else:
            self._held[output.conn] = []
            self.spawn(self._receive(link, output.conn, output.zxid, self._role))

    async def _receive(self, link: Link, conn: int, zxid: int, role: int) -> None:
        member, config = self.member, self.member.config
        try:
            received = await receive_snapshot(
                link,
                zxid,
                config.data_dir,
                config.data_log_dir,
                member.settings,
                limit=self.link_settings.limit,
            )
        except (OSError, OperatorError, apsw.Error) as e:
            self._held.pop(conn, None)
            member.feed(i.SnapshotFailed(str(e)))
            return
        self._received = received.generation
        if role != self._role:
            self.drop_snapshot()
        member.feed(i.SnapshotReceived(zxid))
        for packets in self._held.pop(conn):
            member.feed(i.Received(conn, packets))

    def installing(self) -> None:
        """The snapshot is storage's from now on."""
        self._received = None

    def drop_snapshot(self) -> None:
        """It was received, and is not wanted any more."""
        if self._received is not None:
            remove_tree(tree_path(self.member.config.data_dir, self._received))
            self._received = None
