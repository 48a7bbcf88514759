"""Fail points: named places in the code where a test makes a process die, stop, wait or fail.

`hit("name")` does nothing, at the price of one test of an empty dict, unless the environment
variable ZKD_FAILPOINTS armed that name when the process started (children of a fork inherit what
their parent has armed). Random kills do not hit the short windows between two steps; these do.

    ZKD_FAILPOINTS="storage.after-fsync=kill:3;log.commit=sleep:0.2"

arms one action per name, `name=action[:argument[:hits]]`, separated by `;`:

| action | what the hit does |
|---|---|
| `kill[:n]` | SIGKILL to this very process at the n-th hit (default 1) |
| `stop[:n]` | SIGSTOP to this very process at the n-th hit |
| `exit[:n]` | `os._exit(70)` at the n-th hit |
| `sleep:s[:n]` | sleeps s seconds at the n-th hit, or at every hit without n |
| `enospc[:n[:m]]` | raises OSError(ENOSPC) from the n-th hit on, m times (default 1, 0 for ever) |
| `eio[:n[:m]]` | raises OSError(EIO) likewise |

`ZKD_FAILPOINTS_PROCESS`, if set, names the only process that arms them (`arm(process=...)`).
All names are in `NAMES`, with what the window is; `arm` refuses an unknown one, so that a test
cannot wait for a point that was renamed.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass, field

NAMES = {
    "log.before-insert": "append: nothing of the batch is in the log yet",
    "log.before-commit": "append: the rows are inserted, the commit has not begun",
    "log.after-commit": "append: durable, but neither the mark nor anybody knows",
    "log.after-mark": "append: durable and marked; append() has not returned",
    "log.epoch": "set_epochs: before the commit",
    "log.incarnation": "open_incarnation: before the commit",
    "log.truncate": "truncate: rows removed, not committed",
    "log.truncated": "truncate: committed, the mark still speaks of the longer log",
    "log.purge": "purge: rows removed, not committed",
    "log.checkpoint": "checkpoint of log.db, before it begins",
    "tree.slice": "flush: between two slices of one transaction",
    "tree.before-commit": "flush: everything written, not committed",
    "tree.after-commit": "flush: committed, not synced, nobody knows",
    "tree.after-sync": "flush: synced, the mark's tree zxid is still the old one",
    "tree.checkpoint": "checkpoint of tree.db, before it begins",
    "generation.written": "the next tree-N.db is written, not synced",
    "generation.synced": "the next tree-N.db is synced, log.db names the old one",
    "generation.switched": "log.db names the new tree, the old file is still there",
    "snapshot.written": "a snapshot is written under its temporary name",
    "snapshot.renamed": "a snapshot has its name, its directory is not synced",
    "recovery.replayed": "open: the log above the tree is replayed",
    "storage.after-fsync": "storage: durable, before the word is sent to anybody",
    "storage.between-announcements": "storage: one front-end knows, the next does not",
    "storage.before-peer-hears": "storage: front-ends know, the peer does not",
    "member.before-commit": "storage of a member: COMMITTED is read, nothing is taken in",
    "member.before-saved": "storage of a member: the epochs are durable, the peer does not know",
    "member.before-truncated": "storage of a member: the log is shorter, the peer does not know",
    "member.before-installed": "storage of a member: snapshot and rows are in place, nobody knows",
    "peer.before-storage": "peer: a batch is prepared, nobody has it",
    "peer.after-storage": "peer: storage has the batch, no front-end has",
    "peer.between-frontends": "peer: storage and one front-end have the batch, the next has not",
    "peer.before-incarnation": "peer: storage has opened an incarnation, nobody has heard of it",
    "peer.between-begins": "peer: one front-end has begun the incarnation, the next has not",
    "frontend.before-requests": "front-end: requests are read, the peer has not got them",
    "frontend.after-requests": "front-end: the peer has got the requests",
    "frontend.after-txns": "front-end: transactions have come, none is applied",
    "frontend.before-replies": "front-end: applied and told on the board, no reply has left",
}
"""Every fail point, and the window that it opens. A module of another room adds its own by
`register` when it is imported."""

EXIT_CODE = 70
"""The exit status of action `exit`."""


@dataclass
class _Point:
    action: str
    argument: float
    first: int
    """The hit (from 1) at which it acts."""
    times: int
    """At how many hits from `first` on; 0 for ever."""
    hits: int = field(default=0)

    def run(self, name: str) -> None:
        self.hits += 1
        if self.hits < self.first or (self.times and self.hits >= self.first + self.times):
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.action == "exit":
            os._exit(EXIT_CODE)
        elif self.action == "sleep":
            time.sleep(self.argument)
        elif self.action == "enospc":
            raise OSError(errno.ENOSPC, f"fail point {name}")
        else:
            raise OSError(errno.EIO, f"fail point {name}")


_armed: dict[str, _Point] = {}


def hit(name: str) -> None:
    """Pass the fail point `name`: nothing, unless it is armed."""
    if _armed:
        point = _armed.get(name)
        if point is not None:
            point.run(name)


def armed() -> bool:
    """Whether any point is armed: a short cut without points is not taken then."""
    return bool(_armed)


def register(names: dict[str, str]) -> None:
    """Make the fail points of another room known: name -> the window it opens."""
    NAMES.update(names)


def _parse(action: str) -> _Point:
    kind, *arguments = action.split(":")
    numbers = [float(a) for a in arguments]
    if kind in ("kill", "stop", "exit"):
        return _Point(kind, 0.0, int(numbers[0]) if numbers else 1, 1)
    if kind == "sleep" and numbers:
        every = len(numbers) < 2
        return _Point(kind, numbers[0], 1 if every else int(numbers[1]), 0 if every else 1)
    if kind in ("enospc", "eio"):
        first = int(numbers[0]) if numbers else 1
        return _Point(kind, 0.0, first, int(numbers[1]) if len(numbers) > 1 else 1)
    raise ValueError(f"unknown fail point action {action!r}")


def arm(text: str | None = None, *, process: str | None = None) -> None:
    """Arm what `text` says (see above; default: the environment), replacing what was armed.

    `process` is the name of the calling process: if ZKD_FAILPOINTS_PROCESS is set and is another
    name, nothing is armed. Names that are not registered here are accepted when they come from
    the environment, because the room that owns them may be imported later.
    """
    only = os.environ.get("ZKD_FAILPOINTS_PROCESS")
    if text is None:
        text = os.environ.get("ZKD_FAILPOINTS", "")
        if process is not None and only and only != process:
            text = ""
    else:
        unknown = [n for n, _ in _pairs(text) if n not in NAMES]
        if unknown:
            raise ValueError(f"unknown fail points: {', '.join(unknown)}")
    points = {name: _parse(action) for name, action in _pairs(text)}
    _armed.clear()
    _armed.update(points)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in text.split(";"):
        name, _, action = part.strip().partition("=")
        if name:
            pairs.append((name, action))
    return pairs


def disarm() -> None:
    """Forget all armed points."""
    _armed.clear()


arm()
