"""What the tests of the ports between servers share: event loops, waiting, free ports."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
WITHIN_S = 10.0


def run(kind: str, work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine on a loop of its own; errors that nobody awaited fail the test too."""
    failures: list[dict[str, Any]] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        await work

    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(watched())
    assert failures == []


async def until(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Wait for a condition, looking again and again."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.002)


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
