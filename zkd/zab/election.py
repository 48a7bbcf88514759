"""Fast leader election: one server's part, stepped by its driver.

    searching => state is LOOKING and there is a deadline
    votes of the round: `round` of each is this server's round
    finalizing => a quorum of every tracked configuration votes as this server proposes

`start` begins a round; then `received` and `tick` until `Decided` comes out. From then on
`received` only answers those who still look. The election does not make a leader legitimate:
discovery does. It has to end with a leader that a quorum follows and whose history is the newest
of that quorum, and may be wrong now and then, at the price of another round.

The round is in memory only: a server that restarts begins at 0 and takes over a higher one from
the first vote it hears. A message to oneself is no output: it is counted at once.

Two deviations, neither seen by others. A stale vote that would win leaves a finalizing server
where it is; Apache's goes back to wait for a whole poll. A newer configuration in a notification is
looked at only where reconfiguration is enabled; Apache's restarts its election again and again.

Source: `FastLeaderElection.java` of Apache ZooKeeper; spec zab-quorum-protocol sections 11 to 13.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zkd.config.servers import Membership, parse_membership
from zkd.zab.quorum import (
    Majority,
    OracleMajority,
    Tracker,
    Verifier,
    same_configuration,
    tracked,
    verifier_of,
    voters_of,
)
from zkd.zab.votes import NOBODY, Notification, ServerState, Vote, is_better, tally
from zkd.zab.zxid import LOWEST

MUST_NOT_VOTE: Final = -1
"""The zxid of a server that has lost its database: it neither counts votes nor is counted."""


@dataclass(frozen=True, slots=True)
class ElectionSettings:
    min_interval_ms: int = 200  # the first poll; doubled by each that stays empty
    max_interval_ms: int = 60_000
    finalize_ms: int = 200  # silence after a quorum agreed
    reconfig_enabled: bool = False


# ---- outputs


@dataclass(frozen=True, slots=True)
class SendNotification:
    """Replaces what still waits for the same server. Never to oneself."""

    to_sid: int
    notification: Notification


@dataclass(frozen=True, slots=True)
class ConnectAll:
    """Open a connection to every voter to whom there is none."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The search is over. `supporters`: the voters seen to agree (none where an oracle decided)."""

    vote: Vote
    state: ServerState
    supporters: frozenset[int]


@dataclass(frozen=True, slots=True)
class NewerConfiguration:
    """Activate it: the election has it already.

    `restart`: its content differs. The election has ended; open its connections anew and `start`.
    """

    text: str
    membership: Membership
    restart: bool


@dataclass(frozen=True, slots=True)
class UnusableConfiguration:
    """A notification carried a text that is no configuration. The vote in it counted."""

    from_sid: int
    why: str


@dataclass(frozen=True, slots=True)
class SeenLooking:
    """A voter looks for a leader while this server leads: it may have given up waiting for us."""

    sid: int


Output = (
    SendNotification
    | ConnectAll
    | Decided
    | NewerConfiguration
    | UnusableConfiguration
    | SeenLooking
)


