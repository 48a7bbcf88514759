"""Judges what clients of an ensemble were told.

As tests.chaos.checker, with the one difference that several servers make: a read may be older than
what others were told, but never older than what its own client knows.

A client knows all up to the greatest zxid in any answer that it had before it called; a `sync`
that was answered adds all that anybody had been told when that sync was called. What it reads shows
every change with such a zxid, on whichever server it is by then. Writes are one order for
everybody: their zxids are above all that anybody had been told before they were called.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos import checker
from tests.chaos.checker import Floors, Violation, describe, folder_of, in_order, told_at
from tests.chaos.history import History, Kind, Op


class Knowledge:
    """What each client, and what all together, had been told at a moment, as zxids."""

    def __init__(self, history: History) -> None:
        told = [op for op in in_order(history) if op.zxid]
        self.of_all = Floors((told_at(op), op.zxid) for op in told)
        own: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for op in told:
            own[op.client].append((told_at(op), op.zxid))
            if op.kind is Kind.SYNC and op.answered:
                own[op.client].append((told_at(op), self.of_all.before(op.called)))
        self._own = {client: Floors(entries) for client, entries in own.items()}

    def before(self, op: Op) -> int:
        """What its client knew when it called."""
        return self._own[op.client].before(op.called)


def zxids(history: History) -> Iterator[Violation]:
    """They never go back in a session, and a write's is new to everybody."""
    knowledge = Knowledge(history)
    seen: dict[int, int] = {}
    for op in in_order(history):
        if not op.zxid:
            continue
        before = seen.get(op.session, 0)
        if op.zxid < before:
            text = f"{describe(op)}: 0x{op.zxid:x} after 0x{before:x}"
            yield Violation("zxids", text, told_at(op))
        seen[op.session] = max(before, op.zxid)
        floor = knowledge.of_all.before(op.called)
        if op.writes and not op.err and op.zxid <= floor:
            text = f"{describe(op)}: 0x{op.zxid:x}, but 0x{floor:x} had been told before its call"
            yield Violation("zxids", text, told_at(op))


def registers(history: History) -> Iterator[Violation]:
    """A read shows all that its client knows of; a write comes after all that anybody knows of."""
    knowledge = Knowledge(history)
    for path, told in checker.states_told(history).items():
        known = sorted({state.mzxid for _, state in told})
        floors = Floors((told_at(op), state.mzxid) for op, state in told)
        for op, state in told:
            if op.writes:
                wrong = state.mzxid <= (floor := floors.before(op.called))
            else:
                at = bisect_right(known, knowledge.before(op))
                wrong = state.mzxid < (floor := known[at - 1] if at else 0)
            if wrong:
                text = f"{describe(op)}: {path} was {state.value} of 0x{state.mzxid:x}"
                text = f"stale or lost: {text}, but its client knew of 0x{floor:x}"
                yield Violation("registers", text, told_at(op))
    yield from checker.values(history)


@dataclass
class _Node:
    """A name somebody asked for. Zxids: `born` of its create, or of the listing that showed an
    unanswered one; `dead` of its delete or its session's close. `doubt` is the tick at which that
    was called."""

    op: Op
    born: int | None = None
    dead: int | None = None
    doubt: int | None = None


def names(history: History) -> Iterator[Violation]:
    """A listing has what its client knows to be there, and nothing it knows to be gone."""
    knowledge = Knowledge(history)
    nodes = _nodes(history)
    for op in in_order(history):
        if op.kind is Kind.LIST and op.answered:
            yield from _listing(op, knowledge.before(op), nodes[op.path])
    yield from checker.suffixes(history)


def _nodes(history: History) -> dict[str, dict[str, _Node]]:
    """Folder -> asked name -> what is known of it."""
    nodes: dict[str, dict[str, _Node]] = defaultdict(dict)
    by_path: dict[str, _Node] = {}
    by_session: dict[int, list[_Node]] = defaultdict(list)
    for op in history.ops:
        if op.kind is Kind.CREATE and not op.err:
            node = _Node(op, born=op.zxid if op.answered else None)
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
            node.doubt = min(op.called, node.doubt or op.called)
            if op.answered:
                node.dead = op.zxid
    return nodes


def _listing(op: Op, knows: int, folder: dict[str, _Node]) -> Iterator[Violation]:
    at = told_at(op)
    listed: dict[str, str] = {}
    for name in op.names:
        asked = name if name in folder else name[:-10]
        node = folder.get(asked)
        if node is None or node.op.called > at:
            yield Violation("names", f"{describe(op)}: nobody made {name}", at)
            continue
        if asked in listed:
            yield Violation("names", f"{describe(op)}: both {name} and {listed[asked]}", at)
        listed[asked] = name
        if node.op.created and not node.op.created.endswith("/" + name):
            text = f"{describe(op)}: {name}, but the answer was {node.op.created}"
            yield Violation("names", text, at)
        if node.dead is not None and node.dead <= knows:
            yield Violation("names", f"{describe(op)}: {name} is back from the dead", at)
        if node.born is None:
            node.born = op.zxid
    for asked, node in folder.items():
        due = node.born is not None and node.born <= knows
        if due and asked not in listed and not (node.doubt and node.doubt < at):
            name = node.op.created or node.op.path
            yield Violation("names", f"{describe(op)}: {name} is lost", at)


def judge(history: History) -> list[Violation]:
    """All violations, in the order of their ticks."""
    found = checker.check(history, without=("zxids", "registers", "names"))
    for rule in (zxids, registers, names):
        found += rule(history)
    return sorted(found, key=lambda v: v.tick)
