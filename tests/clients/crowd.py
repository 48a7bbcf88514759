"""Several clients at once: waiting, running side by side, crashing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException

from tests.conformance.servers import Server

WITHIN_S = 20.0
Connect = Callable[..., KazooClient]


def until(true: Callable[[], Any], what: str = "") -> None:
    """Wait for a condition."""
    end = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.005)  # between two looks


def run(*functions: Callable[[], Any]) -> list[Any]:
    """Run functions at the same time; their results, in order. What one raises is raised here."""
    results: list[Any] = [None] * len(functions)
    failures: list[BaseException] = []

    def work(number: int, function: Callable[[], Any]) -> None:
        try:
            results[number] = function()
        except (AssertionError, KazooException) as failure:
            failures.append(failure)

    threads = [
        threading.Thread(target=work, args=(number, function), daemon=True)
        for number, function in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S * 2)
        assert not thread.is_alive(), "a client does not come to an end"
    if failures:
        raise failures[0]
    return results


class Crashing:
    """Another process with a kazoo client: it runs `code`, and is killed when told to crash."""

    def __init__(self, server: Server, code: str) -> None:
        script = (
            "import sys\n"
            "from kazoo.client import KazooClient\n"
            f"client = KazooClient({server.hosts!r}, timeout=1.5)\n"
            f"client.start()\n{code}\nprint(flush=True)\nsys.stdin.read()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"\n", "the client did not get so far"

    def crash(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
