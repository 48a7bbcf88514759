"""Two servers side by side: each step goes to both, and what comes back must agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.conformance import wire
from tests.conformance.differences import Context, Difference, explain, repairs
from tests.conformance.normal import Event, Reply, Value
from tests.conformance.player import REFUSED, SILENT, Observation, Player, Seen
from tests.conformance.servers import Server
from tests.conformance.shadow import Shadow
from tests.conformance.steps import Drop, Open, Send, Step, count_requests


class NoReference(Exception):
    """Server a is gone, so there is nothing to compare with."""


@dataclass
class Outcome:
    """What a script showed: differences that nothing allows, with the step each was seen in."""

    script: list[Step] = field(default_factory=list)
    found: list[tuple[int, Difference]] = field(default_factory=list)
    allowed: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    replies: Counter[tuple[str, int]] = field(default_factory=Counter)  # (opcode, err)
    events: int = 0


class Judge:
    """Holds what server b answers against what the reference, server a, answered."""

    def __init__(self, version_a: str, version_b: str) -> None:
        self.shadow = Shadow()
        self.context = Context(self.shadow, version_a, version_b)
        self.outcome = Outcome()

    def judge(self, step: Step, a: Observation, b: Observation) -> list[Difference]:
        """The differences of one step that nothing allows."""
        number = len(self.outcome.script)
        self.shadow.begin_step()
        self.context.begin_step()
        self._learn(step, a)
        self.outcome.script.append(step)
        bad = []
        for difference in compare(step, a, b):
            rules = explain(difference, self.context)
            self.outcome.allowed.update(rules)
            if not rules:
                bad.append(difference)
                self.outcome.found.append((number, difference))
        self.context.zxid = max(self.context.zxid, _last_zxid(a))
        return bad

    def _learn(self, step: Step, seen: Observation) -> None:
        own = getattr(step, "slot", None)
        answers = seen.get(f"connection {own}", Seen()).replies
        if isinstance(step, Open):
            self.shadow.opened(step.slot, answers[0])
        elif isinstance(step, Send):
            for request, answer in zip(step.requests, answers, strict=False):
                self.shadow.answered(step.slot, request, answer)
        elif isinstance(step, Drop):
            self.shadow.closed(step.slot)
        self.outcome.requests += count_requests([step])
        for name, what in seen.items():
            self.outcome.events += sum(map(len, what.events))
            if what.closed and name != "raw":
                self.shadow.closed(int(name.split()[-1]))
            for answer in what.replies if name == f"connection {own}" else ():
                if isinstance(answer, Reply):
                    op = wire.OP_NAMES.get(answer.op, str(answer.op))
                    self.outcome.replies[op, answer.err] += 1


class Lockstep(Judge):
    """Plays steps to server a, the reference, and to server b."""

    def __init__(self, a: Server, b: Server, timeout_s: float = 10.0) -> None:
        super().__init__(a.version, b.version)
        self.players = (
            Player(a.port, a.version, timeout_s),
            Player(b.port, b.version, timeout_s),
        )
        self.seen: Observation = {}  # what the reference answered to the last step

    def play(self, step: Step) -> list[Difference]:
        """One step; the differences that nothing allows."""
        a, b = self._observe(step)
        self.seen = a
        for name, seen in a.items():
            if REFUSED in seen.replies or SILENT in seen.replies:
                raise NoReference(f"the reference gives no answer ({name}, {step})")
        bad = self.judge(step, a, b)
        for slot, payload in repairs(self.context):
            self._observe(Send(slot, (payload,)))
        return bad

    def _observe(self, step: Step) -> tuple[Observation, Observation]:
        for player in self.players:
            player.begin(step)
        for player in self.players:
            player.middle(step)
        first, second = (player.end(step) for player in self.players)
        return first, second

    def close(self) -> None:
        for player in self.players:
            player.close()


def compare(step: Step, a: Observation, b: Observation) -> Iterator[Difference]:
    """All differences of one step, connection by connection."""
    unordered = _ends_a_session(step)
    for name in sorted(a.keys() | b.keys()):
        one, other = a.get(name, Seen(closed=True)), b.get(name, Seen(closed=True))
        requests: tuple[bytes, ...] = ()
        if isinstance(step, Send) and name == f"connection {step.slot}":
            requests = step.requests
        yield from _compare_connection(name, one, other, requests, unordered)


def _compare_connection(
    name: str, a: Seen, b: Seen, requests: Sequence[bytes], unordered: bool
) -> Iterator[Difference]:
    for index in range(max(len(a.replies), len(b.replies))):
        request = requests[index] if index < len(requests) else b""
        yield from _compare_events(name, a, b, index, request, unordered)
        one, other = _at(a.replies, index), _at(b.replies, index)
        if one != other:
            yield Difference("reply", name, one, other, request, index)
    last = max(len(a.replies), len(b.replies))
    yield from _compare_events(name, a, b, last, b"", unordered)
    if a.closed != b.closed:
        yield Difference("closed", name, a.closed, b.closed)


def _compare_events(
    name: str, a: Seen, b: Seen, index: int, request: bytes, unordered: bool
) -> Iterator[Difference]:
    one, other = (_at(seen.events, index) or [] for seen in (a, b))
    if unordered:
        one, other = sorted(one, key=repr), sorted(other, key=repr)
    if one != other:
        yield Difference("events", name, one, other, request, index)


def _at(values: Sequence[Value], index: int) -> Value:
    return values[index] if index < len(values) else None


def _ends_a_session(step: Step) -> bool:
    """The deletions of one session's end come in the order of a hash set."""
    return isinstance(step, Send) and any(
        int.from_bytes(payload[4:8], "big", signed=True) == wire.CLOSE_SESSION
        for payload in step.requests
    )


def _last_zxid(seen: Observation) -> int:
    zxids = [
        reply.zxid
        for connection in seen.values()
        for reply in connection.replies
        if isinstance(reply, Reply)
    ]
    return max(zxids, default=0)


def report(outcome: Outcome, most: int = 4) -> str:
    """The first differences of an outcome, readable."""
    lines = [f"step {number}: {difference}" for number, difference in outcome.found[:most]]
    more = len(outcome.found) - most
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)


__all__ = ["Event", "Judge", "Lockstep", "NoReference", "Outcome", "compare", "report"]