class Election:
    """Fast leader election of server `sid`.

    `now_ms`: any clock that never goes back. An output list is to be carried out in its order.
    """

    def __init__(
        self,
        sid: int,
        committed: Membership,
        last_seen: Membership | None = None,
        settings: ElectionSettings | None = None,
    ) -> None:
        self.sid = sid
        self.settings = settings or ElectionSettings()
        self.state = ServerState.LOOKING
        self.searching = False
        self.round = 0
        self.current_vote: Vote | None = None
        """What those hear who ask: of the last election, or for oneself before there was one."""
        self.deadline_ms: int | None = None
        """When to call `tick` at the latest; None unless searching."""
        self._interval_ms = self.settings.min_interval_ms
        self._finalizing = False
        self._initial = self._proposal = Vote(NOBODY, LOWEST, 0, LOWEST)
        self._of_round: dict[int, Vote] = {}
        self._outside: dict[int, Vote] = {}  # of servers that lead or follow, whatever their round
        self._oracle: str | None = None
        self._use(committed, last_seen)

    # ---- configuration

    def configured(self, committed: Membership, last_seen: Membership | None = None) -> bool:
        """The configurations have changed. True: in content, so that the election service begins
        anew: at round 0, with new connections, and with `start` if this server was searching.
        """
        changed = not same_configuration(committed, self.committed)
        self._use(committed, last_seen)
        if changed:
            self._begin_anew()
        return changed

    def hear_oracle(self, said: str | None) -> None:
        """What the oracle's file says now; None: there is none. Matters with two voters only."""
        self._oracle = said
        self._use(self.committed, self.last_seen)

    @property
    def observer(self) -> bool:
        """A server in no configuration counts as a participant that does not vote."""
        return self.sid in self._verifier.observers

    def _use(self, committed: Membership, last_seen: Membership | None) -> None:
        self.committed = committed
        self.last_seen = last_seen
        self._text = committed.text()
        self._verifier = self._verifier_of(committed)
        seen = self._verifier_of(last_seen) if last_seen is not None else None
        self._verifiers = tracked(self._verifier, seen)
        self.voters = voters_of(self._verifiers)
        self._finalizing = self._finalizing and self._agreed()

    def _verifier_of(self, membership: Membership) -> Verifier:
        verifier = verifier_of(membership)
        if self._oracle is not None and isinstance(verifier, Majority):
            return OracleMajority(verifier, self._oracle)
        return verifier

    def _begin_anew(self) -> None:
        self.round = 0
        if self.state is ServerState.LOOKING:
            self.current_vote = None
            self._stop()

    # ---- inputs

    def start(self, last_zxid: int, current_epoch: int, now_ms: int) -> list[Output]:
        """Look for a leader, in a new round. `last_zxid`: the last one logged."""
        self.state = ServerState.LOOKING
        self.searching = True
        self.round += 1
        self._of_round.clear()
        self._outside.clear()
        self._finalizing = False
        self._interval_ms = self.settings.min_interval_ms
        self.deadline_ms = now_ms + self._interval_ms
        if self.current_vote is None:
            self.current_vote = Vote(self.sid, last_zxid, self.round, current_epoch)
        leader = self.sid if self.sid in self._verifier.voters else NOBODY
        if self.observer:
            last_zxid = current_epoch = LOWEST
        self._initial = Vote(leader, last_zxid, self.round, current_epoch)
        self._proposal = self._initial
        outputs = self._notify_all()
        self._look_for_quorum(now_ms)
        self._check()
        return outputs

    def received(self, from_sid: int, theirs: Notification, now_ms: int) -> list[Output]:
        """A notification of another server, voter or not."""
        assert from_sid != self.sid, "a message to oneself is counted when it is sent"
        outputs: list[Output] = []
        if self.state is ServerState.LOOKING:
            news = self._configuration_in(from_sid, theirs)
            if news is not None:
                outputs.append(news)
            if isinstance(news, NewerConfiguration) and news.restart:
                return outputs
        if from_sid not in self.voters:
            outputs += self._answer(from_sid, self.round)
        elif self.state is not ServerState.LOOKING:
            if theirs.state is ServerState.LOOKING:
                if self.state is ServerState.LEADING:
                    outputs.append(SeenLooking(from_sid))
                assert self.current_vote is not None
                outputs += self._answer(from_sid, self.current_vote.round)
        elif self.searching:
            if theirs.state is ServerState.LOOKING and theirs.round < self.round:
                outputs.append(SendNotification(from_sid, self._notification(self._proposal)))
            outputs += self._count(from_sid, theirs, now_ms)
        self._check()
        return outputs

    def tick(self, now_ms: int, delivered: bool) -> list[Output]:
        """Time has passed. `delivered`: to one server at least nothing waits to be sent."""
        if self.deadline_ms is None or now_ms < self.deadline_ms:
            return []
        if self._finalizing:
            return self._decide(self._proposal, self._supporters(self._of_round, self._proposal))
        outputs: list[Output] = self._notify_all() if delivered else [ConnectAll()]
        self._interval_ms = min(self._interval_ms * 2, self.settings.max_interval_ms)
        self.deadline_ms = now_ms + self._interval_ms
        supporters = self._supporters(self._of_round, self._proposal)
        if isinstance(self._verifier, OracleMajority) and supporters.has_all_quorums():
            # The oracle has changed its mind since the votes came in: nothing more to wait for.
            return outputs + self._decide(self._proposal, supporters)
        self._look_for_quorum(now_ms)
        self._check()
        return outputs

    def not_looking(self, vote: Vote, state: ServerState) -> None:
        """Lead, follow or observe without an election: a reconfiguration named the leader."""
        assert state is not ServerState.LOOKING, "to look for a leader, start"
        self._stop()
        self.state = state
        self.current_vote = vote

    def established(self, epoch: int) -> None:
        """The leader's epoch stands: those who ask hear it. Zxid and round stay as they are."""
        assert self.state is not ServerState.LOOKING, "no leader, no epoch"
        assert self.current_vote is not None
        self.current_vote = dataclasses.replace(self.current_vote, peer_epoch=epoch)

    # ---- counting

    def _count(self, from_sid: int, theirs: Notification, now_ms: int) -> list[Output]:
        wait_ms = self.settings.finalize_ms if self._finalizing else self._interval_ms
        self.deadline_ms = now_ms + wait_ms
        if theirs.leader not in self.voters:
            return []
        if self._finalizing:
            if not is_better(theirs, self._proposal, self._verifier):
                return []
            self._finalizing = False
            self.deadline_ms = now_ms + self._interval_ms
        outputs: list[Output] = []
        if theirs.state is ServerState.LOOKING:
            outputs = self._count_looking(from_sid, theirs)
        elif theirs.state is not ServerState.OBSERVING:
            outputs = self._count_outside(from_sid, theirs)
        if self.searching:
            self._look_for_quorum(now_ms)
        return outputs

    def _count_looking(self, from_sid: int, theirs: Notification) -> list[Output]:
        if MUST_NOT_VOTE in (self._initial.zxid, theirs.zxid) or theirs.round < self.round:
            return []
        outputs: list[Output] = []
        if theirs.round > self.round:
            self.round = theirs.round
            self._of_round.clear()
            self._propose(theirs if self._wins(theirs, self._initial) else self._initial)
            outputs = self._notify_all()
        elif self._wins(theirs, self._proposal):
            self._propose(theirs)
            outputs = self._notify_all()
        vote = Vote(theirs.leader, theirs.zxid, theirs.round, theirs.peer_epoch)
        self._of_round[from_sid] = vote
        return outputs

    def _count_outside(self, from_sid: int, theirs: Notification) -> list[Output]:
        """A vote of a server that leads or follows: is there an ensemble to join?"""
        vote = theirs.vote()
        if vote.round == self.round:
            # Without its version, as Apache's: within a round the leader alone is compared, so
            # that some may have brought their peer epoch up to date already and some not.
            self._of_round[from_sid] = dataclasses.replace(vote, version=0)
            supporters = self._supporters(self._of_round, vote)
            if supporters.has_all_quorums() and self._leads(self._of_round, vote):
                return self._decide(vote, supporters)
        self._outside[from_sid] = vote
        supporters = self._supporters(self._outside, vote)
        if supporters.has_all_quorums() and self._leads(self._outside, vote):
            self.round = vote.round
            return self._decide(vote, supporters)
        refused = isinstance(self._verifier, OracleMajority) and self._verifier.refuses
        if refused and vote.state is ServerState.LEADING:
            return self._decide(vote, Tracker(self._verifiers))
        return []

    def _leads(self, votes: Mapping[int, Vote], vote: Vote) -> bool:
        """Does the leader itself say so? For this server: do they mean this very round?"""
        if vote.leader == self.sid:
            return vote.round == self.round
        leaders = votes.get(vote.leader)
        return leaders is not None and leaders.state is ServerState.LEADING

    def _wins(self, theirs: Notification, over: Vote) -> bool:
        return is_better(theirs, over, self._verifier)

    def _propose(self, vote: Vote | Notification) -> None:
        self._proposal = Vote(vote.leader, vote.zxid, self.round, vote.peer_epoch)

    def _supporters(self, votes: Mapping[int, Vote], vote: Vote) -> Tracker:
        return tally(votes, vote, self._verifiers)

    def _look_for_quorum(self, now_ms: int) -> None:
        """Begin to wait for silence if a quorum of this round votes as this server proposes."""
        if not self._finalizing and self._agreed():
            self._finalizing = True
            self.deadline_ms = now_ms + self.settings.finalize_ms

    def _decide(self, vote: Vote, supporters: Tracker) -> list[Output]:
        if vote.leader == self.sid:
            state = ServerState.LEADING
        else:
            state = ServerState.OBSERVING if self.observer else ServerState.FOLLOWING
        result = Vote(vote.leader, vote.zxid, vote.round, vote.peer_epoch)
        self.not_looking(result, state)
        self._check()
        return [Decided(result, state, supporters.acked)]

    def _stop(self) -> None:
        self.searching = self._finalizing = False
        self.deadline_ms = None
        self._of_round.clear()
        self._outside.clear()

    # ---- what others hear

    def _notify_all(self) -> list[Output]:
        """Tell every voter the proposal, oneself too."""
        counts = self._proposal.leader in self.voters and self._initial.zxid != MUST_NOT_VOTE
        if self.sid in self.voters and counts:
            self._of_round[self.sid] = self._proposal
        notification = self._notification(self._proposal)
        others = sorted(self.voters - {self.sid})
        return [SendNotification(sid, notification) for sid in others]

    def _notification(self, vote: Vote) -> Notification:
        return Notification(
            self.state, vote.leader, vote.zxid, self.round, vote.peer_epoch, self._text
        )

    def _answer(self, to_sid: int, round_: int) -> list[Output]:
        if self.current_vote is None:
            return []
        answer = dataclasses.replace(self._notification(self.current_vote), round=round_)
        return [SendNotification(to_sid, answer)]

    def _configuration_in(
        self, from_sid: int, theirs: Notification
    ) -> NewerConfiguration | UnusableConfiguration | None:
        """Look at the sender's configuration; take it over if it is newer."""
        if not theirs.config or theirs.config == self._text or not self.settings.reconfig_enabled:
            return None
        try:
            newer = parse_membership(theirs.config)
            if newer.version <= self.committed.version:
                return None
            if not newer.voters():
                raise ValueError("a configuration without a participant")
            verifier_of(newer)
        except ValueError as fault:
            return UnusableConfiguration(from_sid, str(fault))
        restart = self.configured(newer, self.last_seen)
        return NewerConfiguration(theirs.config, newer, restart)

    def _check(self) -> None:
        """The invariants of the module, after each step."""
        assert self.searching == (self.deadline_ms is not None)
        assert not self.searching or self.state is ServerState.LOOKING
        assert not self.searching or self._proposal.round == self.round
        assert all(vote.round == self.round for vote in self._of_round.values())
        assert not self._finalizing or self._agreed()

    def _agreed(self) -> bool:
        if self._proposal.zxid == MUST_NOT_VOTE:
            return False
        return self._supporters(self._of_round, self._proposal).has_all_quorums()
