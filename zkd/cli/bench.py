"""`zkd bench`: measure a server that speaks the ZooKeeper protocol, and judge its answers.

Exit status 0 only if there was a result and every answer was right.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from zkd.cli.benchload import WORKLOADS, Plan, Result, run
from zkd.cli.status import address_of

LIMITED_FROM = 0.85
"""Share of a core from which the generator counts as the limit."""


def summary(plan: Plan, result: Result) -> dict[str, Any]:
    """The result as a JSON object; times in microseconds."""
    p50, p90, p99, p999, top = result.quantiles_us(0.5, 0.9, 0.99, 0.999, 1.0)
    return {
        "server": f"{plan.host}:{plan.port}",
        "workload": plan.workload,
        "conns": plan.conns,
        "depth": plan.depth,
        "size": plan.size,
        "keys": plan.keys,
        "seconds": round(result.seconds, 3),
        "ops": len(result.latencies),
        "ops_per_s": round(result.ops_per_s, 1),
        "p50_us": p50,
        "p90_us": p90,
        "p99_us": p99,
        "p999_us": p999,
        "max_us": top,
        "generator_share": round(result.generator_share, 3),
        "generator_limited": result.generator_share >= LIMITED_FROM,
        "bad": result.bad.total(),
        "bad_kinds": dict(result.bad),
    }


def _table(found: dict[str, Any]) -> Table:
    title = "{workload}, {conns} connections x {depth}, {size} bytes, {keys} keys".format(**found)
    table = Table(title=title, show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("operations per second", f"{found['ops_per_s']:,.0f}")
    for name, key in (("p50", "p50_us"), ("p90", "p90_us"), ("p99", "p99_us"), ("max", "max_us")):
        table.add_row(f"latency {name}", f"{found[key]:,.0f} us")
    table.add_row("the generator's use of a core", f"{found['generator_share']:.0%}")
    table.add_row("wrong answers", str(found["bad"]))
    return table


@click.command()
@click.argument("server", default="127.0.0.1:2181", metavar="[HOST:PORT]")
@click.option("--workload", type=click.Choice(WORKLOADS), default="get", show_default=True)
@click.option("--conns", default=8, show_default=True, help="Sessions.", type=click.IntRange(1))
@click.option(
    "--depth", default=1, show_default=True, help="Requests each keeps outstanding.",
    type=click.IntRange(1),
)  # fmt: skip
@click.option(
    "--size", default=100, show_default=True, help="Bytes of a node.",
    type=click.IntRange(0, 1_000_000),
)  # fmt: skip
@click.option(
    "--keys", default=1000, show_default=True, help="Nodes read and written.",
    type=click.IntRange(1),
)  # fmt: skip
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--warmup", default=1.0, show_default=True, type=click.FloatRange(0))
@click.option("--reads", default=0.9, show_default=True, help="mixed: share of reads.")
@click.option("--root", default="/zkd-bench", show_default=True, help="Where its nodes live.")
@click.option("--keep", is_flag=True, help="Leave the nodes where they are.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def bench(server: str, as_json: bool, **options: Any) -> None:
    """Measure a server: rate, latency, and whether every answer was right.

    The load is made in Python, on this machine: it takes CPU from a server beside it, and often it
    is slower than the server. Then the result says so. The checkout's `make bench` has a generator
    in C, and compares with Apache ZooKeeper.
    """
    host, port = address_of(server)
    plan = Plan(host, port, **options)
    console = Console(stderr=True, highlight=False)
    with console.status("connecting", spinner="line") as status:
        result = run(plan, status.update)
    found = summary(plan, result)
    if as_json:
        click.echo(json.dumps(found))
    else:
        Console(highlight=False).print(_table(found))
    for line in result.complaints:
        click.echo(line, err=True)
    if found["generator_limited"]:
        click.echo(
            "The generator was the limit, not the server: the server can do more than this.",
            err=True,
        )
    sys.exit(1 if found["bad"] or not found["ops"] else 0)
