"""A server in a few lines, correct or with one planted fault, to try the checker on.

It keeps each client's requests and messages in queues and moves one thing at a time, chosen by the
seed: a client calls, the server executes, a message is delivered, a connection breaks. What it
records looks like the history of a real run.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace

from tests.chaos.history import Event, History, Kind, Mark, Note, Op, State

REGISTERS = ("/r0", "/r1")
GROUP = ("/m0", "/m1")
FOLDER, EPHEMERAL = "/seq", "/eph"
DATA_CHANGED = 3

FAULTS = {
    "lost write": "registers",
    "write undone": "registers",
    "stale read": "registers",
    "invented value": "registers",
    "write done twice": "registers",
    "version stands still": "registers",
    "zxid back": "zxids",
    "zxid not new": "zxids",
    "suffix used twice": "names",
    "node lost": "names",
    "node back": "names",
    "node invented": "names",
    "ephemeral lost": "names",
    "ephemeral stays": "names",
    "session expired": "sessions",
    "another session": "sessions",
    "event late": "watches",
    "event lost": "watches",
    "event unasked": "watches",
    "multi torn": "multis",
    "refused": "answers",
}
"""Every fault that can be planted, and the check that must find it."""


@dataclass
class _Client:
    number: int
    session: int
    zxid: int = 0
    requests: deque[Op] = field(default_factory=deque)
    messages: deque[Op | Event] = field(default_factory=deque)
    watching: set[str] = field(default_factory=set)
    """What it knows that it watches."""
    own: list[str] = field(default_factory=list)
    closing: bool = False


class Model:
    """One run: `Model(seed).run()`. With a fault, `planted` says whether it came about."""

    def __init__(self, seed: int, fault: str = "", *, steps: int = 400) -> None:
        self.random = random.Random(seed)
        self.history = History()
        self.fault = fault
        self.planted = False
        self.steps = steps
        self.zxid = 100
        self.unique = 0
        self.registers = {p: State(p, "", 1, 0) for p in (*REGISTERS, *GROUP)}
        self.previous = dict(self.registers)
        self.nodes: dict[str, int] = {}
        """Path -> session of an ephemeral node, 0 of another."""
        self.suffixes = {FOLDER: 0, EPHEMERAL: 0}
        self.armed: dict[str, set[int]] = {}
        self.breaks = 0
        self.may_plant = False
        self.clients = [_Client(i, 1000 + i) for i in range(3)]

    def run(self) -> History:
        for client in self.clients:
            self._mark(Note.ATTACHED, client)
        for step in range(self.steps):
            self._move(step > self.steps // 4)
        self._settle()
        return self.history

    def _mark(self, note: Note, client: _Client) -> None:
        tick = self.history.tick()
        self.history.marks.append(Mark(note, tick, tick / 1000, client.number, client.session))

    def _chance(self, fault: str) -> bool:
        """Whether the fault is to be planted now, for the only time."""
        if self.fault != fault or self.planted or not self.may_plant:
            return False
        self.planted = True
        return True

    def _move(self, may_plant: bool) -> None:
        self.may_plant = may_plant
        client = self.random.choice(self.clients)
        dice = self.random.random()
        if dice < 0.3 and len(client.requests) < 3 and not client.closing:
            client.requests.append(self._call(client))
        elif dice < 0.6 and client.requests:
            self._execute(client)
        elif dice < 0.99 and client.messages:
            self._deliver(client)
        elif dice >= 0.99 and not self.planted:
            self._break(client)

    def _settle(self) -> None:
        """Everything comes to an end; then each client reads and lists all there is."""
        self.may_plant = False
        for client in self.clients:
            self._drain(client)
        for client in self.clients:
            for path in self.registers:
                client.requests.append(self._op(client, Kind.GET, path))
            for folder in (FOLDER, EPHEMERAL):
                client.requests.append(self._op(client, Kind.LIST, folder))
            self._drain(client)

    def _drain(self, client: _Client) -> None:
        while client.requests:
            self._execute(client)
        while client.messages:
            self._deliver(client)

    # -- a client ------------------------------------------------------------------------------

    def _op(self, client: _Client, kind: Kind, path: str) -> Op:
        return Op(client.number, client.session, kind, path, self.history.tick())

    def _call(self, client: _Client) -> Op:
        self.unique += 1
        value = f"v{self.unique}"
        kind = self.random.choice(list(Kind))
        if kind is Kind.SET:
            path = self.random.choice(REGISTERS)
            return replace(self._op(client, kind, path), states=(State(path, value),))
        if kind is Kind.MULTI and not (self.planted and self.fault == "multi torn"):
            states = tuple(State(path, value) for path in GROUP)
            return replace(self._op(client, kind, GROUP[0]), states=states)
        if kind is Kind.CREATE:
            ephemeral = self.random.random() < 0.5
            path = f"{EPHEMERAL if ephemeral else FOLDER}/{value}-"
            return replace(self._op(client, kind, path), sequential=True, ephemeral=ephemeral)
        if kind is Kind.DELETE and client.own:
            return self._op(client, kind, client.own.pop())
        if kind is Kind.LIST:
            return self._op(client, kind, self.random.choice((FOLDER, EPHEMERAL)))
        if kind is Kind.CLOSE and self.random.random() < 0.3 and not self.planted:
            client.closing = True
            return self._op(client, kind, "")
        path = self.random.choice((*REGISTERS, *GROUP))
        return replace(self._op(client, Kind.GET, path), watch=self.random.random() < 0.5)

    def _deliver(self, client: _Client) -> None:
        message = client.messages.popleft()
        tick = self.history.tick()
        if isinstance(message, Event):
            client.watching.discard(message.path)
            self.history.events.append(replace(message, tick=tick))
            return
        op = replace(message, returned=tick, returned_s=tick / 1000)
        client.zxid = max(client.zxid, op.zxid)
        self.history.ops.append(op)
        if op.watch and not op.err:
            client.watching.add(op.path)
        if op.kind is Kind.CREATE and not op.ephemeral and op.created in self.nodes:
            client.own.append(op.created)
        if op.kind is Kind.CLOSE:
            self._mark(Note.CLOSED, client)
            self._new_session(client)

    def _new_session(self, client: _Client) -> None:
        self._unwatch(client)
        client.watching.clear()
        client.closing = False
        self.unique += 1
        client.session = 2000 + self.unique
        client.requests.clear()
        client.messages.clear()
        self._mark(Note.ATTACHED, client)

    def _unwatch(self, client: _Client) -> None:
        for armed in self.armed.values():
            armed.discard(client.number)

    def _break(self, client: _Client) -> None:
        """The connection is lost, some requests after their execution; then it is back."""
        for op in (*(m for m in client.messages if isinstance(m, Op)), *client.requests):
            self.history.ops.append(
                replace(
                    op, returned=None, zxid=0, err=0, created="", names=frozenset(),
                    states=tuple(State(s.path, s.value) for s in op.states if op.writes),
                )
            )  # fmt: skip
        closed = any(isinstance(m, Op) and m.kind is Kind.CLOSE for m in client.messages)
        client.requests.clear()
        client.messages.clear()
        client.closing = False
        self.breaks += 1
        self._unwatch(client)
        self._mark(Note.LOST, client)
        if closed:
            self._mark(Note.CLOSED, client)
            self._new_session(client)
            return
        if self._chance("session expired"):
            self._mark(Note.EXPIRED, client)
        if self._chance("another session"):
            client.session += 500
        self._mark(Note.ATTACHED, client)
        for path in sorted(client.watching):
            if self.registers[path].mzxid > client.zxid:
                client.messages.append(Event(client.number, path, DATA_CHANGED, 0))
            else:
                self.armed.setdefault(path, set()).add(client.number)

    # -- the server ----------------------------------------------------------------------------

    def _execute(self, client: _Client) -> None:
        op = client.requests.popleft()
        told = max(
            (o.zxid for o in self.history.ops if (o.returned or op.called) < op.called), default=0
        )
        if op.writes and not (told == self.zxid and self._chance("zxid not new")):
            self.zxid += 1
        if self._chance("refused"):
            client.messages.append(replace(op, zxid=self.zxid, err=-1))
            return
        if op.kind in (Kind.SET, Kind.MULTI):
            op = self._set(client, op)
        elif op.kind is Kind.GET:
            op = self._get(client, op)
        elif op.kind is Kind.CREATE:
            op = self._create(client, op)
        elif op.kind is Kind.LIST:
            op = replace(op, names=self._names(op.path))
        elif op.kind is Kind.DELETE:
            if not self._chance("node back"):
                self.nodes.pop(op.path, None)
        else:
            self._close(op)
        zxid = self.zxid
        if client.zxid == self.zxid and self._chance("zxid back"):
            zxid -= 1
        if self._chance("event unasked"):
            client.messages.append(Event(client.number, "/unasked", DATA_CHANGED, 0))
        client.messages.append(replace(op, zxid=zxid))

    def _set(self, client: _Client, op: Op) -> Op:
        done = []
        others = any(o.kind is Kind.MULTI for c in self.clients for o in c.requests)
        torn = op.kind is Kind.MULTI and not others and self._chance("multi torn")
        for i, asked in enumerate(op.states):
            now = self.registers[asked.path]
            known = self._told(now) < op.called
            version = now.version + (0 if known and self._chance("version stands still") else 1)
            state = replace(asked, mzxid=self.zxid, version=version)
            done.append(state)
            if (torn and i == 0) or self._chance("lost write"):
                continue
            self.previous[asked.path] = now
            self.registers[asked.path] = state
            self._fire(asked.path)
        if torn:
            client.messages.append(op)
            self._break(client)
        if not self.breaks and self._chance("write done twice"):
            self.zxid += 1
            first = done[0]
            self.registers[first.path] = replace(first, mzxid=self.zxid, version=first.version + 1)
        return replace(op, states=tuple(done))

    def _fire(self, path: str) -> None:
        for number in sorted(self.armed.pop(path, set())):
            messages = self.clients[number].messages
            event = Event(number, path, DATA_CHANGED, 0)
            stays = not self.clients[number].closing
            if stays and self._chance("event lost"):
                continue
            if stays and self._chance("event late"):  # behind an answer that tells of the change
                op = self._op(self.clients[number], Kind.GET, path)
                messages.append(replace(op, zxid=self.zxid, states=(self.registers[path],)))
            messages.append(event)

    def _get(self, client: _Client, op: Op) -> Op:
        state = self.registers[op.path]
        if op.watch:
            self.armed.setdefault(op.path, set()).add(client.number)
        before = self.previous[op.path]
        if state != before and self._told(state) < op.called and self._chance("stale read"):
            state = before
        if self._chance("invented value"):
            state = replace(state, value="invented")
        if state != self.previous[op.path] and self._told(state) and self._chance("write undone"):
            state = self.registers[op.path] = self.previous[op.path]
        return replace(op, states=(state,))

    def _told(self, state: State) -> int:
        """When somebody was first told of this state of a register; far away if nobody was."""
        for op in self.history.ops:
            if op.returned is not None and state in op.states:
                return op.returned
        return 10**9

    def _create(self, client: _Client, op: Op) -> Op:
        folder = op.path.rpartition("/")[0]
        last = f"-{self.suffixes[folder] - 1:010d}"
        known = any(
            o.created.startswith(folder) and o.created.endswith(last) for o in self.history.ops
        )
        if not (known and self._chance("suffix used twice")):
            self.suffixes[folder] += 1
        path = f"{op.path}{self.suffixes[folder] - 1:010d}"
        lost = "ephemeral lost" if op.ephemeral else "node lost"
        if client.closing or not self._chance(lost):
            self.nodes[path] = op.session if op.ephemeral else 0
        return replace(op, created=path)

    def _names(self, folder: str) -> frozenset[str]:
        names = {p.rpartition("/")[2] for p in self.nodes if p.startswith(folder + "/")}
        if self._chance("node invented"):
            names.add("invented0000009999")
        return frozenset(names)

    def _close(self, op: Op) -> None:
        gone = [path for path, session in self.nodes.items() if session == op.session]
        for path in gone:
            if not self._chance("ephemeral stays"):
                del self.nodes[path]
