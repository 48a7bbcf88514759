"""Compare two servers by random requests.

    python -m tests.conformance.differential --seed 1 --requests 5000 --a apache --b zkd

Each seed gets two fresh servers. The first difference that nothing allows ends its seed: the
script is shortened and printed, to be played again with --replay FILE. A run of 100,000 requests
or more, which is the default, also fails if an entry of the table of differences was never used.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from tests.conformance import servers
from tests.conformance.differences import EVENT_RULES, REPLY_RULES
from tests.conformance.generator import BATCHES, Generator
from tests.conformance.lockstep import Lockstep, Outcome, report
from tests.conformance.shrink import Script, shrink
from tests.conformance.steps import count_requests, dumps, loads

REQUESTS_PER_SEED = 5000
REQUESTS_FULL = 100_000
SETTINGS = {
    "minSessionTimeout": "600000",
    "maxSessionTimeout": "1200000",
}
QUOTA_EVERY = 4  # every so many seeds have quotas enforced


def settings(seed: int) -> dict[str, str]:
    """What both servers are told: every other seed runs zkd with two front-ends."""
    return SETTINGS | {
        "enforceQuota": "true" if seed % QUOTA_EVERY == 0 else "false",
        "frontends": str(1 + seed % 2),
    }


def batches(seed: int) -> tuple[int, ...]:
    """Apache ZooKeeper holds a write against the quota while earlier ones are still on their way,
    so where quotas are enforced there is one request at a time."""
    return (1,) if seed % QUOTA_EVERY == 0 else BATCHES


def run_seed(
    kind_a: str, kind_b: str, seed: int, requests: int = REQUESTS_PER_SEED
) -> tuple[Outcome, Script]:
    """Random requests to two fresh servers until `requests` are done or they disagree."""
    with servers.running(kind_a, settings(seed)) as a, servers.running(kind_b, settings(seed)) as b:
        lockstep = Lockstep(a, b)
        generator = Generator(seed, lockstep.shadow, batches(seed), a.version.startswith("3.9"))
        script: Script = []
        try:
            while lockstep.outcome.requests < requests:
                script.append(generator.next())
                if lockstep.play(script[-1]):
                    break
        finally:
            lockstep.close()
        return lockstep.outcome, script


def run_script(
    kind_a: str, kind_b: str, script: Script, seed: int = 1, timeout_s: float = 3.0
) -> Outcome:
    """Play a script to two fresh servers until they disagree; `seed` chooses their settings."""
    with servers.running(kind_a, settings(seed)) as a, servers.running(kind_b, settings(seed)) as b:
        lockstep = Lockstep(a, b, timeout_s)
        try:
            for step in script:
                if lockstep.play(step):
                    break
        finally:
            lockstep.close()
        return lockstep.outcome


def shrunk(
    kind_a: str, kind_b: str, outcome: Outcome, script: Script, seed: int
) -> tuple[Script, Outcome]:
    """The shortest script found that shows the outcome's first difference."""
    _, wanted = outcome.found[0]
    last = outcome

    def shows(candidate: Script) -> bool:
        nonlocal last
        result = run_script(kind_a, kind_b, candidate, seed)
        for _, difference in result.found:
            if difference.what == wanted.what and difference.request[4:8] == wanted.request[4:8]:
                last = result
                return True
        return False

    return shrink(script, shows), last


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--a", default="apache", choices=servers.KINDS, help="the reference")
    parser.add_argument("--b", default="zkd", choices=servers.KINDS)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--requests", type=int, default=REQUESTS_FULL, help="in all")
    parser.add_argument("--per-seed", type=int, default=REQUESTS_PER_SEED)
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--go-on", action="store_true", help="do not stop at a failing seed")
    parser.add_argument("--replay", type=Path, help="a script instead of seeds")
    parser.add_argument("--save", type=Path, help="where a failing script goes")
    chosen = parser.parse_args(arguments)
    if chosen.replay:
        script = loads(chosen.replay.read_text())
        outcome = run_script(chosen.a, chosen.b, script, chosen.seed)
        print(report(outcome) or "no difference")
        return 1 if outcome.found else 0
    return _run_seeds(chosen)


def _run_seeds(chosen: argparse.Namespace) -> int:
    total, allowed, replies = 0, Counter[str](), Counter[tuple[str, int]]()
    begin, failed, seed = time.monotonic(), 0, chosen.seed
    while total < chosen.requests:
        outcome, script = run_seed(
            chosen.a, chosen.b, seed, min(chosen.per_seed, chosen.requests - total)
        )
        total += outcome.requests
        allowed += outcome.allowed
        replies += outcome.replies
        print(
            f"seed {seed}: {outcome.requests} requests, {outcome.events} events, "
            f"{sum(outcome.allowed.values())} allowed differences, {len(outcome.found)} others"
        )
        if outcome.found:
            failed += 1
            print(report(outcome))
            if not chosen.no_shrink:
                _print_shrunk(chosen, outcome, script, seed)
            if not chosen.go_on:
                break
        seed += 1
    print(f"{total} requests in {time.monotonic() - begin:.1f} s; allowed: {dict(allowed)}")
    for (op, err), count in sorted(replies.items()):
        print(f"  {op} {err}: {count}")
    unused = _unused(chosen, total, allowed)
    if unused and not failed:
        print("entries of the table of differences that nothing needs: " + ", ".join(unused))
    return 1 if failed or unused else 0


def _unused(chosen: argparse.Namespace, total: int, allowed: Counter[str]) -> list[str]:
    """Entries that a full run against 3.8 should have used. A consequence may fail to appear."""
    if total < REQUESTS_FULL or (chosen.a, chosen.b) != ("apache", "zkd"):
        return []
    names = {rule.name for rule in REPLY_RULES} | {rule.name for rule in EVENT_RULES}
    return sorted(names - set(allowed) - {"consequence-of-a-watch"})


def _print_shrunk(chosen: argparse.Namespace, outcome: Outcome, script: Script, seed: int) -> None:
    small, last = shrunk(chosen.a, chosen.b, outcome, script, seed)
    text = dumps(small)
    print(f"{count_requests(small)} requests show it:\n{report(last)}")
    if chosen.save:
        chosen.save.write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
