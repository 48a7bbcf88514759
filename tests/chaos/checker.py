"""Judges a history: which promises of ZooKeeper (and of zkd, on one server) it breaks.

Each check is a function of a history that returns the violations it found; `check` runs all. None
of them needs to search: zxids put all writes into one order, so every rule is a comparison.

What is held:

zxid order (`zxids`)
    Within a session zxids never go back, also over a reconnect. A write has a zxid above all that
    anybody had been told of before it was called; any other answer has at least that zxid. (The
    second is zkd's own promise for one server: what one client was told, every client sees at
    once. Apache ZooKeeper keeps it too, alone.)
registers (`registers`)
    One mzxid of a register means one value and one version, and back. What is read was written,
    before. A read shows everything that anybody was told of that register before it was called:
    so no acknowledged write is lost, and no client goes back in time. Versions grow with mzxids,
    and are not more than there were writes.
names (`names`)
    A listing has every node whose create was acknowledged before it was called, and none whose
    delete was (or whose session's close, for an ephemeral); and no node that nobody asked for.
    Suffixes of sequential nodes are never used twice and grow with time.
sessions (`sessions`)
    No session expires, and a client that comes back has its old one.
watches (`watches`)
    An event comes before any answer that reflects its change, also over a reconnect, and only
    where a watch stood.
multis (`multis`)
    All registers of one multi have its value with one mzxid.
answers (`answers`)
    No operation is refused, and every message is well formed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from tests.chaos.history import History, Kind, Note, Op, State

CHANGED = 3


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: of which check, what, and when."""

    check: str
    text: str
    tick: int


Check = Callable[[History], Iterator[Violation]]


class Floors:
    """The greatest number that anybody had been told before a moment."""

    def __init__(self, told: Iterable[tuple[int, int]]) -> None:
        """`told`: (tick, number) in any order."""
        self.ticks: list[int] = []
        self.greatest: list[int] = []
        for tick, number in sorted(told):
            self.ticks.append(tick)
            self.greatest.append(max(number, self.greatest[-1] if self.greatest else 0))

    def before(self, tick: int) -> int:
        at = bisect_left(self.ticks, tick)
        return self.greatest[at - 1] if at else 0


def in_order(history: History) -> list[Op]:
    """Operations with an answer, in the order of their answers."""
    with_answer = [op for op in history.ops if op.returned is not None]
    return sorted(with_answer, key=lambda op: op.returned or 0)


def told_at(op: Op) -> int:
    return op.returned or op.called


def describe(op: Op) -> str:
    return f"client {op.client}'s {op.kind} of {op.path} ({op.called}..{op.returned})"


def zxids(history: History) -> Iterator[Violation]:
    """See the module's docstring: zxid order."""
    told = [op for op in in_order(history) if op.zxid]
    floors = Floors((told_at(op), op.zxid) for op in told)
    seen: dict[int, int] = {}
    for op in told:
        before = seen.get(op.session, 0)
        if op.zxid < before:
            yield Violation(
                "zxids", f"{describe(op)}: 0x{op.zxid:x} after 0x{before:x}", told_at(op)
            )
        seen[op.session] = max(before, op.zxid)
        floor = floors.before(op.called)
        if op.zxid < floor or (op.writes and not op.err and op.zxid == floor):
            text = f"{describe(op)}: 0x{op.zxid:x}, but 0x{floor:x} had been told before its call"
            yield Violation("zxids", text, told_at(op))


def states_told(history: History) -> dict[str, list[tuple[Op, State]]]:
    """What answers said of each register."""
    found: dict[str, list[tuple[Op, State]]] = defaultdict(list)
    for op in in_order(history):
        if op.answered:
            for state in op.states:
                found[state.path].append((op, state))
    return found


def registers(history: History) -> Iterator[Violation]:
    """See the module's docstring: registers."""
    for told in states_told(history).values():
        yield from _freshness(told)
    yield from values(history)


def values(history: History) -> Iterator[Violation]:
    """What holds of registers however old a read may be: all but that it is fresh."""
    attempts: dict[tuple[str, str], Op] = {}
    for op in history.ops:
        if op.kind in (Kind.SET, Kind.MULTI):
            for state in op.states:
                attempts[state.path, state.value] = op
    tries = Counter(path for path, _ in attempts)
    for path, told in states_told(history).items():
        yield from _agreement(told)
        yield from _origin(path, told, attempts)
        yield from _versions(path, told, tries[path])


