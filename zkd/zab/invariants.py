"""What is true of one server after every step, in production too.

    committed, logged <= received; delivered <= min(committed, logged)
    current <= accepted; neither goes back
    a learner acknowledges nothing that is not durable, and not before NEWLEADER's own ack
    a leader's committed point is covered by a quorum of what it was told, and by what it proposed

Cheap: comparisons of numbers alone. What a group must keep (one history, one leader an epoch) the
simulator checks from outside.
"""

from __future__ import annotations

from zkd.zab import catch_up as learning
from zkd.zab import establish as leading
from zkd.zab.leader import Leader
from zkd.zab.learner import Learner
from zkd.zab.state import State

Seen = tuple[int, int]
"""accepted epoch, current epoch: what may not go back."""


def seen(state: State) -> Seen:
    return state.accepted, state.current


def check(state: State, role: Leader | Learner | None, before: Seen) -> None:
    """AssertionError if the core has gone wrong: the process must not go on with it."""
    positions = state.positions
    assert positions.logged <= positions.received, "logged <= received"
    assert positions.committed <= positions.received, "committed <= received"
    assert positions.delivered <= min(positions.committed, positions.logged), "delivered too far"
    assert state.current <= state.accepted, "current epoch <= accepted epoch"
    assert state.accepted >= before[0], "the accepted epoch never goes back"
    assert state.current >= before[1], "the current epoch never goes back"
    if isinstance(role, Learner):
        _check_learner(state, role)
    elif isinstance(role, Leader):
        _check_leader(state, role)


def _check_learner(state: State, learner: Learner) -> None:
    phase = learner.phase
    if phase in (learning.Phase.WAITING, learning.Phase.BROADCAST):
        assert state.current == learner.epoch, "NEWLEADER is acknowledged in an epoch kept"
    if phase is learning.Phase.BROADCAST:
        assert learner.told <= state.positions.received, "told <= received"
        floor = max(state.positions.logged, learner.epoch << 32, learner.told)
        assert learner.acked <= floor, "acked <= logged"


def _check_leader(state: State, leader: Leader) -> None:
    if leader.phase is leading.Phase.BROADCAST:
        assert state.current == state.accepted == leader.epoch, "a leader serves its own epoch"
        assert leader.committed <= leader.proposed, "committed <= proposed"
        assert state.positions.committed <= leader.committed, "committed as leader"
    elif leader.phase is not leading.Phase.OVER:
        assert state.positions.committed <= leader.history_end, "nothing commits before serving"
