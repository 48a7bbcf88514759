"""A scripted peer in an ensemble of real Apache ZooKeeper servers: elections and snapshots.

The script is the shortest sequence that works (spec zab-quorum-protocol sections 7 and 17); the
bytes, sockets and snapshots are those of the server.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from kazoo.client import KazooClient
from kazoo.security import make_acl, make_digest_acl

from tests import apache
from zkd.config.servers import parse_membership
from zkd.jute import election, quorum, txn
from zkd.jute.election import Notification
from zkd.jute.quorum import Kind, LearnerInfo, Packet, encode
from zkd.server.quorum.election_net import ElectionNet, ElectionSettings
from zkd.server.quorum.learner_net import LearnerListener, LinkSettings, connect
from zkd.server.quorum.link import Link
from zkd.server.quorum.snapshots import receive_snapshot, send_snapshot
from zkd.storage.apache_format import SnapshotReader, open_snapshot
from zkd.storage.check import check, scan_all
from zkd.storage.engine import Engine
from zkd.storage.reader import TreeReader, open_tree
from zkd.storage.replay import replayer
from zkd.storage.settings import StorageSettings
from zkd.tree import acl
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

pytestmark = pytest.mark.apache

LOCAL = "127.0.0.1"
TREE = TreeSettings(extended_types_enabled=True)
SETTINGS = StorageSettings(tree=TREE, reserve_bytes=0, log_wal_bytes=65536)
NOBODY = -(1 << 63)
WITHIN_S = 30.0


@pytest.fixture(autouse=True)
def _apache_is_there() -> None:
    reason = apache.missing()
    if reason is not None:
        pytest.skip(reason)


def members(roles: dict[int, str]) -> dict[int, str]:
    return {
        sid: f"{LOCAL}:{apache.free_port()}:{apache.free_port()}:{role}"
        for sid, role in roles.items()
    }


class Script:
    """One scripted server: its votes and packets are gathered, and waited for."""

    def __init__(self, sid: int, lines: dict[int, str]) -> None:
        self.sid = sid
        text = "\n".join(f"server.{s}={line}" for s, line in lines.items())
        self.membership = parse_membership(text)
        self.votes: dict[int, Notification] = {}
        self.packets: list[Packet] = []
        self.learners: list[Link] = []
        self.closed: list[str] = []
        self.link: Link | None = None
        self.listener: LearnerListener | None = None
        self.synchronised = False
        """Only now the leader's pings may be answered."""
        loop = asyncio.get_running_loop()
        ports = {
            s: [(a.host, a.election_port) for a in line.addresses]
            for s, line in self.membership.servers.items()
        }
        settings = ElectionSettings(sid, ports[sid])
        self.election = ElectionNet(loop, settings, ports, self, random.Random(sid))

    async def __aenter__(self) -> Script:
        await self.election.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.election.close()
        if self.listener is not None:
            await self.listener.close("the test is over")
        if self.link is not None:
            self.link.abort("the test is over")
            while not self.closed:
                await asyncio.sleep(0)

    def quorum_port(self, sid: int) -> list[tuple[str, int]]:
        return [(a.host, a.quorum_port) for a in self.membership.servers[sid].addresses]

    def vote(self, state: int, leader: int, zxid: int, epoch: int, round_: int = 1) -> None:
        """Tell all other voters a vote."""
        text = self.membership.text()
        told = Notification(state, leader, zxid, round_, epoch, election.VERSION, text)
        for line in self.membership.voters():
            if line.id != self.sid:
                self.election.send(line.id, told.encode())

    def on_message(self, sid: int, message: bytes) -> None:
        vote = Notification.read(message)
        assert vote is not None
        assert parse_membership(vote.config).servers == self.membership.servers
        self.votes[sid] = vote

    def on_unreachable(self, sid: int, reason: str) -> None:
        pass

    def on_learner(self, link: Link) -> None:
        self.learners.append(link)

    def on_packets(self, link: Link, packets: list[Packet]) -> None:
        for packet in packets:
            if packet[0] != Kind.PING:
                self.packets.append(packet)
            elif self.synchronised:
                link.send(encode(Kind.PING, packet[1], b""))

    def on_closed(self, link: Link, reason: str) -> None:
        self.closed.append(reason)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                assert not self.closed, self.closed
                await asyncio.sleep(0.005)

    async def next(self, kind: int) -> Packet:
        """The next packet, which must be of this type."""
        await self.until(lambda: self.packets)
        packet = self.packets.pop(0)
        assert quorum.name(packet[0]) == quorum.name(kind), packet
        return packet