def _freshness(told: list[tuple[Op, State]]) -> Iterator[Violation]:
    floors = Floors((told_at(op), state.mzxid) for op, state in told)
    for op, state in told:
        floor = floors.before(op.called)
        if state.mzxid < floor or (op.writes and state.mzxid == floor):
            text = (
                f"{describe(op)}: {state.path} was {state.value} of 0x{state.mzxid:x}, "
                f"but 0x{floor:x} had been told before its call"
            )
            yield Violation("registers", f"stale or lost: {text}", told_at(op))


def _agreement(told: list[tuple[Op, State]]) -> Iterator[Violation]:
    by_mzxid: dict[int, State] = {}
    by_value: dict[str, State] = {}
    for op, state in told:
        for first in (
            by_mzxid.setdefault(state.mzxid, state),
            by_value.setdefault(state.value, state),
        ):
            if first != state:
                yield Violation(
                    "registers", f"{describe(op)}: {state} contradicts {first}", told_at(op)
                )


def _origin(
    path: str, told: list[tuple[Op, State]], attempts: dict[tuple[str, str], Op]
) -> Iterator[Violation]:
    for op, state in told:
        if op.writes or not state.value:
            continue
        origin = attempts.get((path, state.value))
        if origin is None or origin.err or origin.called > told_at(op):
            yield Violation(
                "registers", f"{describe(op)}: nobody wrote {state.value!r}", told_at(op)
            )


def _versions(path: str, told: list[tuple[Op, State]], tries: int) -> Iterator[Violation]:
    """Versions grow with mzxids, and every acknowledged write has made one of its own."""
    by_mzxid = {state.mzxid: (op, state) for op, state in told}
    version = -1
    for mzxid in sorted(by_mzxid):
        op, state = by_mzxid[mzxid]
        if state.version <= version:
            text = f"{describe(op)}: {path} has version {state.version} after {version}"
            yield Violation("registers", text, told_at(op))
        version = state.version
    if told and version > tries:
        op = told[-1][0]
        text = f"{path} has version {version} after {tries} writes at most"
        yield Violation("registers", text, told_at(op))


@dataclass
class _Node:
    """What is known of one name in a folder: when it must and when it cannot be listed."""

    op: Op
    sure_from: int | None = None
    """The tick of the create's answer, or when it was listed first."""
    doubt_from: int | None = None
    """The tick at which its delete, or its session's close, was called."""
    gone_from: int | None = None
    """The tick at which that was answered."""


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def names(history: History) -> Iterator[Violation]:
    """See the module's docstring: names."""
    nodes = _nodes(history)
    yield from suffixes(history)
    lists = defaultdict(list)
    for op in in_order(history):
        if op.kind is Kind.LIST and op.answered:
            lists[op.path].append(op)
    for path, ops in lists.items():
        yield from _listings(ops, nodes[path])


def _nodes(history: History) -> dict[str, dict[str, _Node]]:
    """Every node anybody asked for: folder -> asked name -> what is known."""
    nodes: dict[str, dict[str, _Node]] = defaultdict(dict)
    by_path: dict[str, _Node] = {}
    by_session: dict[int, list[_Node]] = defaultdict(list)
    for op in history.ops:
        if op.kind is Kind.CREATE:
            node = _Node(op, sure_from=op.returned if op.answered else None)
            nodes[folder_of(op.path)][op.path.rpartition("/")[2]] = node
            if op.created:
                by_path[op.created] = node
            if op.ephemeral:
                by_session[op.session].append(node)
    for op in history.ops:
        ended: list[_Node] = []
        if op.kind is Kind.DELETE and not op.err:
            ended = [by_path[op.path]]
        elif op.kind is Kind.CLOSE:
            ended = by_session[op.session]
        for node in ended:
            node.doubt_from = min(op.called, node.doubt_from or op.called)
            if op.answered and op.returned is not None:
                node.gone_from = min(op.returned, node.gone_from or op.returned)
    return nodes


def _listings(ops: list[Op], folder: dict[str, _Node]) -> Iterator[Violation]:
    """All listings of one folder, in the order of their answers."""
    coming = sorted(
        (node for node in folder.values() if node.sure_from is not None),
        key=lambda node: node.sure_from or 0,
        reverse=True,
    )
    alive: dict[int, _Node] = {}
    """Nodes that were acknowledged and may still be missed by some listing, by id."""
    earliest = list(accumulate((op.called for op in reversed(ops)), min))[::-1]
    for op, called in zip(ops, earliest, strict=True):
        while coming and (coming[-1].sure_from or 0) < op.called:
            node = coming.pop()
            alive[id(node)] = node
        for key in [k for k, n in alive.items() if n.doubt_from and n.doubt_from < called]:
            del alive[key]
        found = yield from _listing(op, folder)
        for node in found:
            if node.sure_from is None:
                node.sure_from = told_at(op)  # an unanswered create that did happen
                alive[id(node)] = node
        listed = {id(node) for node in found}
        for key, node in alive.items():
            sure = node.sure_from is not None and node.sure_from < op.called
            if (
                sure
                and key not in listed
                and not (node.doubt_from and node.doubt_from < told_at(op))
            ):
                name = node.op.created or node.op.path
                yield Violation("names", f"{describe(op)}: {name} is lost", told_at(op))


