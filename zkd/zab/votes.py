"""Votes: which is better, which are the same, who agrees with one.

    better: the larger (peer_epoch, zxid, leader), in this order; a leader of weight 0 never is
    peer_epoch: the current epoch of the proposed leader; round: the sender's logical clock

A server that leads or follows goes on telling the vote of its election: zxid and round are those
of then, only peer_epoch is brought up to date once the epoch is established. That is why votes of
servers that are no longer LOOKING are the same without regard to zxid and round: members of one
ensemble may have elected the same leader in different rounds.

Source: `Vote.java`, `FastLeaderElection.java` (`totalOrderPredicate`, `getVoteTracker`) of Apache
ZooKeeper; spec zab-quorum-protocol section 12.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zkd.zab.quorum import Tracker, Verifier
from zkd.zab.zxid import LOWEST

VERSION: Final = 2
"""Of the notifications we send: with peer epoch and configuration. 0 has no version field."""

NOBODY: Final = LOWEST
"""The leader that a server proposes which may not vote."""


class ServerState(enum.IntEnum):
    """The numbers are those of the wire."""

    LOOKING = 0
    FOLLOWING = 1
    LEADING = 2
    OBSERVING = 3


@dataclass(frozen=True, slots=True)
class Vote:
    """What one server said. `==` compares every field; `same` is the protocol's equality."""

    leader: int
    zxid: int
    round: int
    peer_epoch: int
    state: ServerState = ServerState.LOOKING  # of who said it
    version: int = 0  # of the notification that brought it, where equality asks for it


@dataclass(frozen=True, slots=True)
class Notification:
    """The message of the election. `config`: the text of the sender's committed configuration."""

    state: ServerState
    leader: int
    zxid: int
    round: int
    peer_epoch: int
    config: str = ""  # empty: a notification from before version 2, or one with an empty text
    version: int = VERSION

    def vote(self) -> Vote:
        return Vote(self.leader, self.zxid, self.round, self.peer_epoch, self.state, self.version)


def is_better(one: Vote | Notification, other: Vote | Notification, verifier: Verifier) -> bool:
    """Does `one` win over `other`? Never if its leader weighs nothing."""
    if verifier.weight(one.leader) == 0:
        return False
    return (one.peer_epoch, one.zxid, one.leader) > (other.peer_epoch, other.zxid, other.leader)


def same(one: Vote, other: Vote) -> bool:
    """Do the two count for the same leader?"""
    if ServerState.LOOKING in (one.state, other.state):
        return (one.leader, one.zxid, one.round, one.peer_epoch) == (
            other.leader,
            other.zxid,
            other.round,
            other.peer_epoch,
        )
    if (one.version > 0) != (other.version > 0):
        # Servers of before version 1 do not bring peer_epoch up to date: it cannot be compared.
        return one.leader == other.leader
    return (one.leader, one.peer_epoch) == (other.leader, other.peer_epoch)


def tally(votes: Mapping[int, Vote], vote: Vote, verifiers: tuple[Verifier, ...]) -> Tracker:
    """The voters whose vote is the same as `vote`."""
    return Tracker(verifiers, (sid for sid, theirs in votes.items() if same(vote, theirs)))
