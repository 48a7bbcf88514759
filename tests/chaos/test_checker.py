"""The checker finds every planted fault, and nothing in a history without one."""

from __future__ import annotations

import pytest

from tests.chaos.checker import Floors, check, unhealed
from tests.chaos.history import History, Kind, Mark, Note, Op, State
from tests.chaos.model import FAULTS, Model


@pytest.mark.parametrize("seed", range(25))
def test_nothing_is_found_in_a_correct_history(seed: int) -> None:
    history = Model(seed).run()
    assert len(history.ops) > 50
    assert check(history) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str) -> None:
    """Every seed in which the fault came about: it may need the right moment."""
    planted = 0
    for seed in range(30):
        model = Model(seed, fault)
        history = model.run()
        if model.planted:
            planted += 1
            found = {violation.check for violation in check(history)}
            assert FAULTS[fault] in found, f"seed {seed}: only {found}"
    assert planted >= 5


def test_same_seed_gives_the_same_history() -> None:
    assert Model(7).run().ops == Model(7).run().ops


def test_floor_is_what_was_told_before_and_not_at_a_moment() -> None:
    floors = Floors([(5, 10), (3, 20), (9, 15)])
    assert [floors.before(t) for t in (3, 4, 5, 6, 10)] == [0, 20, 20, 20, 20]


def _get(client: int, called: int, returned: int, mzxid: int) -> Op:
    state = State("/r", f"v{mzxid}", mzxid, mzxid)
    return Op(client, client, Kind.GET, "/r", called, returned, zxid=mzxid, states=(state,))


def test_stale_read_on_another_front_end_is_named() -> None:
    """A write told to one client at tick 2 is not seen by another's read called at tick 3."""
    write = Op(
        0, 0, Kind.SET, "/r", 1, 2, zxid=5, states=(State("/r", "v5", 5, 5),)
    )  # fmt: skip
    history = History(ops=[write, _get(1, 3, 4, 4)])
    assert [v.text for v in check(history) if "stale or lost" in v.text]


def test_read_that_overlaps_a_write_may_show_either() -> None:
    write = Op(0, 0, Kind.SET, "/r", 1, 9, zxid=5, states=(State("/r", "v5", 5, 5),))
    for mzxid in (4, 5):
        reads = [_get(1, 3, 4, mzxid)]
        found = [v for v in check(History(ops=[*reads, write])) if "stale" in v.text]
        assert found == []


def test_uncertain_write_may_happen_or_not_but_not_be_undone() -> None:
    write = Op(0, 0, Kind.SET, "/r", 1, None, states=(State("/r", "v5"),))
    seen, gone = _get(1, 3, 4, 5), _get(1, 7, 8, 4)
    old = Op(2, 2, Kind.SET, "/r", 0, 1, zxid=4, states=(State("/r", "v4", 4, 4),))

    def stale(ops: list[Op]) -> bool:
        return any("stale or lost" in v.text for v in check(History(ops=ops)))

    assert not stale([old, write, gone])
    assert not stale([old, write, seen])
    assert stale([old, write, seen, gone])


def test_client_that_stays_away_is_found() -> None:
    marks = [
        Mark(Note.LOST, 1, 1.0, client=3),
        Mark(Note.HEALED, 2, 2.0),
        Mark(Note.ATTACHED, 3, 6.5, client=3),
        Mark(Note.LOST, 4, 9.0, client=4),
    ]
    found = [v.text for v in unhealed(History(marks=marks), 4.0)]
    assert found == ["client 3 was back after 4.50 s", "client 4 never came back (lost at 9.00 s)"]
    assert unhealed(History(marks=marks[:3]), 5.0) == []


def test_client_that_is_back_before_the_server_is_known_to_be_whole_is_in_time() -> None:
    marks = [
        Mark(Note.FAULT, 1, 1.0),
        Mark(Note.LOST, 2, 1.0, client=3),
        Mark(Note.ATTACHED, 3, 9.0, client=3),
        Mark(Note.HEALED, 4, 9.1),
    ]
    assert unhealed(History(marks=marks), 4.0) == []
