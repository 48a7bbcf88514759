"""The load generator from Python: build it, run one case against one server, read its answer.

A case is what is done (workload), by how many sessions (conns), each with how many requests
outstanding (depth), to how many znodes (keys) of how many bytes (size). Its text form is
WORKLOAD@CONNSxDEPTH[:SIZE], as in `get@64x1` or `set@8x100:1024`.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
BINARY = FOLDER / "zkbench"
ROOM_S = 180.0
"""How much longer than its measured time a run may take: set-up, clean-up, a slow machine."""


class BenchError(Exception):
    """A run could not be made; the text says why and what was tried."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement; see the module's docstring."""

    workload: str
    conns: int = 8
    depth: int = 1
    size: int = 100
    keys: int = 10_000

    def __str__(self) -> str:
        return f"{self.workload} {self.conns}x{self.depth}, {self.size} B"

    @property
    def reads(self) -> bool:
        """Whether nothing is written in it."""
        return self.workload in ("get", "exists", "children")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a run is measured, and how long it runs unmeasured before; seconds."""

    seconds: float = 3.0
    warmup: float = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What zkbench said. Latencies in microseconds, CPU in seconds, memory in KiB.

    `bad` counts wrong answers: a rate with bad above 0 is not a result. `generator_share` is the
    generator's own use of one core: near 1 it was the limit. The server's numbers are 0 where no
    pids were given.
    """

    ops: int
    ops_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    generator_share: float
    bad: int
    bad_kinds: dict[str, int] = field(default_factory=dict)
    server_cpu_s: float = 0.0
    server_cpu_s_per_100k: float = 0.0
    server_rss_kb: int = 0
    server_pss_kb: int = 0
    complaints: str = ""

    @classmethod
    def parse(cls, line: str, complaints: str = "") -> Result:
        """The result in one JSON line of zkbench; raises BenchError if it is not one."""
        try:
            values: dict[str, Any] = json.loads(line)
            known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
            return cls(**known, complaints=complaints)
        except (ValueError, TypeError) as e:
            raise BenchError(f"not an answer of zkbench ({e}): {line[:200]!r}") from None


def parse_case(text: str, *, size: int = 100, keys: int = 10_000) -> Case:
    """The case in its text form; raises ValueError."""
    match = re.fullmatch(r"([a-z-]+)(?:@(\d+)(?:x(\d+))?)?(?::(\d+))?", text)
    if match is None:
        raise ValueError(f"a case is WORKLOAD@CONNSxDEPTH[:SIZE], not {text!r}")
    workload, conns, depth, length = match.groups()
    return Case(workload, int(conns or 8), int(depth or 1), int(length or size), keys)


def build() -> Path:
    """Compile the generator if it is missing or older than its source."""
    done = subprocess.run(
        ["make", "-s", "-C", str(FOLDER), "zkbench"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"cannot build zkbench (make and a C compiler are needed):\n{done.stderr}")
    return BINARY


def run(
    servers: str, case: Case, timing: Timing, *, pids: str = "", options: tuple[str, ...] = ()
) -> Result:
    """Run one case against `servers` (HOST:PORT,...). Wrong answers are in the result, not raised;
    BenchError if there was no run."""
    command = [
        str(BINARY), "--json", "--servers", servers, "--workload", case.workload,
        "--conns", str(case.conns), "--depth", str(case.depth), "--size", str(case.size),
        "--keys", str(case.keys), "--seconds", str(timing.seconds),
        "--warmup", str(timing.warmup), *options,
    ]  # fmt: skip
    if pids:
        command += ["--pids", pids]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timing.seconds + timing.warmup + ROOM_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{case} at {servers} did not end") from None
    if done.returncode not in (0, 1):
        raise BenchError(f"{case} at {servers}: {done.stderr.strip()}")
    return Result.parse(done.stdout, done.stderr.strip())