def write_nodes(client: KazooClient) -> None:
    client.create("/plain", b"data")
    client.create("/empty", b"")
    client.create("/plain/é", b"\0\xff" * 100)
    client.create("/secret", b"x", acl=[make_digest_acl("u", "p", all=True)])
    client.create("/open", b"x", acl=[make_acl("world", "anyone", read=True, delete=True)])
    client.create("/mine", b"gone some day", ephemeral=True)
    client.create("/many", b"")
    for number in range(300):
        client.create("/many/n-", b"%d" % number * 30, sequence=True)
    client.delete("/many/n-0000000007")
    client.set("/plain", b"changed")
    client.set("/plain", b"again")


def seen_by(client: KazooClient, path: str = "/") -> dict[str, tuple[Any, ...]]:
    """Every node that this client may read: data, stat as a client sees it, children."""
    found: dict[str, tuple[Any, ...]] = {}
    data, stat = client.get(path)
    names = client.get_children(path)
    found[path] = (data, tuple(stat), sorted(names))
    for name in names:
        child = f"{path.rstrip('/')}/{name}"
        if child not in ("/secret", "/zookeeper/config"):
            found |= seen_by(client, child)
    return found


def seen_in(reader: TreeReader) -> dict[str, tuple[Any, ...]]:
    """The same of a tree on disk."""
    found = {}
    for path, data, raw, _ in scan_all(reader):
        if path in ("/secret", "/zookeeper/config"):
            continue
        stat = list(struct.unpack(">qqqqiiiqiiq", raw))
        stat[5] = 2 * stat[5] - stat[9]
        names, more = reader.children(path)
        assert not more
        found[path] = (data or b"", tuple(stat), sorted(names))
    return found


async def follow(script: Script, role: str) -> int:
    """Find the leader as a server that looks for one."""
    if role == "observer":
        script.vote(election.LOOKING, NOBODY, NOBODY, NOBODY)
    else:
        script.vote(election.LOOKING, script.sid, 0, 0)
    await script.until(lambda: any(v.state == election.LEADING for v in script.votes.values()))
    (leader,) = (s for s, v in script.votes.items() if v.state == election.LEADING)
    await script.until(lambda: len(script.votes) == 2)
    assert all(vote.leader == leader for vote in script.votes.values())
    return leader


async def join(script: Script, leader: int, role: str) -> tuple[Link, int, int]:
    """Up to the synchronisation: the link, the epoch, the zxid of the SNAP."""
    loop = asyncio.get_running_loop()
    link = await connect(
        loop, script.quorum_port(leader), LinkSettings(), script, within_s=WITHIN_S
    )
    script.link = link
    first = Kind.OBSERVER_INFO if role == "observer" else Kind.FOLLOWER_INFO
    link.send(encode(first, 0, LearnerInfo(script.sid).encode()))
    _, zxid, data, _ = await script.next(Kind.LEADER_INFO)
    epoch = zxid >> 32
    assert quorum.read_int(data, "LEADERINFO") == quorum.PROTOCOL_VERSION
    link.send(encode(Kind.ACK_EPOCH, 0, struct.pack(">i", 0)))
    _, zxid, _, _ = await script.next(Kind.SNAP)
    return link, epoch, zxid


async def up_to_date(script: Script, link: Link, epoch: int) -> None:
    _, zxid, data, _ = await script.next(Kind.NEW_LEADER)
    assert zxid == epoch << 32
    assert data is not None
    assert parse_membership(data.decode()).servers == script.membership.servers
    link.send(quorum.encode_acks([zxid]))
    await script.next(Kind.UP_TO_DATE)
    link.send(quorum.encode_acks([zxid]))
    script.synchronised = True


async def joined(
    script: Script, folder: Path, role: str, client: KazooClient, engine: Engine
) -> None:
    leader = await follow(script, role)
    link, epoch, zxid = await join(script, leader, role)
    got = await receive_snapshot(link, zxid, folder, folder, TREE)
    assert got.nodes > 300
    await up_to_date(script, link, epoch)
    engine.switch_generation(zxid, (epoch, epoch))
    await asyncio.to_thread(client.create, "/later", b"after the snapshot")
    _, zxid, body, _ = await script.next(Kind.INFORM if role == "observer" else Kind.PROPOSAL)
    assert zxid == got.zxid + 1
    assert body is not None
    reader = open_tree(folder, folder, cache_bytes=1 << 20)
    state = TreeState(reader, cache_bytes=1 << 20, settings=TREE)
    state.apply(body)
    assert state.digest_mismatches == 0
    assert state.digest == txn.decode(body).digest, "as Apache ZooKeeper has computed it"
    if role != "observer":
        link.send(quorum.encode_acks([zxid]))
        await script.next(Kind.COMMIT)
    reader.close()


