"""The differences between two servers that are allowed, each with its reason.

A reply that differs needs a `ReplyRule` whose predicate fits. A list of events that differs is
rewritten by each `EventRule` in turn; if both lists are then equal, the rules that changed
something explain it. What a rule explains is counted, and a full run in which a rule was never
used fails, so that the table cannot rot.

A rule with `leaves_watch` is for a difference after which one server has a watch that the other
has not. Until the end of the step, what concerns that path on that connection is a consequence of
it; then `repair` removes the watches of that path from both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.conformance import wire
from tests.conformance.meaning import meaning_of
from tests.conformance.normal import Event, Reply, Value
from tests.conformance.shadow import Shadow

Events = list[Event]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two servers disagree. `what`: reply, events, closed. a and b are the normalised values."""

    what: str
    connection: str
    a: Value
    b: Value
    request: bytes = b""  # the request that was answered, if one was
    index: int = -1  # which request of the step

    @property
    def op(self) -> int:
        return int.from_bytes(self.request[4:8], "big", signed=True)

    @property
    def path(self) -> bytes:
        """The path that the request begins with."""
        length = int.from_bytes(self.request[8:12], "big", signed=True)
        return self.request[12 : 12 + max(length, 0)]

    @property
    def number(self) -> int:
        """The int that follows the path: a watch type, a mode, a version."""
        at = 12 + len(self.path)
        return int.from_bytes(self.request[at : at + 4], "big", signed=True)

    @property
    def slot(self) -> int:
        return int(self.connection.split()[-1])

    def __str__(self) -> str:
        name = wire.OP_NAMES.get(self.op, self.op) if self.request else "-"
        return (
            f"{self.what} on {self.connection}, request {self.index} ({name})\n"
            f"  a: {_show(self.a)}\n  b: {_show(self.b)}\n"
            f"  request: {self.request[:200].hex()} {self.request[8:80]!r}"
        )


def _show(value: Value) -> str:
    if isinstance(value, list):
        return "[" + "; ".join(map(str, value)) + "]"
    return str(value)


@dataclass
class Context:
    """What rules look at besides the difference."""

    shadow: Shadow
    version_a: str
    version_b: str
    zxid: int = 0  # the last one before this step
    tainted: set[tuple[int, bytes]] = field(default_factory=set)  # slot, path: see leaves_watch

    def begin_step(self) -> None:
        self.tainted.clear()


@dataclass(frozen=True, slots=True)
class ReplyRule:
    name: str
    reason: str
    older: str  # a prefix of the version of server a
    newer: str  # the same for b
    fits: Callable[[Difference, Context], bool]
    leaves_watch: bool = False


@dataclass(frozen=True, slots=True)
class EventRule:
    name: str
    reason: str
    older: str
    newer: str
    rewrite: Callable[[Events, Events, Difference, Context], tuple[Events, Events]]


def _errors(difference: Difference) -> tuple[int, int] | None:
    """The error codes, if the replies differ in nothing else that both have."""
    a, b = difference.a, difference.b
    if not isinstance(a, Reply) or not isinstance(b, Reply):
        return None
    return (a.err, b.err) if (a.xid, a.zxid) == (b.xid, b.zxid) else None


def _typed_watch(difference: Difference, _context: Context) -> bool:
    errors = _errors(difference)
    watch_op = difference.op in (wire.CHECK_WATCHES, wire.REMOVE_WATCHES)
    return watch_op and difference.number in (4, 5) and errors in ((-5, 0), (-5, -121))


def _exists_unread(difference: Difference, context: Context) -> bool:
    if difference.op != wire.EXISTS or _errors(difference) != (0, -102):
        return False
    return not context.shadow.may(difference.slot, difference.path)


def _wrong_type(difference: Difference, _context: Context) -> bool:
    watch_op = difference.op in (wire.CHECK_WATCHES, wire.REMOVE_WATCHES)
    return watch_op and difference.number in (1, 2) and _errors(difference) == (0, -121)


def _any_watch(difference: Difference, _context: Context) -> bool:
    if difference.op != wire.CHECK_WATCHES:
        return False
    errors = _errors(difference)
    if errors == (-5, -121):
        return difference.number in (1, 2, 3) and not difference.path.startswith(b"/")
    return errors == (0, -121) and difference.number == 3


def _multi_stat(difference: Difference, _context: Context) -> bool:
    """The results differ in nothing but create2s that a answers like a create."""
    a, b = difference.a, difference.b
    if difference.op != wire.MULTI or not isinstance(a, Reply) or not isinstance(b, Reply):
        return False
    plain = []
    for one, result in zip(a.body, b.body, strict=False):
        if result[0] == "create2" and one[0] == "create":
            result = ("create", *result[1:3], result[3][:1])
        plain.append(result)
    return a == replace(b, body=tuple(plain))


def _multi_error_body(difference: Difference, _context: Context) -> bool:
    a, b = difference.a, difference.b
    if difference.op != wire.MULTI_READ or not isinstance(a, Reply) or a.body[:1] != ("multi",):
        return False
    return a.err == -5 and replace(a, body=()) == b


def _multi_flags(difference: Difference, _context: Context) -> bool:
    a, b = difference.a, difference.b
    if difference.op != wire.MULTI or not isinstance(a, Reply) or not isinstance(b, Reply):
        return False
    failed = any(result[0] == "error" and result[2] not in (0, -2) for result in a.body[1:-1])
    if not failed or b != replace(a, err=-5, body=()):
        return False
    return any(not 0 <= flags <= 6 for op, flags in multi_creates(difference.request))


def multi_creates(request: bytes) -> list[tuple[int, int]]:
    """Opcode and flags of each operation of a multi; flags 0 for those that have none."""
    meaning = meaning_of(request)
    return [(op.op, op.flags) for op in meaning.ops] if meaning else []