def _listing(op: Op, folder: dict[str, _Node]) -> Generator[Violation, None, list[_Node]]:
    """What is listed must have been asked for and not be gone; returns the nodes listed."""
    at = told_at(op)
    listed: dict[str, str] = {}
    for name in op.names:
        asked = name if name in folder else name[:-10]
        node = folder.get(asked)
        if node is None or node.op.called > at or node.op.err:
            yield Violation("names", f"{describe(op)}: nobody made {name}", at)
            continue
        if asked in listed:
            yield Violation("names", f"{describe(op)}: both {name} and {listed[asked]}", at)
        listed[asked] = name
        if node.op.created and not node.op.created.endswith("/" + name):
            text = f"{describe(op)}: {name}, but the answer was {node.op.created}"
            yield Violation("names", text, at)
        if node.gone_from is not None and node.gone_from < op.called:
            yield Violation("names", f"{describe(op)}: {name} is back from the dead", at)
    return [folder[asked] for asked in listed]


def suffixes(history: History) -> Iterator[Violation]:
    """No number is given twice below one parent, and later creates have greater ones."""
    made = [op for op in in_order(history) if op.sequential and op.answered]
    folders = defaultdict(list)
    for op in made:
        folders[folder_of(op.path)].append(op)
    owners: dict[tuple[str, int], str] = {}
    for op in made:
        yield from _claim(owners, op, op.created)
    for op in in_order(history):
        if op.kind is Kind.LIST:
            for name in op.names:
                if name[-10:].isdigit():
                    yield from _claim(owners, op, f"{op.path}/{name}")
    for ops in folders.values():
        floors = Floors((told_at(op), int(op.created[-10:]) + 1) for op in ops)
        for op in ops:
            floor = floors.before(op.called) - 1
            if int(op.created[-10:]) <= floor:
                text = f"{describe(op)}: {op.created} after number {floor} had been given"
                yield Violation("names", text, told_at(op))


def _claim(owners: dict[tuple[str, int], str], op: Op, path: str) -> Iterator[Violation]:
    first = owners.setdefault((folder_of(path), int(path[-10:])), path)
    if first != path:
        yield Violation("names", f"{describe(op)}: {path} has the number of {first}", told_at(op))


def sessions(history: History) -> Iterator[Violation]:
    """See the module's docstring: sessions."""
    own: dict[int, int] = {}
    for mark in history.marks:
        if mark.note is Note.EXPIRED:
            text = f"client {mark.client}'s session 0x{mark.session:x} expired"
            yield Violation("sessions", text, mark.tick)
        elif mark.note is Note.ATTACHED:
            first = own.setdefault(mark.client, mark.session)
            if first != mark.session:
                text = f"client {mark.client} got 0x{mark.session:x}, not its 0x{first:x}"
                yield Violation("sessions", text, mark.tick)
        elif mark.note is Note.CLOSED:
            own.pop(mark.client, None)


def watches(history: History) -> Iterator[Violation]:
    """See the module's docstring: watches."""
    changes = {
        path: sorted({state.mzxid for _, state in told})
        for path, told in states_told(history).items()
    }
    arrivals: dict[int, list[tuple[int, Op | None, str]]] = defaultdict(list)
    for op in in_order(history):
        arrivals[op.client].append((told_at(op), op, ""))
    for event in history.events:
        path = event.path if event.type == CHANGED else f"{event.path} (type {event.type})"
        arrivals[event.client].append((event.tick, None, path))
    for mark in history.marks:
        if mark.note in (Note.CLOSED, Note.EXPIRED):
            arrivals[mark.client].append((mark.tick, None, ""))
    for client, items in arrivals.items():
        items.sort(key=lambda item: item[0])
        yield from _watches_of(client, items, changes)


