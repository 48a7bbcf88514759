"""Clients of a group: sessions that write, sync, read, move between servers, fall silent and end.

    one client asks in order and is answered in order; a connection that breaks leaves what was not
    answered unknown, and the next one begins with a cxid of its own
    a client goes only to a server that has delivered everything it was told (lastZxidSeen)
    it is served by a server only under the server's lease

Chance is the group's.
"""

from __future__ import annotations

import enum
from collections import deque

from tests.zab.bodies import Body, Kind, write_body
from tests.zab.checks import Violation
from tests.zab.group import Group
from tests.zab.node import Node
from zkd.jute.protocol import Op

TIMEOUT_MS = 2000


class Where(enum.Enum):
    AWAY = enum.auto()
    CREATING = enum.auto()
    ATTACHING = enum.auto()
    ATTACHED = enum.auto()


class Client:
    def __init__(self, group: Group, number: int) -> None:
        self.group = group
        self.number = number
        self.session = 0
        self.node: Node | None = None
        self.where = Where.AWAY
        self.seen = 0
        """The last zxid that it was told."""
        self._cxid = self._base = 0
        self._sessions = 0
        self._unanswered: deque[int] = deque()
        self._since_ms = 0
        self._silent_until_ms = 0
        self.active = True

    def begin(self) -> None:
        self.group.after(self.group.random.randint(1, 200), self._act)

    def _act(self) -> None:
        group, node = self.group, self.node
        if not self.active:
            return
        if self.where is Where.AWAY:
            self._look()
        elif node is None or not node.front.may_serve():
            self._leave()
        elif self.where is Where.ATTACHED:
            self._ask(node)
        elif group.now - self._since_ms > 3000:
            self._leave()
        group.after(group.random.randint(5, 250), self._act)

    # ---- connections

    def _look(self) -> None:
        group = self.group
        if group.now < self._silent_until_ms:
            return
        able = [
            node
            for node in group.nodes.values()
            if node.delivered >= self.seen and node.front.may_serve()
        ]
        if not able:
            return
        node = self.node = group.random.choice(able)
        self._since_ms = group.now
        if self.session:
            self.where = Where.ATTACHING
            group.count("revalidations")
            node.front.attach(self, TIMEOUT_MS)
            return
        self._sessions += 1
        self.session = node.sid << 56 | self.number << 16 | self._sessions
        self.where = Where.CREATING
        self._cxid = 0
        self._unanswered.append(0)
        body = Body(Kind.CREATE, self.session, 0, 0, TIMEOUT_MS)
        node.front.ask(self, [(0, Op.CREATE_SESSION, write_body(body))])

    def _leave(self) -> None:
        if self.node is not None:
            self.node.front.detach(self)
        self.dropped()

    def dropped(self) -> None:
        if self.where is Where.CREATING:
            self.session = 0  # it never heard whether it got one
        self.node = None
        self.where = Where.AWAY
        self._unanswered.clear()

    def revalidated(self, valid: bool) -> None:
        if self.where is not Where.ATTACHING:
            return
        if not valid:
            self.group.count("sessions lost")
            self._leave()
            self.session = 0
            return
        self.where = Where.ATTACHED
        self._base = self._cxid + 1

    # ---- requests

    def _ask(self, node: Node) -> None:
        group, dice = self.group, self.group.random
        node.front.touch(self, TIMEOUT_MS)
        what = dice.random()
        if what < 0.65:
            self._write(node, Kind.WRITE, Op.SET_DATA, dice.choice((1, 1, 1, 2, 5, 12)))
        elif what < 0.78:
            group.count("syncs")
            node.front.sync(self, group.checks.told)
        elif what < 0.90:
            self._told(node.delivered)
        elif what < 0.94:
            self._leave()
        elif what < 0.97:
            self._leave()
            self._silent_until_ms = group.now + dice.choice((500, 1500, 4000))
        else:
            self._write(node, Kind.CLOSE, Op.CLOSE_SESSION, 1)

    def _write(self, node: Node, kind: Kind, op: int, number: int) -> None:
        requests = []
        for _ in range(number):
            self._cxid += 1
            self._unanswered.append(self._cxid)
            body = Body(kind, self.session, self._base, self._cxid)
            requests.append((self._cxid, op, write_body(body)))
        node.front.ask(self, requests)

    def answered(self, cxid: int, zxid: int, body: Body) -> None:
        if not self._unanswered or cxid not in self._unanswered:
            return  # of an earlier connection
        if self._unanswered.popleft() != cxid:
            raise Violation("sessions", f"client {self.number} is answered out of order")
        self.group.count("answers")
        self._told(zxid)
        if body.kind is Kind.CREATE:
            self.where = Where.ATTACHED
            self._base = 1
        elif body.kind is Kind.CLOSE or body.kind is Kind.ERROR:
            self._leave()
            self.session = 0

    def synced(self, tag: int) -> None:
        node = self.node
        if node is not None:
            self.group.count("synced")
            self._told(node.delivered)

    def _told(self, zxid: int) -> None:
        if zxid < self.seen:
            raise Violation("sessions", f"client {self.number} sees time go back")
        self.seen = zxid
        self.group.checks.told = max(self.group.checks.told, zxid)
