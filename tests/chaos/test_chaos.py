"""Faults on real servers, and nothing promised is broken.

ZKD_CHAOS_ROUNDS (default 5) is how often each process is killed; ZKD_CHAOS_SEED the first seed.
`make chaos` runs the same scenarios longer, see tests/chaos/run.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests import apache
from tests.chaos import points, stalls
from tests.chaos.harness import (
    Bounds,
    Fault,
    Freeze,
    Kill,
    KillAll,
    KillSupervisor,
    Outcome,
    run,
)
from tests.chaos.load import Shape
from tests.chaos.servers import Apache, Server, Zkd, folder_for

ROUNDS = int(os.environ.get("ZKD_CHAOS_ROUNDS", "5"))
SEED = int(os.environ.get("ZKD_CHAOS_SEED", "1"))
ANSWERED_MIN = 200


@contextmanager
def zkd(frontends: int = 2) -> Iterator[Zkd]:
    with folder_for("zkd") as folder:
        server = Zkd(folder, frontends=frontends)
        try:
            yield server
        finally:
            server.stop()


def scenario(
    server: Server, faults: list[Fault], *, shape: Shape | None = None, bounds: Bounds | None = None
) -> Outcome:
    async def whole() -> Outcome:
        await server.start()
        return await run(server, faults, seed=SEED, shape=shape, bounds=bounds)

    return asyncio.run(whole())


def assert_kept(outcome: Outcome, faults: int) -> None:
    assert not outcome.violations, outcome.report()
    assert outcome.faults == faults
    assert sum(op.answered for op in outcome.history.ops) > ANSWERED_MIN


@pytest.mark.apache
def test_apache_zookeeper_keeps_its_promises_over_kills() -> None:
    """The harness itself, tried on a server that is known to be right."""
    if reason := apache.missing():
        pytest.skip(reason)
    with folder_for("apache") as folder:
        server = Apache(folder)
        try:
            # A connection that comes while it starts may hang until the client gives it up.
            outcome = scenario(server, [KillAll()] * 2, bounds=Bounds(reconnect_s=12, answer_s=20))
        finally:
            server.stop()
    assert_kept(outcome, 2)


@pytest.mark.parametrize("name", ["frontend 1", "frontend 2", "peer", "storage", "admin"])
def test_death_of_one_process(name: str) -> None:
    with zkd() as server:
        assert_kept(scenario(server, [Kill(name)] * ROUNDS), ROUNDS)


def test_death_of_all_processes_at_once() -> None:
    with zkd() as server:
        assert_kept(scenario(server, [KillAll()] * ROUNDS), ROUNDS)


def test_death_of_the_supervisor_leaves_no_orphans() -> None:
    with zkd() as server:
        assert_kept(scenario(server, [KillSupervisor()] * ROUNDS), ROUNDS)


def test_death_with_one_front_end() -> None:
    faults: list[Fault] = [Kill("frontend 1"), Kill("peer"), Kill("storage"), KillAll()]
    with zkd(frontends=1) as server:
        assert_kept(scenario(server, faults), len(faults))


@pytest.mark.parametrize("name", ["", "storage", "peer"])
def test_no_session_expires_by_the_server_s_own_stall(name: str) -> None:
    """Stopped for longer than the session timeout: the time is given back."""
    with zkd() as server:
        outcome = scenario(
            server,
            [Freeze(name, 4.0)],
            shape=Shape(timeout_ms=2000),
            bounds=Bounds(reconnect_s=3.0),
        )
        assert_kept(outcome, 1)


def test_stopped_front_end_holds_up_nobody_else_and_is_not_stale() -> None:
    with zkd() as server:

        async def whole() -> stalls.FrontEndStall:
            await server.start()
            return await stalls.front_end_stopped(server, seed=SEED, seconds=4, timeout_ms=10_000)

        stall = asyncio.run(whole())
    assert_kept(stall.outcome, 1)
    assert stall.meanwhile.count > ANSWERED_MIN
    limit = max(2 * stall.before.p99, 0.05)  # a shared machine's p99 is not steadier than that
    assert stall.meanwhile.p99 < limit, f"before {stall.before}, meanwhile {stall.meanwhile}"


@pytest.mark.slow
@pytest.mark.parametrize("point", points.names())
def test_death_at_a_fail_point(point: str) -> None:
    """Processes die in this window, under load, until the server is started afresh."""
    with folder_for("zkd") as folder:
        server = Zkd(folder, points.SETTINGS)
        try:
            found = asyncio.run(points.kill_at(server, point, 2, seed=SEED))
        finally:
            server.stop()
    assert_kept(found.outcome, 1)
    assert found.deaths > 0