@pytest.mark.parametrize(("my_id", "role"), [(1, "observer"), (9, "observer"), (9, "participant")])
def test_a_peer_of_an_apache_ensemble_receives_its_tree(
    tmp_path: Path, my_id: int, role: str
) -> None:
    """With the smaller id Apache's servers connect back, with the larger one not."""
    lines = members({my_id: role, 2: "participant", 3: "participant"})
    mine = tmp_path / "mine"
    engine = Engine(mine, mine, SETTINGS, effects_of=replayer(SETTINGS))
    with apache.start_members(tmp_path, lines, [2, 3]) as servers:
        client = KazooClient(servers[2].hosts)
        client.start(30)
        try:
            write_nodes(client)
            wanted = seen_by(client)
            session = client.client_id[0]

            async def work() -> None:
                async with Script(my_id, lines) as script:
                    await joined(script, mine, role, client, engine)

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(work())
        finally:
            client.stop()
            client.close()
    engine.close()
    assert check(mine, mine, TREE) == []
    reader = open_tree(mine, mine, cache_bytes=1 << 20)
    assert seen_in(reader) == wanted
    assert session in reader.sessions()
    assert reader.ephemerals(session) == ["/mine"]
    secret = reader.node("/secret")
    assert secret is not None
    assert acl.parse(secret[2])[0][1] == "digest"
    reader.close()


ZXID = 5 << 32 | 77
EPOCH = 6


def own_tree(folder: Path) -> None:
    """Something that an Apache server has to get by SNAP."""
    engine = Engine(folder, folder, SETTINGS, effects_of=replayer(SETTINGS))
    writer = engine.new_generation()
    raw = struct.pack(">qqqqiiiqiiq", 5, 6, 7, 8, 1, 0, 0, 0, 0, 0, 9)
    some = acl.encode([(31, "digest", "u:x"), (1, "world", "anyone")])
    writer.nodes((f"/n{i}", b"%d" % i * 9, raw, some if i % 2 else None) for i in range(2000))
    writer.nodes([("/n1/é", None, raw, None)])
    writer.sessions([(17, 4000)])
    writer.finish(ZXID)
    engine.switch_generation(ZXID, (5, 5))
    engine.close()


async def lead(script: Script, folder: Path, follower: apache.ApacheServer) -> None:
    loop = asyncio.get_running_loop()
    script.listener = LearnerListener(loop, LinkSettings(), script)
    await script.listener.start(script.quorum_port(script.sid))

    def adopted() -> bool:
        script.vote(election.LOOKING, script.sid, ZXID, 5)
        return any(vote.leader == script.sid for vote in script.votes.values())

    await script.until(adopted)
    await script.until(lambda: script.learners)
    (link,) = script.learners
    _, _, data, _ = await script.next(Kind.FOLLOWER_INFO)
    assert LearnerInfo.read(data) == LearnerInfo(1)
    link.send(encode(Kind.LEADER_INFO, EPOCH << 32, struct.pack(">i", quorum.PROTOCOL_VERSION)))
    _, zxid, data, _ = await script.next(Kind.ACK_EPOCH)
    assert (zxid, quorum.read_int(data, "ACKEPOCH")) == (0, 0)
    assert await send_snapshot(link, folder, folder) == ZXID
    text = script.membership.text().encode()
    link.send(encode(Kind.NEW_LEADER, EPOCH << 32, text))
    assert (await script.next(Kind.ACK))[1] == EPOCH << 32
    link.send(encode(Kind.UP_TO_DATE, -1))
    assert (await script.next(Kind.ACK))[1] == EPOCH << 32

    def serves() -> bool:
        link.send(encode(Kind.PING, EPOCH << 32))
        with suppress(OSError):
            return "Mode: follower" in apache.four_letters(follower.port, "srvr", 1.0)
        return False

    await script.until(serves)
    answer = apache.four_letters(follower.port, "srvr", 1.0)
    assert f"Zxid: 0x{ZXID:x}" in answer
    assert "Node count: 2006" in answer  # the root counts twice


def test_an_apache_follower_takes_the_tree_of_a_scripted_leader(tmp_path: Path) -> None:
    lines = members({1: "participant", 2: "participant", 9: "participant"})
    mine = tmp_path / "mine"
    own_tree(mine)
    with apache.start_members(tmp_path, lines, [1], ready=False) as servers:

        async def work() -> None:
            async with Script(9, lines) as script:
                await lead(script, mine, servers[1])

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())
    written = tmp_path / "1" / "data" / "version-2" / f"snapshot.{ZXID:x}"
    with open_snapshot(written) as file:
        snapshot = SnapshotReader(file, written.name)
        nodes = {p: (d, raw[:56] + raw[60:], a) for p, d, raw, a in snapshot.nodes()}
    reader = open_tree(mine, mine, cache_bytes=1 << 20)
    wanted = {p: (d, raw[:56] + raw[60:], a) for p, d, raw, a in scan_all(reader)}
    reader.close()
    nodes.pop("/zookeeper/config")  # the follower puts its own configuration there
    wanted.pop("/zookeeper/config")
    assert nodes == wanted
    assert snapshot.sessions == {17: 4000}
