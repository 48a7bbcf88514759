"""What the simulation is worth: the protocol is broken in one way at a time, and it finds out.

`seeds` are fixed, and start shortly before the one that finds it where that is not among the first.
`blind` leaves out the rules that would see the fault itself: then its result must show.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.simulation.mutations import MUTATIONS, mutated
from tests.simulation.run import Result, run

TELLING = frozenset({"durable", "promises"})
"""The rules on what a server says, whatever comes of it."""


@dataclass(frozen=True)
class Case:
    name: str
    rules: frozenset[str]
    seeds: range = range(10)
    blind: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name.replace(" ", "-") + ("-blind" if self.blind else "")


def case(
    name: str, *rules: str, seeds: range = range(10), blind: frozenset[str] = frozenset()
) -> Case:
    return Case(name, frozenset(rules), seeds, blind)


CASES = [
    case("acknowledge before sync", "durable"),
    case("acknowledge before sync", "future", blind=TELLING),
    case("leader acknowledges before sync", "future"),
    case("promise before sync", "durable"),
    case("forget the promised epoch", "promises"),
    case("promise twice", "promises"),
    case("count an observer in a quorum", "leaders", "future"),
    case("skip trunc", "history", "future"),
    case("commit out of order", "history", "future", "sessions"),
    case("commit without a quorum", "future"),
    case("count stale acks", "future", seeds=range(60, 80)),
    case("commit before uptodate", "future", "history", "leaders"),
    case("follow a leader that is behind", "history", "leaders", blind=TELLING),
    case("vote for what is not durable", "durable"),
    case("serve before the quorum", "leaders"),
    case("answer a sync at once", "syncs", seeds=range(30, 40)),
    case("forward out of order", "sessions"),
    case("install without the rows above", "durable"),
    case("install without the rows above", "future", "history", blind=TELLING),
]


def first_found(which: Case) -> Result | None:
    with mutated(which.name):
        for seed in which.seeds:
            result = run(seed, without=which.blind)
            if result.failure:
                return result
    return None


@pytest.mark.parametrize("which", CASES, ids=str)
def test_a_broken_protocol_is_found_out(which: Case) -> None:
    result = first_found(which)
    assert result is not None, f"not within {which.seeds}"
    assert result.rule in which.rules, result.failure


@pytest.mark.parametrize("which", CASES, ids=str)
def test_the_seed_that_finds_it_holds_without_the_fault(which: Case) -> None:
    result = first_found(which)
    assert result is not None
    assert run(result.plan.seed).failure is None


def test_every_mutation_has_a_case() -> None:
    assert {which.name for which in CASES} == set(MUTATIONS)
