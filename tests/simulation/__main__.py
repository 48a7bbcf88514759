"""`python -m tests.simulation SEED`: one seed, its plan and what came of it, a trace if it failed.

`--seeds A-B` runs many, `--jobs N` of them at a time, and ends with what was met. The exit status
is 0 only if everything held.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from tests.simulation.plan import plan
from tests.simulation.run import Result, run

TRACE_LINES = 150


def report(seed: int, *, lines: int, whole: bool) -> int:
    print(f"seed {seed}\n{plan(seed)}\n")
    result = run(seed, traced=True)
    if whole or result.failure:
        print("\n".join(result.trace if whole else result.trace[-lines:]), end="\n\n")
    print("\n".join(f"{name:28} {count:8}" for name, count in sorted(result.counts.items())))
    print(f"\n{result.failure or 'everything held'}")
    return 1 if result.failure else 0


def results(seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=8)


def report_many(seeds: range, jobs: int) -> int:
    began_s = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[Result] = []
    for number, result in enumerate(results(seeds, jobs), 1):
        counts += result.counts
        if result.failure:
            failed.append(result)
            print(f"seed {result.plan.seed}: {result.failure}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{number} of {len(seeds)}", end="", file=sys.stderr)
    print("\n".join(f"{name:28} {count:10}" for name, count in sorted(counts.items())))
    took_s = time.monotonic() - began_s
    print(f"\n{len(seeds)} seeds in {took_s:.0f} s, {len(failed)} failed")
    if failed:
        print(f"for a trace: python -m tests.simulation {failed[0].plan.seed}")
    return 1 if failed else 0


def seeds_of(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", type=seeds_of, help="many: 0-299")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time")
    parser.add_argument("--lines", type=int, default=TRACE_LINES, help="of a failing seed's trace")
    parser.add_argument("--trace", action="store_true", help="the whole of it in any case")
    options = parser.parse_args()
    if (options.seed is None) == (options.seeds is None):
        parser.error("a seed, or --seeds A-B")
    if options.seeds is not None:
        return report_many(options.seeds, options.jobs)
    return report(options.seed, lines=options.lines, whole=options.trace)


if __name__ == "__main__":
    sys.exit(main())
