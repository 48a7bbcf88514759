"""`make bench`: zkd beside Apache ZooKeeper on this machine, both durable, alone or as ensembles.

Writes a markdown report and every run as JSON. Standard error shows the progress. The targets are
zkd's own; a missed one is written so in the report and does not change the exit status, which is 1
only for wrong answers and 2 if no comparison could be made.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tests.bench import compare as comparing
from tests.bench import servers
from tests.bench.compare import Contender, Ratio, Row, cpu, markdown, p99, rate
from tests.bench.generator import BenchError, Case, Result, Timing, build, parse_case, run

BASE = "Apache"
SHAPES = ("64x1", "8x1", "8x100")
TARGETS = {
    ("read", "64x1"): 1.5, ("read", "8x1"): 1.7, ("read", "8x100"): 3.0,
    ("write", "64x1"): 0.9, ("write", "8x1"): 0.7, ("write", "8x100"): 0.9,
}  # fmt: skip
"""Least ratio of rates, zkd to Apache ZooKeeper."""
P99_TARGET = 1.2
READ_CPU_TARGET = 0.7
MEMORY_TARGET = 1.0
MEMORY_KEYS = 200_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target: what was asked, what was measured, whether that is enough."""

    what: str
    target: str
    measured: str
    met: bool

    def cells(self) -> list[str]:
        return [self.what, self.target, self.measured, "yes" if self.met else "NO"]


def _judge(what: str, ratio: Ratio | None, limit: float, *, least: bool) -> Verdict:
    sign = "at least" if least else "at most"
    met = ratio is not None and (ratio.median >= limit if least else ratio.median <= limit)
    return Verdict(what, f"{sign} {limit:g}", str(ratio or "-"), met)


def verdicts(rows: Sequence[Row], other: str) -> list[Verdict]:
    """The targets of every case that has some, against the measured ratios."""
    out = []
    for row in rows:
        case, kind = row.case, "read" if row.case.reads else "write"
        target = TARGETS.get((kind, f"{case.conns}x{case.depth}"))
        if target is not None:
            out.append(_judge(f"{case}: rate", row.ratio(BASE, other, rate), target, least=True))
        out.append(_judge(f"{case}: p99", row.ratio(BASE, other, p99), P99_TARGET, least=False))
        if case.reads:
            ratio = row.ratio(BASE, other, cpu)
            out.append(_judge(f"{case}: CPU", ratio, READ_CPU_TARGET, least=False))
    return out


def memory(contenders: Sequence[Contender], keys: int) -> dict[str, Result]:
    """Fill each server with `keys` znodes of 100 bytes, read and write them, weigh it."""
    weights = {}
    for c in contenders:
        shape = Case("populate", 8, 4, keys=keys)
        run(c.servers, shape, Timing(), pids=c.pids)
        run(c.servers, Case("get", 8, 100, keys=keys), Timing(3, 0.5))
        result = run(c.servers, Case("set", 8, 100, keys=keys), Timing(3, 0.5), pids=c.pids)
        weights[c.name] = result
    return weights


def _memory_table(weights: dict[str, Result]) -> str:
    base = weights[BASE]
    lines = [
        [
            name,
            f"{r.server_rss_kb / 1024:.0f}",
            f"{r.server_pss_kb / 1024:.0f}",
            f"{r.server_rss_kb / base.server_rss_kb:.2f}",
            f"{r.server_pss_kb / base.server_pss_kb:.2f}",
        ]
        for name, r in weights.items()
    ]
    head = ["server", "RSS, sum of its processes, MB", "PSS MB", "RSS ratio", "PSS ratio"]
    return markdown(head, lines)


def _memory_verdict(weights: dict[str, Result], other: str) -> Verdict:
    ratio = weights[other].server_rss_kb / weights[BASE].server_rss_kb
    return _judge("RSS of all processes", Ratio(ratio, ratio, ratio), MEMORY_TARGET, least=False)


