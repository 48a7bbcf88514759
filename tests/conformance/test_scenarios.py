"""The conversations of scenarios.py, zkd beside Apache ZooKeeper 3.8.0 from Debian's package."""

from __future__ import annotations

import pytest

from tests.conformance import differential, servers
from tests.conformance.lockstep import report
from tests.conformance.scenarios import OLDER_DIFFERS, SCENARIOS


@pytest.mark.apache
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in OLDER_DIFFERS])
def test_zkd_answers_as_apache_zookeeper(name: str) -> None:
    for kind in ("apache", "zkd"):
        if reason := servers.missing(kind):
            pytest.skip(reason)
    outcome = differential.run_script("apache", "zkd", SCENARIOS[name](), timeout_s=10)
    assert not outcome.found, report(outcome)
