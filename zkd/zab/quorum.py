"""Which sets of servers are a quorum: majority, weighted groups, a pair of servers with an oracle.

    any two quorums of one verifier share a voter (an oracle that says 1 to both servers breaks it)
    what is not a voter counts for nothing: `contains_quorum(s) == contains_quorum(s & voters)`

Verifiers are values: they never change, a reconfiguration makes another one. `quorum_point` says
for a batch of acknowledgements at once what asking `contains_quorum` for every zxid would say.

During a reconfiguration two verifiers hold at once, the committed configuration and the one last
seen; then both must have their quorum (`Tracker`, `joint_point`). `tracked` tells which hold.

Source: `QuorumMaj.java`, `QuorumHierarchical.java`, `QuorumOracleMaj.java`,
`SyncedLearnerTracker.java` of Apache ZooKeeper; spec zab-quorum-protocol sections 12 and 13.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from zkd.config.servers import Membership
from zkd.zab.zxid import LOWEST


class Verifier(Protocol):
    """What a configuration says about quorums."""

    @property
    def voters(self) -> frozenset[int]: ...

    @property
    def observers(self) -> frozenset[int]: ...

    @property
    def version(self) -> int:
        """The zxid of the reconfiguration that made it; 0 for one that files alone have named."""
        ...

    def weight(self, sid: int) -> int:
        """Of weight 0: the server votes, but is never elected."""
        ...

    def contains_quorum(self, acked: AbstractSet[int]) -> bool: ...

    def quorum_point(self, acked: Mapping[int, int]) -> int:
        """The greatest zxid that a quorum has acknowledged; `LOWEST` if there is none.

        `acked`: the last zxid that each server has acknowledged. Servers that are no voters, and
        voters that are missing, do not count.
        """
        ...


@dataclass(frozen=True, slots=True)
class Majority:
    """More than half of the voters."""

    voters: frozenset[int]
    observers: frozenset[int] = frozenset()
    version: int = 0

    def weight(self, sid: int) -> int:
        return 1

    def contains_quorum(self, acked: AbstractSet[int]) -> bool:
        return len(self.voters & acked) > len(self.voters) // 2

    def quorum_point(self, acked: Mapping[int, int]) -> int:
        points = sorted([acked[sid] for sid in self.voters if sid in acked], reverse=True)
        half = len(self.voters) // 2
        return points[half] if len(points) > half else LOWEST


@dataclass(frozen=True, slots=True)
class OracleMajority:
    """A majority, but of two servers one is enough when an oracle outside says so.

    The oracle is a file that something else keeps; `said` is what it contained when last read. It
    is heard only while `needed`: there are two voters, and no follower is with the leader.
    """

    majority: Majority
    said: str = ""
    no_follower: bool = True

    @property
    def voters(self) -> frozenset[int]:
        return self.majority.voters

    @property
    def observers(self) -> frozenset[int]:
        return self.majority.observers

    @property
    def version(self) -> int:
        return self.majority.version

    @property
    def needed(self) -> bool:
        return self.no_follower and len(self.voters) == 2

    @property
    def grants(self) -> bool:
        """May one server go on alone?"""
        return self.needed and self.said.startswith("1")

    @property
    def refuses(self) -> bool:
        """Must this server follow whoever leads?"""
        return self.needed and not self.said.startswith("1")

    def hearing(self, said: str, *, no_follower: bool) -> OracleMajority:
        """The same pair after another look at the file and at the followers."""
        return dataclasses.replace(self, said=said, no_follower=no_follower)

    def weight(self, sid: int) -> int:
        return 1

    def contains_quorum(self, acked: AbstractSet[int]) -> bool:
        if self.grants and self.voters & acked:
            return True
        return self.majority.contains_quorum(acked)

    def quorum_point(self, acked: Mapping[int, int]) -> int:
        if self.grants:
            return max((acked[sid] for sid in self.voters if sid in acked), default=LOWEST)
        return self.majority.quorum_point(acked)


@dataclass(frozen=True, slots=True)
class Hierarchical:
    """More than half of the groups that weigh anything, each by more than half of its weight.

    `group_of` and `weights` name every voter. A group may also name a server that is no voter but
    has a weight line: that weight counts for the total, and nobody ever adds it (as in Apache's).
    """

    voters: frozenset[int]
    observers: frozenset[int]
    version: int
    group_of: Mapping[int, int]
    weights: Mapping[int, int]
    totals: Mapping[int, int]  # by group; those of total 0 are left out

    def weight(self, sid: int) -> int:
        """0 for a server that this configuration does not know: it is not electable by it."""
        return self.weights.get(sid, 0)

    def contains_quorum(self, acked: AbstractSet[int]) -> bool:
        return self._last_of_quorum(self.voters & acked) is not None

    def quorum_point(self, acked: Mapping[int, int]) -> int:
        voters = [sid for sid in self.voters if sid in acked]
        last = self._last_of_quorum(sorted(voters, key=acked.__getitem__, reverse=True))
        return LOWEST if last is None else acked[last]

    def _last_of_quorum(self, voters: Iterable[int]) -> int | None:
        """The first of `voters` with whom they are a quorum, counted in the order given."""
        won, gathered = 0, dict.fromkeys(self.totals, 0)
        for sid in voters:
            group = self.group_of[sid]
            if group not in self.totals:
                continue
            half = self.totals[group] // 2
            before = gathered[group]
            gathered[group] = before + self.weights[sid]
            if before <= half < gathered[group]:
                won += 1
                if won > len(self.totals) // 2:
                    return sid
        return None


def faults_of(membership: Membership) -> list[str]:
    """Why the group and weight lines give no verifier, each fault a sentence; none without them.

    Apache ZooKeeper's, and one of ours: with negative weights two quorums need not meet.
    """
    faults: list[str] = []
    group_of: dict[int, int] = {}
    for group, sids in membership.groups.items():
        for sid in sids:
            if sid in group_of:
                faults.append(f"server {sid} is in group {group_of[sid]} and in group {group}")
            group_of[sid] = group
    for sid, weight in membership.weights.items():
        if weight < 0:
            faults.append(f"server {sid} has the weight {weight}, which is negative")
    if not membership.groups and not membership.weights:
        return faults
    voters = {line.id for line in membership.voters()}
    for sid in sorted(voters - group_of.keys()):
        faults.append(f"server {sid} is in no group, but there are group or weight lines")
    for sid in sorted(group_of.keys() - voters - membership.weights.keys()):
        faults.append(
            f"server {sid} in group {group_of[sid]} is no participant and has no weight line"
        )
    return faults


def verifier_of(membership: Membership) -> Majority | Hierarchical:
    """The verifier of a configuration; ValueError with all its faults in one sentence."""
    faults = faults_of(membership)
    if faults:
        raise ValueError("; ".join(faults))
    voters = frozenset(line.id for line in membership.voters())
    observers = frozenset(line.id for line in membership.observers())
    if not membership.groups and not membership.weights:
        return Majority(voters, observers, membership.version)
    group_of = {sid: group for group, sids in membership.groups.items() for sid in sids}
    weights = dict.fromkeys(voters, 1) | dict(membership.weights)
    totals: dict[int, int] = {}
    for sid, group in group_of.items():
        totals[group] = totals.get(group, 0) + weights[sid]
    return Hierarchical(
        voters,
        observers,
        membership.version,
        MappingProxyType(group_of),
        MappingProxyType(weights),
        MappingProxyType({group: total for group, total in totals.items() if total}),
    )


def same_configuration(one: Membership, other: Membership) -> bool:
    """Apache's equality: the same version, or the same servers, groups and weights."""
    if one.version == other.version:
        return True
    return _content(one) == _content(other)


def _content(membership: Membership) -> object:
    servers = {sid: str(line) for sid, line in membership.servers.items()}
    group_of = {sid: group for group, sids in membership.groups.items() for sid in sids}
    if not group_of and not membership.weights:
        return servers
    weights = dict.fromkeys((line.id for line in membership.voters()), 1)
    return servers, group_of, weights | dict(membership.weights)


def tracked(committed: Verifier, last_seen: Verifier | None = None) -> tuple[Verifier, ...]:
    """The verifiers that must all have their quorum: the last seen one counts if it is newer."""
    if last_seen is not None and last_seen.version > committed.version:
        return committed, last_seen
    return (committed,)


def voters_of(verifiers: Iterable[Verifier]) -> frozenset[int]:
    """Whoever votes in one of them at least."""
    return frozenset().union(*(verifier.voters for verifier in verifiers))


def joint_point(verifiers: Iterable[Verifier], acked: Mapping[int, int]) -> int:
    """The greatest zxid that a quorum of each verifier has acknowledged; `LOWEST` if none."""
    return min(verifier.quorum_point(acked) for verifier in verifiers)


class Tracker:
    """Who has acknowledged one thing (an epoch, NEWLEADER, a vote), by one or two verifiers.

    `acked` holds voters only, and only grows.
    """

    __slots__ = ("acked", "verifiers", "voters")

    def __init__(self, verifiers: tuple[Verifier, ...], acked: Iterable[int] = ()) -> None:
        assert verifiers, "nothing to track"
        self.verifiers = verifiers
        self.voters = voters_of(verifiers)
        self.acked = self.voters.intersection(acked)

    def add(self, sid: int) -> bool:
        """Is it a voter of any of the verifiers? Nobody else is counted."""
        if sid not in self.voters:
            return False
        self.acked |= {sid}
        return True

    def has_sid(self, sid: int) -> bool:
        """Is it a voter of all of the verifiers?"""
        return all(sid in verifier.voters for verifier in self.verifiers)

    def has_all_quorums(self) -> bool:
        return all(verifier.contains_quorum(self.acked) for verifier in self.verifiers)
