"""Deaths at named fail points: the short windows that random kills do not hit.

A server is started with one fail point armed to kill (zkd/failpoints.py). Each life of the process
that passes it dies there at the n-th hit, under load, again and again, until the server is killed
whole and started without it. Then everything is judged as after any other fault.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import time
from dataclasses import dataclass

from tests.chaos.checker import Violation, check
from tests.chaos.harness import Bounds, Outcome
from tests.chaos.history import History, Mark, Note
from tests.chaos.load import Load, Shape
from tests.chaos.servers import Server, ServerFailed
from zkd import failpoints

NOT_REACHED = (
    "log.epoch", "log.truncate", "log.truncated", "generation.", "snapshot.", "tree.checkpoint",
    "member.",
)  # fmt: skip
"""Points that only an ensemble, a restore, a snapshot or many megabytes of changes pass; the
storage's own tests kill there."""
SETTINGS = {"flush.interval": "20", "log.retain": "200"}
"""The tree is flushed and the log purged often, so that their points are reached."""


def names() -> list[str]:
    """All fail points that a standalone server passes under load."""
    for package in ("zkd.server", "zkd.storage", "zkd.bus"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    return sorted(name for name in failpoints.NAMES if not name.startswith(NOT_REACHED))


@dataclass
class PointOutcome:
    """An outcome, and how often a process died at the point."""

    outcome: Outcome
    deaths: int


async def _deaths(server: Server, wanted: int, seconds: float) -> int:
    """Wait until processes were replaced so often, or for so long; how often they were."""
    deaths = 0
    seen = server.processes()
    end = time.monotonic() + seconds
    while deaths < wanted and time.monotonic() < end and server.alive:
        await asyncio.sleep(0.005)  # between two looks, not instead of one
        now = server.processes()
        deaths += sum(seen.get(name, pid) != pid for name, pid in now.items())
        seen |= now
    return deaths


async def kill_at(
    server: Server, point: str, hit: int, *, seed: int, deaths: int = 3, seconds: float = 8.0
) -> PointOutcome:
    """Let processes die at the `hit`-th pass of a point, `deaths` times or for `seconds`."""
    history = History()
    outcome = Outcome(seed, history)
    bounds = Bounds()
    top = f"/point-{point.replace('.', '-')}-{hit}"
    load = Load([server.address], history, seed, Shape(4), top=top)
    died = 0
    await server.start()
    try:
        await load.set_up()
        await load.start()
        server.kill_all()
        text = f"kill at {point}, hit {hit}"
        history.marks.append(Mark(Note.FAULT, history.tick(), time.monotonic(), text=text))
        server.spawn({"ZKD_FAILPOINTS": f"{point}=kill:{hit}"})
        died = await _deaths(server, deaths, seconds)
        server.kill_all()
        server.spawn()
        await server.ready()
        outcome.faults = 1
        await load.finish(bounds.answer_s)
        async with asyncio.timeout(bounds.answer_s):
            await load.audit()
    except (ServerFailed, TimeoutError) as e:
        outcome.violations.append(Violation("harness", str(e) or repr(e), history.tick()))
    finally:
        await load.stop()
    outcome.violations += check(history)
    outcome.violations += [Violation("log", line, 0) for line in server.complaints()]
    return PointOutcome(outcome, died)
