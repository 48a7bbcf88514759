"""Both generators find every kind of wrong answer, and none in right ones."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from click.testing import CliRunner

from tests.bench import generator
from tests.bench.fake import fake_server
from tests.bench.generator import BenchError, Case, Result, Timing
from zkd.cli import bench, benchload
from zkd.errors import OperatorError

SHORT = Timing(seconds=0.2, warmup=0.0)
WORKLOADS = (
    "get", "exists", "children", "set", "create", "create-delete", "mixed", "ephemeral", "multi",
    "watch", "connect", "populate", "cleanup",
)  # fmt: skip
needs_compiler = pytest.mark.skipif(
    shutil.which("make") is None or shutil.which(os.environ.get("CC", "cc")) is None,
    reason="no make or C compiler",
)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if shutil.which("make") and shutil.which(os.environ.get("CC", "cc")):
        generator.build()


def zkbench(port: int, workload: str, **more: int) -> Result:
    case = Case(workload, conns=2, depth=4, keys=more.get("keys", 100), size=more.get("size", 100))
    return generator.run(f"127.0.0.1:{port}", case, SHORT, pids=str(os.getpid()))


@needs_compiler
@pytest.mark.parametrize("workload", WORKLOADS)
def test_zkbench_counts_right_answers(workload: str) -> None:
    with fake_server() as server:
        if workload == "cleanup":
            zkbench(server.port, "populate")
        result = zkbench(server.port, workload)
        left = [path for path in server.nodes if path.startswith("/zkbench/new/0000")]
    assert (result.bad, result.complaints) == (0, "")
    assert result.ops > 50
    assert 0 < result.p50_us <= result.p90_us <= result.p99_us <= result.max_us
    assert result.server_rss_kb > 0
    if workload == "create":
        assert left == []


@needs_compiler
@pytest.mark.parametrize("size", [0, 7, 8, 15, 16, 17, 5000])
def test_zkbench_checks_data_of_any_size(size: int) -> None:
    with fake_server() as server:
        assert zkbench(server.port, "mixed", size=size).bad == 0


@needs_compiler
@pytest.mark.parametrize(
    ("fault", "workload"),
    [
        ("order", "get"), ("error", "get"), ("zxid", "get"), ("data", "get"), ("stat", "exists"),
        ("path", "create"), ("stale", "mixed"), ("conflict", "get"), ("event", "watch"),
        ("closed", "get"),
    ],
)  # fmt: skip
def test_zkbench_finds_a_wrong_answer(fault: str, workload: str) -> None:
    with fake_server(fault) as server:
        result = zkbench(server.port, workload)
    assert result.bad_kinds.get(fault, 0) >= 1, result.bad_kinds


@needs_compiler
def test_zkbench_without_a_server_is_no_result() -> None:
    with fake_server() as server:
        port = server.port
    with pytest.raises(BenchError, match="refused"):
        zkbench(port, "get")


def plan(port: int, workload: str, **more: int) -> benchload.Plan:
    return benchload.Plan(
        "127.0.0.1", port, workload, conns=2, depth=4, keys=more.get("keys", 50), seconds=0.2,
        warmup=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("workload", benchload.WORKLOADS)
def test_zkd_bench_counts_right_answers_and_leaves_nothing(workload: str) -> None:
    with fake_server() as server:
        result = benchload.run(plan(server.port, workload))
        assert list(server.nodes) == ["/"]
    assert result.bad.total() == 0, result.complaints
    assert result.ops_per_s > 0
    assert result.generator_share > 0


@pytest.mark.parametrize(
    ("fault", "workload"),
    [
        ("order", "get"), ("error", "get"), ("zxid", "get"), ("data", "get"), ("stat", "exists"),
        ("path", "create"), ("closed", "get"),
    ],
)  # fmt: skip
def test_zkd_bench_finds_a_wrong_answer(fault: str, workload: str) -> None:
    with fake_server(fault, "/") as server:
        result = benchload.run(plan(server.port, workload))
    assert result.bad[fault] >= 1, result.bad


def test_zkd_bench_without_a_server_says_where() -> None:
    with fake_server() as server:
        port = server.port
    with pytest.raises(OperatorError, match=str(port)):
        benchload.run(plan(port, "get"))


def test_zkd_bench_prints_json_and_fails_on_wrong_answers() -> None:
    options = ["--seconds", "0.2", "--warmup", "0", "--keys", "50", "--depth", "4", "--json"]
    for fault, status in (("", 0), ("data", 1)):
        with fake_server(fault, "/") as server:
            done = CliRunner().invoke(bench.bench, [f"127.0.0.1:{server.port}", *options])
        assert done.exit_code == status, done.output
        found = json.loads(done.stdout)
        assert (found["bad"] > 0) == bool(fault)
        assert found["ops"] > 0
