"""Random requests to Apache ZooKeeper and zkd, side by side.

15,000 requests here; `make differential` sends 100,000 and holds the table of differences to being
in use. Apache beside Apache must agree without any table, which keeps the comparison itself honest.
"""

from __future__ import annotations

import pytest

from tests.conformance import differential, servers
from tests.conformance.lockstep import Outcome, report
from tests.conformance.steps import dumps

SEEDS = (1, 2, 4)


def _require(*kinds: str) -> None:
    for kind in kinds:
        if reason := servers.missing(kind):
            pytest.skip(reason)


def _run(kind: str, seed: int, requests: int) -> Outcome:
    outcome, script = differential.run_seed("apache", kind, seed, requests)
    if outcome.found:
        small, last = differential.shrunk("apache", kind, outcome, script, seed)
        pytest.fail(f"seed {seed}:\n{report(outcome)}\nshortened:\n{report(last)}\n{dumps(small)}")
    return outcome


@pytest.mark.apache
@pytest.mark.parametrize("seed", SEEDS)
def test_zkd_answers_as_apache_zookeeper(seed: int) -> None:
    """5,000 requests with this seed: no difference that the table does not name."""
    _require("apache", "zkd")
    assert _run("zkd", seed, 5000).requests >= 5000


@pytest.mark.apache
def test_apache_zookeeper_answers_as_itself() -> None:
    """The comparison finds nothing where there is nothing to find."""
    _require("apache")
    outcome = _run("apache", 3, 2000)
    assert not outcome.allowed
