"""Elections and configurations: learned, changed, a pair with an oracle; Apache's own messages.

Source: `FastLeaderElection.java`, `QuorumOracleMaj.java`; spec zab-quorum-protocol 11 to 13.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from election_support import (
    FOLLOWING,
    LEADING,
    LOOKING,
    OBSERVING,
    THREE,
    decided,
    elected,
    looking,
    members,
    sent,
    settled,
    started,
)

from zkd.config.servers import parse_membership
from zkd.zab.election import (
    Decided,
    Election,
    ElectionSettings,
    NewerConfiguration,
    SendNotification,
    UnusableConfiguration,
)
from zkd.zab.votes import NOBODY, Notification, ServerState, Vote
from zkd.zab.zxid import LOWEST

VECTORS = Path(__file__).parents[2] / "vectors" / "fle-messages.json"
RECONFIG = ElectionSettings(reconfig_enabled=True)

# ---- configurations

NEWER = members((1, 2, 3), (4,), version=0x10000002F)


def with_config(text: str) -> Notification:
    return Notification(LOOKING, 3, 0, 1, 0, text)


def test_a_newer_configuration_ends_the_election_at_round_zero() -> None:
    election = Election(4, members((1, 2, 3, 4)), settings=RECONFIG)
    election.start(5, 0, 0)
    outputs = election.received(3, with_config(NEWER.text()), 10)
    assert outputs == [NewerConfiguration(NEWER.text(), NEWER, restart=True)]
    assert (election.searching, election.round, election.deadline_ms) == (False, 0, None)
    assert election.observer
    (first, *_) = election.start(5, 0, 20)
    assert isinstance(first, SendNotification)
    assert first.notification == Notification(LOOKING, NOBODY, LOWEST, 1, LOWEST, NEWER.text())


def test_a_newer_version_of_the_same_content_does_not_end_the_election() -> None:
    same = members((1, 2, 3), version=5)
    election = Election(1, THREE, settings=RECONFIG)
    election.start(0, 0, 0)
    outputs = election.received(3, with_config(same.text()), 10)
    assert outputs[0] == NewerConfiguration(same.text(), same, restart=False)
    assert sent(outputs) == [(2, 3, 1), (3, 3, 1)]
    assert outputs[1] == SendNotification(2, Notification(LOOKING, 3, 0, 1, 0, same.text()))


@pytest.mark.parametrize("version", [0, 0x10000002E, 0x10000002F])
def test_a_configuration_that_is_not_newer_is_left_alone(version: int) -> None:
    election = Election(1, NEWER, settings=RECONFIG)
    election.start(0, 0, 0)
    other = members((1, 2, 3), version=version)
    assert sent(election.received(3, with_config(other.text()), 10)) == [(2, 3, 1), (3, 3, 1)]
    assert election.committed == NEWER


def test_a_newer_configuration_is_left_alone_by_who_has_a_leader() -> None:
    election = Election(1, THREE, settings=RECONFIG)
    election.not_looking(Vote(2, 0, 1, 1), FOLLOWING)
    assert sent(election.received(3, with_config(NEWER.text()), 10)) == [(3, 2, 1)]
    assert election.committed == THREE


def test_a_newer_configuration_is_left_alone_where_reconfiguration_is_disabled() -> None:
    election = started(1)
    assert sent(election.received(3, with_config(NEWER.text()), 10)) == [(2, 3, 1), (3, 3, 1)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server.1=nonsense", "form"),
        ("server.1=a:1:2:observer\nversion=9", "without a participant"),
        ("server.1=a:1:2\nweight.1=3\nversion=9", "in no group"),
    ],
)
def test_an_unusable_configuration_is_told_and_the_vote_counts(text: str, why: str) -> None:
    election = Election(1, THREE, settings=RECONFIG)
    election.start(0, 0, 0)
    (first, *others) = election.received(3, with_config(text), 10)
    assert isinstance(first, UnusableConfiguration)
    assert first.from_sid == 3
    assert why in first.why
    assert sent(others) == [(2, 3, 1), (3, 3, 1)]


def test_a_changed_configuration_begins_the_service_anew_and_keeps_the_vote() -> None:
    """A reconfiguration while following: who asks from outside hears round 0."""
    election = elected(1)
    assert election.configured(NEWER)
    assert sent(election.received(4, settled(OBSERVING, 3), 0)) == [(4, 3, 0)]
    assert sent(election.received(2, looking(2), 0)) == [(2, 3, 1)]


def test_a_configuration_of_the_same_content_changes_its_version_only() -> None:
    election = elected(1)
    assert not election.configured(members((1, 2, 3), version=5))
    (answer,) = election.received(2, looking(2), 0)
    assert isinstance(answer, SendNotification)
    assert answer.notification.config.endswith("version=5")
    assert election.round == 1


# ---- a pair with an oracle


def pair(said: str) -> Election:
    election = Election(1, members((1, 2)))
    election.hear_oracle(said)
    election.start(0, 0, 0)
    return election


def test_an_oracle_that_grants_lets_one_of_two_lead() -> None:
    assert decided(pair("1").tick(200, delivered=True)) == (1, LEADING)


def test_an_oracle_that_comes_to_grant_is_heard_at_the_next_empty_poll() -> None:
    election = pair("0")
    assert decided(election.tick(200, delivered=True)) is None
    election.hear_oracle("1")
    assert decided(election.tick(600, delivered=True)) == (1, LEADING)


def test_an_oracle_that_comes_to_refuse_ends_the_wait() -> None:
    election = pair("1")
    election.hear_oracle("0")
    assert decided(election.tick(200, delivered=True)) is None


def test_an_oracle_that_refuses_makes_its_server_follow_who_leads() -> None:
    outputs = pair("0").received(2, settled(LEADING, 2, round_=9), 0)
    assert outputs == [Decided(Vote(2, 0, 9, 1), FOLLOWING, frozenset())]


def test_without_an_oracle_one_of_two_neither_leads_nor_follows_alone() -> None:
    election = started(1, members((1, 2)))
    assert decided(election.tick(200, delivered=True)) is None
    assert decided(election.received(2, settled(LEADING, 2, round_=9), 0)) is None


# ---- what Apache's servers said


def notifications() -> list[dict[str, Any]]:
    vectors = json.loads(VECTORS.read_text())
    return [vector for vector in vectors if vector["name"].startswith("notification")]


def encoded(said: Notification) -> str:
    text = said.config.encode()
    body = struct.pack(
        ">iqqqqii",
        *(said.state, said.leader, said.zxid, said.round, said.peer_epoch),
        *(said.version, len(text)),
    )
    return (struct.pack(">i", len(body) + len(text)) + body + text).hex()


def signed(text: str) -> int:
    value = int(text, 16)
    return value - (1 << 64) if value >> 63 else value


@pytest.mark.parametrize("vector", notifications(), ids=lambda vector: vector["name"])
def test_the_notifications_are_apaches_byte_by_byte(vector: dict[str, Any]) -> None:
    """Brought about by an election that reaches the state in which they were sent."""
    said = vector["decoded"]
    state, zxid = ServerState(said["state"]), signed(said["zxid"])
    config = parse_membership(said["config"])
    sid = said["leader"] if state is not FOLLOWING else 1
    if sid == NOBODY:
        sid = next((line.id for line in config.observers()), 99)
    election = Election(sid, config)
    if state is LOOKING:
        epoch = 7 if zxid == LOWEST else said["peerEpoch"]
        election.round = said["electionEpoch"] - 1
        (first, *_) = election.start(zxid, epoch, 0)
    else:
        election.not_looking(Vote(said["leader"], zxid, said["electionEpoch"], 0), state)
        election.established(said["peerEpoch"])
        (*_, first) = election.received(2, looking(2), 0)
    assert isinstance(first, SendNotification)
    assert encoded(first.notification) == vector["hex"]
