"""`make chaos`: every fault, many times. Exit status 1 if anything promised was broken.

    tests/chaos/run                       # 50 kills of each process, all fail points, all stalls
    tests/chaos/run --only storage --rounds 5 --seed 7

A run that finds something keeps its history and the server's log below --out and says which seed
it was.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import click

from tests.chaos import points, stalls
from tests.chaos.checker import Violation
from tests.chaos.harness import Bounds, Fault, Freeze, Kill, KillAll, KillSupervisor, Outcome, run
from tests.chaos.load import Shape
from tests.chaos.servers import Apache, Server, Zkd, folder_for

TARGETS = ("frontend 1", "frontend 2", "peer", "storage", "admin", "supervisor", "all", "mixed")
BATCH = 25
"""So many faults in one history; then a new server and the next seed."""
HITS = (1, 2, 7, 40, 200)
STALL_S = 10.0
Scenario = Callable[[Server], Coroutine[None, None, Outcome]]


class Runner:
    """Runs scenarios on fresh servers and keeps what went wrong."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.failed: list[str] = []

    def one(self, title: str, make: Callable[[Path], Server], scenario: Scenario) -> None:
        began = time.monotonic()
        with folder_for("chaos") as folder:
            server = make(folder)
            try:
                outcome = asyncio.run(scenario(server))
            finally:
                server.stop()
            took = time.monotonic() - began
            click.echo(f"{'FAIL' if outcome.violations else 'ok':4} {title}: {outcome.summary()}, "
                       f"{took:.0f} s")  # fmt: skip
            if outcome.violations:
                click.echo(outcome.report())
                self.failed.append(title)
                self._keep(title, server, outcome)

    def _keep(self, title: str, server: Server, outcome: Outcome) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        stem = f"{title.replace(' ', '-')}-seed-{outcome.seed}"
        outcome.save(self.out / f"{stem}.jsonl")
        if server.log.exists():
            shutil.copy(server.log, self.out / f"{stem}.log")


def _fault(target: str, index: int) -> Fault:
    if target == "mixed":
        target = TARGETS[index % (len(TARGETS) - 1)]
    if target == "all":
        return KillAll()
    return KillSupervisor() if target == "supervisor" else Kill(target)


def kills(runner: Runner, target: str, rounds: int, seed: int) -> None:
    """`rounds` kills of a target, in batches."""
    for batch in range(0, rounds, BATCH):
        faults = [_fault(target, i) for i in range(batch, min(batch + BATCH, rounds))]
        own = seed + batch // BATCH

        async def scenario(server: Server, faults: list[Fault] = faults, own: int = own) -> Outcome:
            await server.start()
            return await run(server, faults, seed=own)

        runner.one(f"kill {target}", Zkd, scenario)


def stalled(runner: Runner, seed: int) -> None:
    """The whole server, storage and the peer stopped beyond the session timeout; a front-end
    stopped under load."""
    for name in ("", "storage", "peer"):

        async def scenario(server: Server, name: str = name) -> Outcome:
            await server.start()
            return await run(
                server, [Freeze(name, STALL_S)], seed=seed, shape=Shape(timeout_ms=4000)
            )

        runner.one(f"stop {name or 'everything'}", Zkd, scenario)

    async def front_end(server: Server) -> Outcome:
        await server.start()
        stall = await stalls.front_end_stopped(
            server, seed=seed, seconds=STALL_S, timeout_ms=20_000
        )
        click.echo(
            f"     writes over the other: before {stall.before}, meanwhile {stall.meanwhile}"
        )
        if stall.meanwhile.p99 > max(2 * stall.before.p99, 0.05):
            text = f"before {stall.before}, meanwhile {stall.meanwhile}"
            stall.outcome.violations.append(Violation("harness", text, 0))
        return stall.outcome

    runner.one("stop a front-end", lambda f: Zkd(f, {"maxSessionTimeout": "20000"}), front_end)


def fail_points(runner: Runner, seed: int, only: str) -> None:
    """A death at every fail point, at several of its hits."""
    for name in points.names():
        if only not in ("points", name):
            continue
        deaths = 0
        for hit in HITS:

            async def scenario(server: Server, name: str = name, hit: int = hit) -> Outcome:
                nonlocal deaths
                found = await points.kill_at(server, name, hit, seed=seed)
                deaths += found.deaths
                return found.outcome

            runner.one(f"{name} hit {hit}", lambda f: Zkd(f, points.SETTINGS), scenario)
        if not deaths:
            click.echo(f"FAIL {name}: nothing died there")
            runner.failed.append(name)


def apache(runner: Runner, rounds: int, seed: int) -> None:
    """The harness on Apache ZooKeeper, as a check of itself."""

    async def scenario(server: Server) -> Outcome:
        await server.start()
        faults: list[Fault] = [KillAll()] * rounds
        return await run(server, faults, seed=seed, bounds=Bounds(reconnect_s=12, answer_s=20))

    runner.one("kill apache", Apache, scenario)


@click.command(help=__doc__.split("\n\n", 1)[0])
@click.option("--rounds", default=50, show_default=True, help="Kills of each process.")
@click.option("--seed", default=1, show_default=True)
@click.option("--only", default="", help="A process, all, mixed, stalls, points or one's name.")
@click.option("--server", type=click.Choice(["zkd", "apache"]), default="zkd", show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(__file__).parent / "results",
    help="Where histories and logs of failed runs go.",
)
def main(rounds: int, seed: int, only: str, server: str, out: Path) -> None:
    runner = Runner(out)
    if server == "apache":
        apache(runner, rounds, seed)
    else:
        for target in TARGETS:
            if only in ("", target):
                kills(runner, target, rounds, seed)
        if only in ("", "stalls"):
            stalled(runner, seed)
        if only in ("", "points") or "." in only:
            fail_points(runner, seed, only or "points")
    click.echo(f"failed: {', '.join(runner.failed) or 'nothing'}")
    sys.exit(1 if runner.failed else 0)


if __name__ == "__main__":
    main()