def _watches_of(
    client: int, items: list[tuple[int, Op | None, str]], changes: dict[str, list[int]]
) -> Iterator[Violation]:
    due: dict[str, int] = {}
    """path -> the mzxid of the change whose event must come next, 0: none is known."""
    for tick, op, event in items:
        if op is None and not event:
            due.clear()  # the session has ended
            continue
        if op is None:
            if due.pop(event, None) is None:
                yield Violation("watches", f"client {client}: event of {event}, unasked", tick)
            continue
        for path, mzxid in due.items():
            if mzxid and op.zxid >= mzxid:
                text = f"{describe(op)} tells of 0x{op.zxid:x} before the event of {path}"
                yield Violation("watches", f"{text} at 0x{mzxid:x}", tick)
                due[path] = 0
        if op.watch and op.answered:
            state = op.states[0]
            later = changes[state.path]
            at = bisect_right(later, state.mzxid)
            due.setdefault(state.path, later[at] if at < len(later) else 0)


def multis(history: History) -> Iterator[Violation]:
    """See the module's docstring: multis."""
    groups: dict[str, tuple[str, ...]] = {}
    for op in history.ops:
        if op.kind is Kind.MULTI:
            paths = tuple(state.path for state in op.states)
            groups |= dict.fromkeys(paths, paths)
            if len({state.mzxid for state in op.states}) > 1:
                yield Violation("multis", f"{describe(op)}: several zxids", told_at(op))
    seen: dict[int, tuple[str, Op]] = {}
    for op in in_order(history):
        for state in op.states if op.answered else ():
            if state.path in groups and state.value:
                value, first = seen.setdefault(state.mzxid, (state.value, op))
                if value != state.value:
                    text = f"{describe(op)}: 0x{state.mzxid:x} wrote {state.value} and {value}"
                    yield Violation("multis", f"{text} ({describe(first)})", told_at(op))
    yield from _last_of_groups(history, set(groups.values()))


def _last_of_groups(history: History, groups: set[tuple[str, ...]]) -> Iterator[Violation]:
    """What is told last of a group's registers, after all writes were over, is one multi's."""
    over = max((op.returned or op.called for op in history.ops if op.kind is Kind.MULTI), default=0)
    last: dict[str, tuple[Op, State]] = {}
    for op in in_order(history):
        if op.kind is Kind.GET and op.answered and op.called > over:
            last[op.path] = (op, op.states[0])
    for group in groups:
        found = [last[path] for path in group if path in last]
        if len({(state.mzxid, state.value) for _, state in found}) > 1:
            text = ", ".join(f"{s.path}={s.value}@0x{s.mzxid:x}" for _, s in found)
            yield Violation("multis", f"torn: {text}", told_at(found[-1][0]))


def answers(history: History) -> Iterator[Violation]:
    """See the module's docstring: answers."""
    for op in history.ops:
        if op.err:
            yield Violation("answers", f"{describe(op)}: error {op.err}", told_at(op))
    for mark in history.marks:
        if mark.note is Note.BROKEN:
            yield Violation("answers", f"client {mark.client}: {mark.text}", mark.tick)


CHECKS: dict[str, Check] = {
    "zxids": zxids,
    "registers": registers,
    "names": names,
    "sessions": sessions,
    "watches": watches,
    "multis": multis,
    "answers": answers,
}


def check(history: History, *, without: Iterable[str] = ()) -> list[Violation]:
    """All violations, in the order of their ticks; `without` names checks to leave out."""
    left_out = set(without)
    found = [v for name, f in CHECKS.items() if name not in left_out for v in f(history)]
    return sorted(found, key=lambda v: v.tick)


def unhealed(history: History, bound_s: float) -> list[Violation]:
    """Clients that took longer than `bound_s` to be attached again: from the loss of their
    connection, or from the moment the server was whole (HEALED) if that came later."""
    out = []
    lost: dict[int, float] = {}
    healed, whole = 0.0, True
    for mark in history.marks:
        if mark.note in (Note.FAULT, Note.HEALED):
            healed, whole = mark.seconds, mark.note is Note.HEALED
        elif mark.note is Note.LOST:
            lost.setdefault(mark.client, mark.seconds)
        elif mark.note is Note.CLOSED:
            lost.pop(mark.client, None)
        elif mark.note is Note.ATTACHED and mark.client in lost:
            took = mark.seconds - max(lost.pop(mark.client), healed)
            if whole and took > bound_s:
                text = f"client {mark.client} was back after {took:.2f} s"
                out.append(Violation("reconnect", text, mark.tick))
    for client, since in lost.items():
        text = f"client {client} never came back (lost at {since:.2f} s)"
        out.append(Violation("reconnect", text, history.marks[-1].tick))
    return out
