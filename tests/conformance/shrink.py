"""Make a failing script short: leave out steps, then requests within steps, while it still fails.

The test of a candidate costs a pair of servers, so halves go first and the number of tries is
bounded. What comes after the failing step was cut off before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.conformance.steps import Send, Step

Script = list[Step]
TRIES_MAX = 120


class _Budget:
    def __init__(self, shows: Callable[[Script], bool]) -> None:
        self.shows = shows
        self.left = TRIES_MAX

    def __call__(self, candidate: Script) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        return self.shows(candidate)


def shrink(script: Script, shows: Callable[[Script], bool]) -> Script:
    """A subsequence of `script` for which `shows` is true; `script` itself if none is shorter."""
    budget = _Budget(shows)
    return _fewer_requests(_fewer_steps(script, budget), budget)


def _fewer_steps(script: Script, shows: _Budget) -> Script:
    chunk = max(1, len(script) // 2)
    while True:
        position = 0
        while position < len(script):
            candidate = script[:position] + script[position + chunk :]
            if candidate and shows(candidate):
                script = candidate
            else:
                position += chunk
        if chunk == 1 or shows.left <= 0:
            return script
        chunk = max(1, chunk // 2)


def _fewer_requests(script: Script, shows: _Budget) -> Script:
    for number in range(len(script)):
        position = 0
        while True:
            step = script[number]
            if not isinstance(step, Send) or position >= len(step.requests):
                break
            shorter = step.requests[:position] + step.requests[position + 1 :]
            smaller = replace(step, requests=shorter)
            candidate = [*script[:number], smaller, *script[number + 1 :]]
            if shorter and shows(candidate):
                script = candidate
            else:
                position += 1
    return script
