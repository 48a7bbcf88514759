"""Conversations of Apache ZooKeeper 3.9.5, replayed against this leader and this learner.

The learner hears what the Java leader sent and must say what the Java learner said: the same
introduction, the same acks in the same order, an answer to the same pings. The leader hears the
scripted probes and must answer as the Java leader did.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.zab.hand import Hand, of, sent
from tests.zab.rows import rows, z
from zkd.config.servers import Membership, parse_membership
from zkd.jute.quorum import Kind, LearnerInfo, Packet, PacketDecoder
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.settings import Settings

VECTORS = Path(__file__).parents[2] / "vectors"
SETTINGS = Settings(tick_ms=1000, reconfig_enabled=True)
NOT_OURS = (Kind.REQUEST, Kind.REVALIDATE)
"""Sent for clients."""


def load() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in ("sequences.json", "scripted-leader.json"):
        found += json.loads((VECTORS / name).read_text())
    return found


SEQUENCES = load()
LEARNERS = [s for s in SEQUENCES if not re.match("probe|scripted (obs|non)", s["title"])]
"""Those in which a real server learned."""
PROBES = [s for s in SEQUENCES if s["title"].startswith("probe")]


def conversation(sequence: dict[str, Any]) -> list[tuple[bool, Packet]]:
    """(from the leader, packet); without the streams, SASL and the ends of connections."""
    found = []
    for entry in sequence["packets"]:
        if entry["kind"] in ("FIN", "RST", "QuorumAuthPacket") or "stream" in entry["kind"]:
            continue
        (packet,) = PacketDecoder().feed(bytes.fromhex(entry["hex"]))
        found.append((entry["dir"].startswith("M>L"), packet))
    return found


def members_of(packets: list[tuple[bool, Packet]]) -> Membership:
    data = next(packet[2] for _, packet in packets if packet[0] == Kind.NEW_LEADER)
    assert data is not None
    return parse_membership(data.decode())


def learner_of(packets: list[tuple[bool, Packet]]) -> tuple[Hand, list[o.Output]]:
    """A learner as the one that spoke was, connected to its leader."""
    kind, zxid, data, _ = packets[0][1]
    info = LearnerInfo.read(data)
    accepted = zxid >> 32
    _, last, epoch, _ = next(packet for _, packet in packets if packet[0] == Kind.ACK_EPOCH)
    assert epoch is not None
    current = int.from_bytes(epoch, "big", signed=True)
    seen = members_of(packets)
    if (kind == Kind.OBSERVER_INFO) != (info.sid in {s.id for s in seen.observers()}):
        role = "observer" if kind == Kind.OBSERVER_INFO else "participant"
        servers = dict(seen.servers)
        if info.sid in servers or role == "observer":
            line = servers.get(info.sid or 0, next(iter(servers.values())))
            servers[info.sid or 0] = dataclasses.replace(line, id=info.sid, role=role)
        seen = dataclasses.replace(seen, servers=servers)
    members = dataclasses.replace(seen, version=info.config_version)
    assert info.sid is not None
    leader = max(sid for sid in {s.id for s in members.voters()} if sid != info.sid)
    counter = last & 0xFFFFFFFF
    log = rows(f"{last >> 32}:1-{counter}") if counter else rows()
    current = accepted if current == -1 else current
    epochs = {"accepted": accepted, "current": current}
    hand = Hand(info.sid, log, **epochs, tree=0, members=members, settings=SETTINGS)
    return hand, hand.learn(leader)


@pytest.mark.parametrize("sequence", LEARNERS, ids=lambda s: s["title"][:50])
def test_the_learner_says_what_apaches_learner_said(sequence: dict[str, Any]) -> None:
    packets = conversation(sequence)
    hand, outputs = learner_of(packets)
    for from_leader, packet in packets:
        if not from_leader or packet[0] in (Kind.SYNC, Kind.REVALIDATE):
            continue
        found = hand.packets(1, packet)
        outputs += found
        for install in of(found, o.InstallSnapshot):
            hand.log.zxids.clear()
            outputs += hand.feed(i.SnapshotInstalled(install.zxid))
        outputs += hand.disk()
    assert not of(outputs, o.Close), of(outputs, o.Close)
    said = sent(outputs, 1)
    theirs = [p for from_leader, p in packets if not from_leader and p[0] not in NOT_OURS]
    for kinds in ([Kind.FOLLOWER_INFO, Kind.OBSERVER_INFO, Kind.ACK_EPOCH, Kind.ACK], [Kind.PING]):
        expected = [(packet[0], packet[1]) for packet in theirs if packet[0] in kinds]
        ours = [what for what in said if what[0] in kinds]
        assert ours[: len(expected)] == expected
    first = of(outputs, o.SendPackets)
    assert first[0].packets[0] == packets[0][1]
    introduction = [p for out in first for p in out.packets if p[0] == Kind.ACK_EPOCH]
    assert introduction == [p for p in theirs if p[0] == Kind.ACK_EPOCH]


@pytest.mark.parametrize("sequence", PROBES, ids=lambda s: s["title"])
def test_the_leader_answers_probes_as_apaches_leader(sequence: dict[str, Any]) -> None:
    packets = conversation(sequence)
    members = members_of(packets)
    hand = Hand(
        3, rows("1:40-51", "2:1-4"), accepted=2, current=2, members=members, settings=SETTINGS
    )
    hand.serve(conn=1, sid=2)
    hand.propose(*[b"x"] * 6)
    hand.disk()
    hand.packets(1, *[(Kind.ACK, z(f"3:{n}"), None, None) for n in range(1, 7)])
    assert hand.peer.state.positions.delivered == z("3:6")
    hand.feed(i.Accepted(2))
    outputs: list[o.Output] = []
    for from_leader, packet in packets:
        if from_leader:
            continue
        found = hand.packets(2, packet)
        outputs += found
        if of(found, o.SendSnapshot):
            outputs.append(o.SendPackets(2, ((Kind.SNAP, z("3:6"), None, None),)))
            outputs += hand.feed(i.SnapshotStarted(2, z("3:6")))
    theirs = [packet for from_leader, packet in packets if from_leader]
    assert sent(outputs, 2, hand.log) == [(packet[0], packet[1]) for packet in theirs]
    data = [p for out in of(outputs, o.SendPackets) for p in out.packets if p[2] is not None]
    assert data == [p for p in theirs if p[0] in (Kind.LEADER_INFO, Kind.NEW_LEADER)]