def _consequence(difference: Difference, context: Context) -> bool:
    if difference.op not in (wire.CHECK_WATCHES, wire.REMOVE_WATCHES):
        return False
    return (difference.slot, difference.path) in context.tainted


REPLY_RULES: tuple[ReplyRule, ...] = (
    ReplyRule(
        "persistent-watch-types",
        "checkWatches and removeWatches know the types 4 (persistent) and 5 (recursive) since 3.9 "
        "(ZOOKEEPER-4466); before they are MARSHALLINGERROR",
        "3.8", "3.9", _typed_watch, leaves_watch=True,
    ),
    ReplyRule(
        "exists-needs-read",
        "exists needs READ on an existing node since 3.8.4 and 3.9.2 (ZOOKEEPER-2590)",
        "3.8", "3.9", _exists_unread, leaves_watch=True,
    ),
    ReplyRule(
        "watch-type-told-apart",
        "checkWatches and removeWatches of type 1 (children) and 2 (data) mean standard watches "
        "only since 3.9; before, a persistent or recursive one counts as both (ZOOKEEPER-4466)",
        "3.8", "3.9", _wrong_type, leaves_watch=True,
    ),
    ReplyRule(
        "any-watch-of-anyone",
        "checkWatches of type 3 (any) says yes in 3.8 when another connection has a watch there; "
        "while there is a recursive watch, no type can stand a path without a slash",
        "3.8", "3.9", _any_watch,
    ),
    ReplyRule(
        "multi-create2-stat",
        "create2 in a multi (and createContainer with other flags than 4) is answered with its "
        "type and Stat since 3.9 (ZOOKEEPER-4026), before like a create",
        "3.8", "3.9", _multi_stat,
    ),
    ReplyRule(
        "multi-read-error-body",
        "a multiRead with an operation that cannot be carried out (-5): Apache ZooKeeper sends the "
        "results before it behind the error, which no client reads; zkd sends none",
        "", "3.9 zkd", _multi_error_body,
    ),
    ReplyRule(
        "multi-create-flags",
        "flags that are no CreateMode in a multi's create: 3.9 refuses the whole body (-5), 3.8 "
        "that operation",
        "3.8", "3.9", _multi_flags,
    ),
    ReplyRule(
        "consequence-of-a-watch",
        "a watch that only one server has, after a difference above in the same step",
        "3.8", "3.9", _consequence,
    ),
)  # fmt: skip


def _event_zxid(
    a: Events, b: Events, difference: Difference, context: Context
) -> tuple[Events, Events]:
    """Events of a have no zxid; those of b must name a transaction of this step."""
    synthetic = difference.op in (wire.SET_WATCHES, wire.SET_WATCHES2)
    plain = []
    for event in b:
        of_this_step = event.zxid > context.zxid
        plain.append(replace(event, zxid=-1) if of_this_step and not synthetic else event)
    return a, plain


def _unread_synthetic(
    a: Events, b: Events, difference: Difference, context: Context
) -> tuple[Events, Events]:
    """Leave out of a what setWatches tells there of nodes that the connection may not read."""
    if difference.op not in (wire.SET_WATCHES, wire.SET_WATCHES2):
        return a, b
    kept = [
        event
        for event in a
        if event.zxid != -1 or context.shadow.may(difference.slot, event.path or b"")
    ]
    return kept, b


def _tainted_events(
    a: Events, b: Events, difference: Difference, context: Context
) -> tuple[Events, Events]:
    def clean(events: Events) -> Events:
        return [e for e in events if (difference.slot, e.path or b"") not in context.tainted]

    return (clean(a), clean(b)) if context.tainted else (a, b)


EVENT_RULES: tuple[EventRule, ...] = (
    EventRule(
        "set-watches-needs-read",
        "zkd tells of a node at setWatches only who may read it, as for every other event "
        "(ZOOKEEPER-4799); Apache ZooKeeper leaves that way open",
        "", "3.9 zkd", _unread_synthetic,
    ),
    EventRule(
        "event-zxid",
        "the header of an event carries the transaction's zxid since 3.9 (ZOOKEEPER-4655), "
        "before always -1",
        "3.8", "3.9", _event_zxid,
    ),
    EventRule(
        "consequence-of-a-watch",
        "a watch that only one server has, after a difference above in the same step",
        "3.8", "3.9", _tainted_events,
    ),
)  # fmt: skip


def explain(difference: Difference, context: Context) -> list[str]:
    """The names of the rules that allow this difference; none: it is a fault."""
    if difference.what == "events":
        return _explain_events(difference, context)
    for rule in REPLY_RULES:
        if not _applies(rule, context) or not rule.fits(difference, context):
            continue
        if rule.leaves_watch:
            context.tainted.add((difference.slot, difference.path))
        return [rule.name]
    return []


def _explain_events(difference: Difference, context: Context) -> list[str]:
    a, b = list(difference.a), list(difference.b)
    used = []
    for rule in EVENT_RULES:
        if _applies(rule, context) and a != b:
            before = a, b
            a, b = rule.rewrite(a, b, difference, context)
            if (a, b) != before:
                used.append(rule.name)
    return used if a == b else []


def _applies(rule: ReplyRule | EventRule, context: Context) -> bool:
    return context.version_a.startswith(rule.older) and context.version_b.startswith(rule.newer)


def repairs(context: Context) -> list[tuple[int, bytes]]:
    """Requests (slot, payload) that give both servers the same watches again."""
    return [
        (slot, wire.request(1, wire.REMOVE_WATCHES, wire.text(path) + wire.int_(3)))
        for slot, path in sorted(context.tainted)
    ]
