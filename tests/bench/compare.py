"""Compare servers that speak the ZooKeeper protocol, run by run in turn.

    python -m tests.bench.compare apache=127.0.0.1:21100 zkd=127.0.0.1:21200 \\
        --pids apache=4711 --pids zkd=4712 --case get@64x1 --case set@8x100

Every case is run A, B, A, B, ... so that a slow minute of the machine meets both. A ratio is the
median of the ratios of neighbouring runs, B to A; the least and the greatest follow in brackets.
If 1 lies between these two, nothing was shown. With more than two servers each is compared with
the first. Standard output is markdown; exit status 1 if any answer was wrong.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tests.bench.generator import Case, Result, Timing, build, parse_case, run

QUICK = ("get@64x1", "get@8x100", "set@64x1", "set@8x100", "create@8x100", "mixed@64x1")


@dataclass(frozen=True, slots=True)
class Contender:
    """A server under comparison: name, HOST:PORT,..., its processes for CPU and memory."""

    name: str
    servers: str
    pids: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median, least and greatest of the ratios of neighbouring runs."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.greatest:.2f})"


@dataclass(frozen=True, slots=True)
class Row:
    """One case: all runs of every contender, by its name, in the order they were made."""

    case: Case
    runs: dict[str, list[Result]]

    def median(self, name: str, value: Callable[[Result], float]) -> float:
        return statistics.median(map(value, self.runs[name]))

    def ratio(self, base: str, other: str, value: Callable[[Result], float]) -> Ratio | None:
        """`other` to `base`; None where the base has nothing but zeros."""
        pairs = zip(self.runs[base], self.runs[other], strict=True)
        ratios = [value(b) / value(a) for a, b in pairs if value(a) > 0]
        if not ratios:
            return None
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    @property
    def bad(self) -> int:
        return sum(r.bad for results in self.runs.values() for r in results)


def rate(result: Result) -> float:
    return result.ops_per_s


def p99(result: Result) -> float:
    return result.p99_us


def cpu(result: Result) -> float:
    return result.server_cpu_s_per_100k


def compare(
    contenders: Sequence[Contender],
    cases: Iterable[Case],
    timing: Timing,
    rounds: int,
    *,
    settle_s: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Run every case `rounds` times on every contender, in turn.

    Before a case is measured each contender runs it for `settle_s` unmeasured seconds: a server
    with a compiler of its own is slow for a while.
    """
    rows = []
    for case in cases:
        if settle_s > 0:
            for c in contenders:
                run(c.servers, case, Timing(seconds=0.2, warmup=settle_s))
        row = Row(case, {c.name: [] for c in contenders})
        for _ in range(rounds):
            for c in contenders:
                result = run(c.servers, case, timing, pids=c.pids)
                row.runs[c.name].append(result)
                text = f"{case!s:26} {c.name:14} {result.ops_per_s:10.0f} ops/s"
                say(text + (f"  {result.bad} BAD {result.bad_kinds}" if result.bad else ""))
                if result.complaints:
                    say(result.complaints)
        rows.append(row)
    return rows


def _cells(row: Row, base: str, other: str) -> list[str]:
    def both(value: Callable[[Result], float], form: str) -> list[str]:
        return [format(row.median(name, value), form) for name in (base, other)]

    def latency(name: str) -> str:
        return f"{row.median(name, lambda r: r.p50_us):.0f} / {row.median(name, p99):.0f}"

    share = max(r.generator_share for name in (base, other) for r in row.runs[name])
    return [
        str(row.case),
        *both(rate, ".0f"),
        str(row.ratio(base, other, rate) or "-"),
        latency(base),
        latency(other),
        str(row.ratio(base, other, p99) or "-"),
        *both(cpu, ".2f"),
        str(row.ratio(base, other, cpu) or "-"),
        f"{share:.0%}",
        "/".join(str(sum(r.bad for r in row.runs[name])) for name in (base, other)),
    ]


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A markdown table, all columns but the first to the right."""
    rows = [list(head), ["---"] + ["---:"] * (len(head) - 1), *map(list, lines)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def head(base: str, other: str) -> list[str]:
    return [
        "workload, connections x depth", f"{base} ops/s", f"{other} ops/s", "ratio (min-max)",
        f"{base} p50 / p99 us", f"{other} p50 / p99 us", "p99 ratio", f"{base} CPU-s/100k",
        f"{other} CPU-s/100k", "CPU ratio", "generator", "bad",
    ]  # fmt: skip


def table(rows: Sequence[Row], base: str, other: str) -> str:
    """The comparison of two contenders as a markdown table."""
    return markdown(head(base, other), [_cells(row, base, other) for row in rows])


def as_json(rows: Sequence[Row], contenders: Sequence[Contender]) -> str:
    """Every run, for those who want to count otherwise."""
    return json.dumps(
        {
            "contenders": [asdict(c) for c in contenders],
            "cpus": os.cpu_count(),
            "rows": [
                {
                    "case": asdict(row.case),
                    "runs": {name: [asdict(r) for r in runs] for name, runs in row.runs.items()},
                }
                for row in rows
            ],
        },
        indent=1,
    )


def footer(timing: Timing, rounds: int, began: float) -> str:
    return (
        f"{rounds} rounds of {timing.seconds:g} s after {timing.warmup:g} s of warm-up, in turn; "
        f"{os.cpu_count()} CPUs; load {os.getloadavg()[0]:.1f}; took {time.time() - began:.0f} s"
    )


def _named(pairs: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@click.command(help=__doc__.split("\n\n", 1)[0])
@click.argument("servers", nargs=-1, required=True, metavar="NAME=HOST:PORT[,...]...")
@click.option("--pids", multiple=True, metavar="NAME=PID[,...]", help="For CPU and memory.")
@click.option("--case", "cases", multiple=True, metavar="WORKLOAD@CONNSxDEPTH[:SIZE]")
@click.option("--keys", default=10_000, show_default=True)
@click.option("--seconds", default=2.0, show_default=True)
@click.option("--warmup", default=0.5, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--settle", default=2.0, show_default=True, help="Unmeasured, before each case.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Every run, as JSON.")
def main(
    servers: tuple[str, ...],
    pids: tuple[str, ...],
    cases: tuple[str, ...],
    keys: int,
    seconds: float,
    warmup: float,
    rounds: int,
    settle: float,
    json_file: Path | None,
) -> None:
    build()
    processes = _named(pids)
    contenders = [Contender(n, s, processes.get(n, "")) for n, s in _named(servers).items()]
    if len(contenders) < 2:
        raise click.UsageError("a comparison needs two servers with different names")
    began, timing = time.time(), Timing(seconds, warmup)
    wanted = [parse_case(text, keys=keys) for text in cases or QUICK]
    rows = compare(
        contenders, wanted, timing, rounds, settle_s=settle, say=lambda s: click.echo(s, err=True)
    )
    for other in contenders[1:]:
        click.echo(table(rows, contenders[0].name, other.name) + "\n")
    click.echo(footer(timing, rounds, began))
    if json_file:
        json_file.write_text(as_json(rows, contenders))
    sys.exit(1 if any(row.bad for row in rows) else 0)


if __name__ == "__main__":
    main()
