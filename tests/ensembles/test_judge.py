"""The judge finds planted faults, and nothing in a history without one.

The model is one server, which is an ensemble with nothing old in it: all that the judge holds is
held there too. A stale read of what only others know of is allowed in an ensemble; the cases at the
end say where it is not.
"""

from __future__ import annotations

import pytest

from tests.chaos.history import History, Kind, Op, State
from tests.chaos.model import FAULTS, Model
from tests.ensembles.judge import judge


@pytest.mark.parametrize("seed", range(25))
def test_nothing_is_found_in_a_correct_history(seed: int) -> None:
    history = Model(seed).run()
    assert len(history.ops) > 50
    assert judge(history) == []


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"stale read"}))
def test_planted_fault_is_found(fault: str) -> None:
    planted = 0
    for seed in range(30):
        model = Model(seed, fault)
        history = model.run()
        if model.planted:
            planted += 1
            found = {violation.check for violation in judge(history)}
            assert FAULTS[fault] in found, f"seed {seed}: only {found}"
    assert planted >= 5


def _write(client: int, called: int, returned: int, zxid: int) -> Op:
    state = State("/r", f"v{zxid}", zxid, zxid)
    return Op(client, client, Kind.SET, "/r", called, returned, zxid=zxid, states=(state,))


def _get(client: int, called: int, returned: int, mzxid: int) -> Op:
    state = State("/r", f"v{mzxid}", mzxid, mzxid)
    return Op(client, client, Kind.GET, "/r", called, returned, zxid=mzxid, states=(state,))


def _sync(client: int, called: int, returned: int) -> Op:
    return Op(client, client, Kind.SYNC, "/", called, returned, zxid=1)


def _stale(*ops: Op) -> bool:
    return any("stale or lost" in violation.text for violation in judge(History(ops=list(ops))))


OLD, NEW = _write(0, 1, 2, 4), _write(0, 3, 4, 5)


def test_a_read_may_miss_what_only_others_know() -> None:
    assert not _stale(OLD, NEW, _get(1, 5, 6, 4))


def test_a_read_may_not_miss_its_clients_own_write() -> None:
    assert _stale(OLD, NEW, _get(0, 5, 6, 4))


def test_a_read_may_not_go_behind_the_clients_read_before_it() -> None:
    assert _stale(OLD, NEW, _get(1, 5, 6, 5), _get(1, 7, 8, 4))


def test_a_read_after_a_sync_may_not_miss_what_was_told_before_the_sync() -> None:
    assert _stale(OLD, NEW, _sync(1, 5, 6), _get(1, 7, 8, 4))


def test_a_read_after_a_sync_may_miss_what_was_told_after_its_call() -> None:
    assert not _stale(OLD, _sync(1, 3, 5), _write(0, 4, 6, 5), _get(1, 7, 8, 4))


def test_a_read_sent_before_the_syncs_answer_is_not_bound_by_it() -> None:
    assert not _stale(OLD, NEW, _sync(1, 5, 8), _get(1, 6, 7, 4))


def test_a_write_below_what_was_told_to_anybody_is_found() -> None:
    found = judge(History(ops=[NEW, _write(1, 5, 6, 4)]))
    assert {violation.check for violation in found} >= {"zxids", "registers"}
