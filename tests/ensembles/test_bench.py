"""The benchmark's ensembles: the load generator gets right answers from all members at once."""

from __future__ import annotations

import pytest

from tests.bench import servers
from tests.bench.generator import Timing, build, parse_case, run
from tests.ensembles.manager import APACHE
from tests.ensembles.scenes import cases, need


@cases("AAA", "ZZZ")
@pytest.mark.parametrize("case", ["get@6x4", "set@6x4", "create@6x4"])
def test_zkbench_counts_right_answers_of_an_ensemble(kinds: str, case: str) -> None:
    need(kinds)
    build()
    apache = kinds[0] == APACHE
    command = servers.apache_command() if apache else servers.zkd_command()
    with servers.ensemble("bench", [command] * len(kinds)) as contender:
        assert len(contender.servers.split(",")) == len(contender.pids.split(",")) == 3
        result = run(contender.servers, parse_case(case, keys=200), Timing(0.5, 0.2))
    assert result.bad == 0, result.bad_kinds
    assert result.ops > 0
