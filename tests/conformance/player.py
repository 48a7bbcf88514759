"""Plays a script to one server and notes what came back.

A step has three phases so that two servers can work at the same time: `begin` sends, `middle`
collects what the step's own connection answers, then asks every other connection for a ping;
`end` collects what came before those pings. A ping is a barrier: the events of all that was
answered before stand in front of its reply.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.conformance import normal, wire
from tests.conformance.normal import Event, Reply, Value
from tests.conformance.steps import Drop, Open, Raw, Send, Step

_FINAL_ERRORS = (-6, -112, -115, -118, -124)  # the server closes after these
_NOTHING = wire.request(0, wire.NOTIFICATION)
_PING = wire.request(wire.PING_XID, wire.PING)
REFUSED = ("refused",)  # in place of the answer to a connect request: no server there
SILENT = ("silent",)  # in place of a reply that did not come in time


@dataclass
class Seen:
    """What one connection got in one step: the replies, each with the events before it."""

    replies: list[Value] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=lambda: [[]])  # one more than replies
    closed: bool = False

    def answer(self, reply: Value) -> None:
        self.replies.append(reply)
        self.events.append([])


Observation = dict[str, Seen]  # by the name of the connection


def _op(request: bytes) -> int:
    return int.from_bytes(request[4:8], "big", signed=True)


class Player:
    """One server's side of a script."""

    def __init__(self, port: int, version: str, timeout_s: float = 10.0) -> None:
        self.port = port
        self.timeout_s = timeout_s
        self.side = normal.Side(old=version.startswith("3.8"))
        self.wires: dict[int, wire.Wire] = {}
        self.ids: dict[int, int] = {}  # session number -> id
        self._now: Observation = {}
        self._raw: wire.Wire | None = None

    def play(self, step: Step) -> Observation:
        """All three phases, for one server alone."""
        self.begin(step)
        self.middle(step)
        return self.end(step)

    def begin(self, step: Step) -> None:
        self._now = {}
        if isinstance(step, Open):
            self._drop(step.slot)
            try:
                self.wires[step.slot] = wire.Wire(self.port, self.timeout_s)
            except ConnectionRefusedError:
                return  # noted as such in `middle`
            self.wires[step.slot].send(self._connect_request(step))
        elif isinstance(step, Send) and step.slot in self.wires:
            pings = () if step.alone else (_PING,)
            self.wires[step.slot].send(*map(self._own_zxids, step.requests), *pings)
        elif isinstance(step, Drop):
            self._drop(step.slot)
        elif isinstance(step, Raw):
            self._raw = wire.Wire(self.port, self.timeout_s)
            self._raw.send_raw(step.data)

    def middle(self, step: Step) -> None:
        active = None
        if isinstance(step, Open):
            active = step.slot
            if active in self.wires:
                self._note(active, self._opened(step))
            else:
                self._now[f"connection {active}"] = Seen([REFUSED], [[], []], True)
        elif isinstance(step, Send) and step.slot in self.wires:
            active = step.slot
            self._note(active, self._answers(step))
        elif isinstance(step, Raw) and self._raw is not None:
            raw = self._raw
            self._now["raw"] = seen = Seen()
            try:
                seen.answer(raw.wait_closed())
            except wire.ServerSilent:
                seen.answer(SILENT)
            seen.closed = raw.closed
            raw.drop()
            self._raw = None
        for slot, connection in self.wires.items():
            if slot != active or not isinstance(step, Send):
                connection.send(_PING)

    def end(self, step: Step) -> Observation:
        own = step.slot if isinstance(step, Send) else None
        for slot in list(self.wires):
            if slot != own:
                seen = self._now.setdefault(f"connection {slot}", Seen())
                self._collect(slot, seen, [_PING])
                if seen.closed:
                    self._drop(slot)
        return self._now

    def close(self) -> None:
        for slot in list(self.wires):
            self._drop(slot)

    def _note(self, slot: int, seen: Seen) -> None:
        self._now[f"connection {slot}"] = seen
        if seen.closed:
            self.wires.pop(slot).drop()

    def _drop(self, slot: int) -> None:
        if slot in self.wires:
            self.wires.pop(slot).drop()

    def _own_zxids(self, payload: bytes) -> bytes:
        """Put this server's number for the zxid that a setWatches names."""
        sets = _op(payload) in (wire.SET_WATCHES, wire.SET_WATCHES2) and len(payload) >= 16
        if self.side.shifts and sets:
            zxid = self.side.raw_zxid(struct.unpack_from(">q", payload, 8)[0])
            return payload[:8] + wire.long(zxid) + payload[16:]
        return payload

    def _connect_request(self, step: Open) -> bytes:
        session = 0
        password = wire.NO_PASSWORD
        if step.resume is not None:
            session = self.ids.get(step.resume, 0x1234567890)
            password = self.side.passwords.get(step.resume, wire.NO_PASSWORD)
        if step.password == "wrong":
            password = bytes(byte ^ 0x5A for byte in password)
        elif step.password == "short":
            password = password[:7]
        elif step.password == "zeros":
            password = wire.NO_PASSWORD
        return wire.connect_request(
            zxid=step.ahead,
            timeout_ms=step.timeout_ms,
            session=session,
            password=None if step.password == "null" else password,
            read_only=step.read_only,
            protocol=step.protocol,
        )

    def _opened(self, step: Open) -> Seen:
        connection = self.wires[step.slot]
        seen = Seen()
        try:
            payload = connection.receive()
            seen.answer(normal.connect(payload, step.number, self.side))
            if payload is None or wire.connected(payload).session == 0:
                seen.closed = connection.wait_closed() == b""
        except wire.ServerSilent:
            seen.answer(SILENT)
            seen.closed = True
        self.ids = {number: session for session, number in self.side.sessions.items()}
        return seen

    def _answers(self, step: Send) -> Seen:
        seen = Seen()
        if not step.alone:
            self._collect(step.slot, seen, [*step.requests, _PING])
            return seen
        self._collect(step.slot, seen, step.requests)
        last = seen.replies[-1] if seen.replies else None
        final = isinstance(last, Reply) and last.err in _FINAL_ERRORS
        if not seen.closed and (final or _op(step.requests[-1]) == wire.CLOSE_SESSION):
            self._collect(step.slot, seen, [_NOTHING])  # nothing more but the end
        elif not seen.closed:
            self.wires[step.slot].send(_PING)
            self._collect(step.slot, seen, [_PING])
        return seen

    def _collect(self, slot: int, seen: Seen, requests: Sequence[bytes]) -> None:
        """Take as many replies as there are requests, with the events in between."""
        connection = self.wires[slot]
        for request in requests:
            while True:
                try:
                    payload = connection.receive()
                except wire.ServerSilent:
                    seen.answer(SILENT)
                    payload = None
                if payload is None:
                    seen.closed = True
                    return
                if normal.xid_of(payload) != wire.EVENT_XID:
                    break
                seen.events[-1].append(normal.event(payload, self.side))
            if _op(request) == wire.CREATE_SESSION:
                seen.answer(normal.connect(payload, -1, self.side))
            else:
                seen.answer(normal.reply(payload, request, self.side))