@contextlib.contextmanager
def _all_servers(frontends: Sequence[int], members: int) -> Iterator[list[Contender]]:
    with contextlib.ExitStack() as stack:
        base = servers.ensemble(BASE, [servers.apache_command()] * members)
        started = [stack.enter_context(base)]
        for n in frontends:
            command, settings = servers.zkd_command(), {"frontends": str(n)}
            other = servers.ensemble(f"zkd F={n}", [command] * members, settings)
            started.append(stack.enter_context(other))
        yield started


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{model}, Linux {platform.release()}, Python {platform.python_version()}"


def report(
    rows: Sequence[Row],
    names: Sequence[str],
    weights: dict[str, Result],
    last_line: str,
    *,
    judged: bool = True,
) -> str:
    """The whole report in markdown, with the targets (which are for servers alone) if `judged`."""
    parts = [f"{_machine()}. {last_line}"]
    for name in names:
        parts.append(f"### {name} beside {BASE}\n\n{comparing.table(rows, BASE, name)}")
    if weights:
        parts.append(f"### Memory\n\n{_memory_table(weights)}")
    for name in names if judged else ():
        found = verdicts(rows, name)
        if weights:
            found.append(_memory_verdict(weights, name))
        text = markdown(["what", "target", "measured", "met"], [v.cells() for v in found])
        parts.append(f"### Targets, {name}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def _disturbance(frontends: Sequence[int], out: Path) -> None:
    """The other table: what a flush, a snapshot, a listing, a stopped front-end do to sets."""
    from tests.bench import disturbance  # it needs zkd's own modules, the comparison does not

    try:
        table = disturbance.report(frontends)
    except BenchError as e:
        click.echo(f"bench: {e}", err=True)
        sys.exit(2)
    text = f"{_machine()}. {time.strftime('%Y-%m-%d')}.\n\n{table}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "disturbance.md").write_text(text)
    click.echo(text)


@click.command(help=__doc__.split("\n\n", 1)[0])
@click.option("--case", "cases", multiple=True, metavar="WORKLOAD@CONNSxDEPTH[:SIZE]")
@click.option(
    "--members", default=1, show_default=True, help="Servers of each kind; 3: two ensembles."
)
@click.option("--frontends", default="1,2", show_default=True, help="zkd's, by comma.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--warmup", default=1.0, show_default=True)
@click.option("--settle", default=6.0, show_default=True, help="Unmeasured, before each case.")
@click.option("--memory-keys", default=MEMORY_KEYS, show_default=True, help="0: no memory part.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(__file__).parent / "results",
    help="Folder for report.md and runs.json.",
)
@click.option(
    "--disturbance", is_flag=True, help="Instead: sets beside flush, snapshot, listing (zkd alone)."
)
def main(
    cases: tuple[str, ...],
    members: int,
    frontends: str,
    rounds: int,
    seconds: float,
    warmup: float,
    settle: float,
    memory_keys: int,
    out: Path,
    disturbance: bool,
) -> None:
    def say(line: str) -> None:
        click.echo(line, err=True)

    if disturbance:
        _disturbance([int(n) for n in frontends.split(",")], out)
        return
    every = [f"{w}@{s}" for w in ("get", "exists", "set", "create") for s in SHAPES]
    wanted = [parse_case(text) for text in cases or every]
    counts = [int(n) for n in frontends.split(",")]
    began, timing = time.time(), Timing(seconds, warmup)
    try:
        build()
        with _all_servers(counts, members) as started:
            rows = comparing.compare(started, wanted, timing, rounds, settle_s=settle, say=say)
        names = [c.name for c in started[1:]]
        weights: dict[str, Result] = {}
        if memory_keys:
            with _all_servers(counts, members) as fresh:
                weights = memory(fresh, memory_keys)
    except BenchError as e:
        say(f"bench: {e}")
        sys.exit(2)
    last_line = comparing.footer(timing, rounds, began)
    text = report(rows, names, weights, last_line, judged=members == 1)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(text)
    (out / "runs.json").write_text(comparing.as_json(rows, started))
    click.echo(text)
    say(f"written to {out}")
    bad = sum(row.bad for row in rows) + sum(r.bad for r in weights.values())
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
