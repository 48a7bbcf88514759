"""What the tests of one server's election stand on: configurations, notifications, short forms."""

from __future__ import annotations

from collections.abc import Sequence

from zkd.config.servers import Membership, parse_server
from zkd.zab.election import Decided, Election, Output, SendNotification
from zkd.zab.votes import Notification, ServerState

LOOKING, FOLLOWING, LEADING, OBSERVING = ServerState


def members(voters: Sequence[int], observers: Sequence[int] = (), version: int = 0) -> Membership:
    lines = {}
    for sid in (*voters, *observers):
        role = "participant" if sid in voters else "observer"
        lines[sid] = parse_server(sid, f"10.0.0.{sid}:2888:3888:{role};2181")
    return Membership(lines, version=version)


THREE = members((1, 2, 3))
FIVE = members((1, 2, 3, 4, 5))


def looking(leader: int, zxid: int = 0, round_: int = 1, epoch: int = 0) -> Notification:
    return Notification(LOOKING, leader, zxid, round_, epoch, THREE.text())


def settled(
    state: ServerState, leader: int, round_: int = 1, epoch: int = 1, version: int = 2
) -> Notification:
    return Notification(state, leader, 0, round_, epoch, THREE.text(), version)


def started(
    sid: int, membership: Membership = THREE, zxid: int = 0, epoch: int = 0, round_: int = 1
) -> Election:
    """A server that looks since time 0, in the given round."""
    election = Election(sid, membership)
    election.round = round_ - 1
    election.start(zxid, epoch, 0)
    return election


def sent(outputs: Sequence[Output]) -> list[tuple[int, int, int]]:
    """To whom, whom for, in which round."""
    return [
        (output.to_sid, output.notification.leader, output.notification.round)
        for output in outputs
        if isinstance(output, SendNotification)
    ]


def decided(outputs: Sequence[Output]) -> tuple[int, ServerState] | None:
    results = [output for output in outputs if isinstance(output, Decided)]
    assert len(results) <= 1
    return (results[0].vote.leader, results[0].state) if results else None


def elected(sid: int, leader: int = 3) -> Election:
    election = started(sid)
    election.received(2 if sid != 2 else 1, settled(FOLLOWING, leader), 0)
    election.received(leader, settled(LEADING, leader), 0)
    return election
