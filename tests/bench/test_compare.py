"""The arithmetic of the comparison: neighbouring runs, verdicts, what zkbench's line means."""

from __future__ import annotations

import pytest

from tests.bench.compare import Ratio, Row, rate, table
from tests.bench.generator import BenchError, Case, Result, parse_case
from tests.bench.run import BASE, verdicts


def result(ops_per_s: float, *, p99_us: float = 100.0, cpu: float = 1.0, bad: int = 0) -> Result:
    return Result(
        ops=int(ops_per_s), ops_per_s=ops_per_s, p50_us=50.0, p90_us=80.0, p99_us=p99_us,
        p999_us=200.0, max_us=300.0, generator_share=0.25, bad=bad, server_cpu_s_per_100k=cpu,
    )  # fmt: skip


def test_ratio_is_that_of_neighbouring_runs_not_of_medians() -> None:
    row = Row(Case("get"), {"a": [result(10), result(100)], "b": [result(20), result(100)]})
    assert row.ratio("a", "b", rate) == Ratio(1.5, 1.0, 2.0)


def test_ratio_of_nothing_is_none() -> None:
    row = Row(Case("get"), {"a": [result(0)], "b": [result(5)]})
    assert row.ratio("a", "b", rate) is None


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("get", Case("get", 8, 1)),
        ("set@64", Case("set", 64, 1)),
        ("create-delete@8x100:1024", Case("create-delete", 8, 100, 1024)),
    ],
)
def test_case_in_its_text_form(text: str, case: Case) -> None:
    assert parse_case(text) == case


@pytest.mark.parametrize("text", ["", "get@", "get@x5", "get@8x", "get 8x1"])
def test_case_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="WORKLOAD"):
        parse_case(text)


def test_line_that_is_no_result_is_refused() -> None:
    with pytest.raises(BenchError, match="not an answer"):
        Result.parse("{}")


def test_verdicts_judge_rate_p99_and_read_cpu() -> None:
    get = Row(Case("get", 64, 1), {BASE: [result(100)], "zkd": [result(160, p99_us=130, cpu=0.6)]})
    put = Row(Case("set", 8, 1), {BASE: [result(100)], "zkd": [result(69)]})
    found = {v.what: v.met for v in verdicts([get, put], "zkd")}
    assert found == {
        "get 64x1, 100 B: rate": True,
        "get 64x1, 100 B: p99": False,
        "get 64x1, 100 B: CPU": True,
        "set 8x1, 100 B: rate": False,
        "set 8x1, 100 B: p99": True,
    }


def test_table_shows_wrong_answers_per_server() -> None:
    row = Row(Case("get"), {"a": [result(1, bad=2)], "b": [result(1)]})
    assert table([row], "a", "b").splitlines()[-1].endswith("| 2/0 |")
    assert row.bad == 2
