"""Conversations with Apache ZooKeeper 3.9.5, written down, to hold zkd to without a JVM.

    python -m tests.conformance.recorded record --kind apache39 --scenarios --seed 1 --seed 2
    python -m tests.conformance.recorded replay --kind zkd tests/conformance/recorded/*.xz

3.9.5 is the release that zkd follows, but its jars are too large for continuous integration. A
recording holds the steps of a random run and what the server answered, normalised, so playing it
to zkd is as good as a comparison with the server itself: watches of all kinds, IPv6 ACLs and
whatever else the comparison with 3.8.0 has to leave out are in here.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conformance import servers
from tests.conformance.differential import batches, settings
from tests.conformance.generator import Generator
from tests.conformance.lockstep import Judge, Lockstep, Outcome, report
from tests.conformance.normal import Event, Reply, Value
from tests.conformance.player import Observation, Player, Seen
from tests.conformance.scenarios import SCENARIOS
from tests.conformance.steps import Step, dumps, loads

FOLDER = Path(__file__).with_name("recorded")


def _plain(value: Value) -> Any:
    """A normalised value as JSON that says what it was: bytes, str, tuple."""
    if isinstance(value, bytes):
        return "=" + value.decode("latin-1")
    if isinstance(value, str):
        return "'" + value
    if isinstance(value, Reply):
        reply = (value.op, value.xid, value.zxid, value.err, value.body, value.rest)
        return {"reply": _plain(reply)}
    if isinstance(value, Event):
        event = (value.kind, value.state, value.path, value.zxid, value.err, value.rest)
        return {"event": _plain(event)}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _rich(value: Any) -> Value:
    if isinstance(value, str):
        return value[1:] if value[0] == "'" else value[1:].encode("latin-1")
    if isinstance(value, dict):
        ((kind, fields),) = value.items()
        return Reply(*_rich(fields)) if kind == "reply" else Event(*_rich(fields))
    return tuple(map(_rich, value)) if isinstance(value, list) else value


def _dump(seen: Observation) -> str:
    return json.dumps(
        {
            name: [_plain(what.replies), _plain(what.events), what.closed]
            for name, what in seen.items()
        },
        separators=(",", ":"),
    )


def _load(line: str) -> Observation:
    return {
        name: Seen(list(_rich(replies)), [list(part) for part in _rich(events)], closed)
        for name, (replies, events, closed) in json.loads(line).items()
    }


def record(kind: str, seed: int, requests: int) -> Path:
    """Random requests to two fresh servers of that kind, which must agree; write it down."""

    def steps(lockstep: Lockstep) -> Iterator[Step]:
        generator = Generator(seed, lockstep.shadow, batches(seed), newer=True)
        while lockstep.outcome.requests < requests:
            yield generator.next()

    return _record(kind, FOLDER / f"seed-{seed}.xz", steps)


def record_scenario(kind: str, name: str) -> Path:
    """The same for a conversation of scenarios.py."""
    return _record(kind, FOLDER / f"{name}.xz", lambda _lockstep: iter(SCENARIOS[name]()))


def _record(kind: str, path: Path, steps: Callable[[Lockstep], Iterator[Step]]) -> Path:
    settings = settings_of(path)
    with servers.running(kind, settings) as a, servers.running(kind, settings) as b:
        lockstep = Lockstep(a, b)
        lines = []
        for step in steps(lockstep):
            if lockstep.play(step):
                raise AssertionError(report(lockstep.outcome))
            lines.append(dumps([step]) + _dump(lockstep.seen) + "\n")
        lockstep.close()
    path.write_bytes(lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    return path


def read(path: Path) -> Iterator[tuple[Step, Observation]]:
    """The steps of a recording, each with what the recorded server answered."""
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    for step, seen in zip(lines[::2], lines[1::2], strict=True):
        yield loads(step)[0], _load(seen)


def settings_of(path: Path) -> dict[str, str]:
    """The server's settings of a recording: they go by its seed."""
    seed = path.stem.removeprefix("seed-")
    return settings(int(seed) if seed.isdigit() else 1)


def replay(path: Path, kind: str, timeout_s: float = 10.0) -> Outcome:
    """Play a recording to a fresh server until its answer is another one."""
    with servers.running(kind, settings_of(path)) as server:
        player = Player(server.port, server.version, timeout_s)
        judge = Judge("3.9.5", server.version)
        try:
            for step, expected in read(path):
                if judge.judge(step, expected, player.play(step)):
                    break
        finally:
            player.close()
    return judge.outcome


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("action", choices=("record", "replay"))
    parser.add_argument("files", nargs="*", type=Path, help="to replay; all by default")
    parser.add_argument("--kind", default="zkd", choices=servers.KINDS)
    parser.add_argument("--seed", type=int, action="append", help="to record; may be repeated")
    parser.add_argument("--scenarios", action="store_true", help="record scenarios.py")
    parser.add_argument("--requests", type=int, default=5000)
    chosen = parser.parse_args(arguments)
    if chosen.action == "record":
        for seed in chosen.seed or ():
            print(record(chosen.kind, seed, chosen.requests))
        for name in SCENARIOS if chosen.scenarios else ():
            print(record_scenario(chosen.kind, name))
        return 0
    failed = 0
    for path in chosen.files or sorted(FOLDER.glob("*.xz")):
        outcome = replay(path, chosen.kind)
        failed += bool(outcome.found)
        print(f"{path.name}: {outcome.requests} requests, {len(outcome.found)} differences")
        print(report(outcome), end="\n" if outcome.found else "")
    return 1 if failed else 0


__all__ = ["read", "record", "record_scenario", "replay", "settings_of"]

if __name__ == "__main__":
    sys.exit(main())
