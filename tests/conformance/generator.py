"""Random requests from a seed: every opcode, right and wrong, on several connections.

`Generator.next` looks at the shadow to hit existing nodes; what it returns is plain bytes, so a
script of a run can be played again without the generator. The same seed and the same replies give
the same script. Left out, because the answer depends on more than the requests: xid -1 (it looks
like an event) and deleteContainer, which zkd refuses to clients.

`newer` adds what Apache ZooKeeper 3.8 does otherwise than 3.9 and in a way that the rest of a run
would suffer from:

- IPv6 ACLs (3.8 refuses them),
- check as a request of its own (3.8 gives no answer at all to one that holds),
- in a multi: null ACLs and null paths (different zxids), TTL flags in a create without TTL (3.8
  forgets to take back the operations before it),
- null paths in what may set a watch (3.8 then cannot close the connection),
- watches of several kinds on one connection (3.8 has one kind for each path).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.conformance import vocabulary as words
from tests.conformance import wire
from tests.conformance.meaning import op_of
from tests.conformance.shadow import SUPER, Shadow
from tests.conformance.steps import PASSWORDS, Drop, Open, Raw, Send, Step

SLOTS = 5
_STRANGERS = (wire.GET_DATA, wire.GET_CHILDREN, wire.EXISTS, wire.SET_ACL, 99, 0)
_WATCH_OPS = (
    wire.EXISTS,
    wire.GET_DATA,
    wire.GET_CHILDREN,
    wire.GET_CHILDREN2,
    wire.ADD_WATCH,
    wire.SET_WATCHES,
    wire.SET_WATCHES2,
)
# Which watches a slot sets where kinds may not be mixed: 3.8 has one kind a path and connection.
_STANDARD, _PERSISTENT, _RECURSIVE = range(3)
_KINDS = (_STANDARD, _STANDARD, _STANDARD, _PERSISTENT, _RECURSIVE)
_FLAGS = (0, 0, 1, 1, 1, 7)  # of a boolean, as a byte
NODES_MANY = 120
BATCHES = (1, 2, 4, 8, 12, 20)
_UNKNOWN_OPS = (-1, 0, 10, 23, 99, 108, 1000, -2, -100, 2147483647)
_RAW = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\x10\0\x01",
    b"\x7f\xff\xff\xff",
    wire.frame(b"\0" * 4),
    wire.frame(b"\0" * 20),
    wire.frame(wire.connect_request(password=None)[:-5]),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
)


class Generator:
    """Steps, one at a time."""

    def __init__(
        self,
        seed: int,
        shadow: Shadow,
        batches: Sequence[int] = BATCHES,
        newer: bool = False,
    ) -> None:
        self.rng = random.Random(seed)
        self.shadow = shadow
        self.xid = 0
        self.sessions = 0
        self.batches = batches
        self.newer = newer
        self.in_multi = False
        self.slot = 0  # whose requests are made at present
        self.unknown_ops = _UNKNOWN_OPS + ((wire.CHECK,) if newer else ())
        self.odd_acls = words.ODD_ACLS + (words.IPV6_ACLS if newer else ())
        self.ops: list[tuple[int, Callable[[], bytes]]] = []
        self.weights: list[float] = []
        for op, weight, make in self._table():
            self.ops.append((op, make))
            self.weights.append(weight)

    def _table(self) -> list[tuple[int, float, Callable[[], bytes]]]:
        return [
            (wire.CREATE, 9, self.create),
            (wire.CREATE2, 6, self.create),
            (wire.CREATE_CONTAINER, 2, self.create_container),
            (wire.CREATE_TTL, 3, self.create_ttl),
            (wire.DELETE, 10, self.delete),
            (wire.EXISTS, 7, self.watched),
            (wire.GET_DATA, 9, self.watched),
            (wire.SET_DATA, 9, self.set_data),
            (wire.GET_ACL, 4, self.path_only),
            (wire.SET_ACL, 4, self.set_acl),
            (wire.GET_CHILDREN, 4, self.watched),
            (wire.GET_CHILDREN2, 5, self.watched),
            (wire.SYNC, 2, self.path_only),
            (wire.MULTI, 8, self.multi),
            (wire.MULTI_READ, 3, self.multi_read),
            (wire.CHECK_WATCHES, 3, self.watch_kind),
            (wire.REMOVE_WATCHES, 3, self.watch_kind),
            (wire.SET_WATCHES, 2, self.set_watches(3)),
            (wire.SET_WATCHES2, 2, self.set_watches(5)),
            (wire.ADD_WATCH, 3, self.add_watch),
            (wire.GET_EPHEMERALS, 2, self.path_only),
            (wire.GET_ALL_CHILDREN_NUMBER, 2, self.path_only),
            (wire.WHO_AM_I, 1, lambda: b""),
            (wire.PING, 1, lambda: b""),
            (wire.RECONFIG, 0.3, self.reconfig),
        ]

    def _sets(self, kind: int) -> bool:
        """Whether the present slot may set watches of that kind."""
        return self.newer or _KINDS[self.slot] == kind

    def next(self) -> Step:
        """The next step. Opens what is not open, now and then closes what is."""
        rng = self.rng
        slot = rng.randrange(SLOTS)
        self.slot = slot
        if slot not in self.shadow.peers:
            return self.open(slot)
        dice = rng.random()
        if dice < 0.012:
            return Drop(slot)
        if dice < 0.02:
            return Raw(rng.choice(_RAW))
        if dice < 0.032:
            return self.open(rng.randrange(SLOTS))
        if dice < 0.075:
            return self.alone(slot)
        if dice < 0.085:
            return self.quota(slot)
        requests: list[bytes] = []
        for _ in range(rng.choice(self.batches)):
            requests.append(self.one())
            if op_of(requests[-1]) == wire.SET_ACL:
                break  # Apache ZooKeeper checks what follows at once against the ACL before
        return Send(slot, tuple(requests))

    def open(self, slot: int) -> Open:
        rng = self.rng
        self.sessions += 1
        step = Open(slot, self.sessions, rng.choice(words.TIMEOUTS_MS))
        dice = rng.random()
        if dice < 0.4 and self.sessions > 1:
            step = replace(step, resume=rng.randrange(1, self.sessions))
        elif dice < 0.44:
            step = replace(step, resume=999999)  # nobody's
        if rng.random() < 0.15:
            step = replace(step, password=rng.choice(PASSWORDS))
        if rng.random() < 0.2:
            step = replace(step, read_only=rng.choice((b"", b"\1", b"\7", b"\0\0\0")))
        if rng.random() < 0.04:
            step = replace(step, ahead=rng.choice((1 << 40, (1 << 63) - 1)))
        if rng.random() < 0.1:
            step = replace(step, protocol=rng.choice((1, -1, 99)))
        return step

    def one(self) -> bytes:
        """One request that keeps its connection, perhaps damaged."""
        rng = self.rng
        (op, make) = rng.choices(self.ops, self.weights)[0]
        body = make()
        sets_watches = op in _WATCH_OPS and not self.newer
        if sets_watches and body.startswith(wire.text(None)):
            body = wire.text(b"") + body[4:]
        spared = sets_watches or op == wire.PING or words.QUOTA_PREFIX in body
        if rng.random() < 0.03 and not spared:
            body = self.damaged(body, op)
        return wire.request(self.next_xid(op), op, body)

    def next_xid(self, op: int) -> int:
        if self.rng.random() < 0.01:
            return self.rng.choice((0, -3, -4, -8, 2147483647, -2147483648, 1))
        if op in (wire.SET_WATCHES, wire.SET_WATCHES2):
            return wire.SET_WATCHES_XID
        self.xid += 1
        return self.xid

    def damaged(self, body: bytes, op: int) -> bytes:
        rng = self.rng
        only_length = op == wire.CREATE_TTL or (op == wire.MULTI and not self.newer)
        dice = rng.random() * (0.6 if only_length else 1)
        if dice < 0.4:
            return body[: rng.randrange(len(body) + 1)]
        if dice < 0.6:
            return body + rng.randbytes(rng.randrange(1, 9))
        if len(body) < 5:
            return rng.randbytes(rng.randrange(9))
        if dice < 0.8:  # a length that is not one
            length = rng.choice((-1, -2, -2147483648, 2147483647, 0x200000, len(body)))
            return wire.int_(length) + body[4:]
        at = rng.randrange(len(body) - 3)
        return body[:at] + wire.int_(rng.choice((-1, -7, 0, 99999))) + body[at + 4 :]

    # Bodies of the operations

    def _acl(self) -> bytes:
        acl = words.acl(self.rng, self.odd_acls)
        if acl is None and self.in_multi and not self.newer:
            acl = ()
        return wire.acls(acl)

    def _flags(self, usual: tuple[int, ...]) -> int:
        if self.rng.random() >= 0.04:
            return self.rng.choice(usual)
        flags = self.rng.choice((-1, 4, 5, 6, 7, 100, -2147483648))
        return 7 if flags in (5, 6) and self.in_multi and not self.newer else flags

    def _creation(self, usual: tuple[int, ...]) -> bytes:
        path = self._present(words.new_path(self.rng, self.shadow))
        data = words.data(self.rng)
        if path and words.QUOTA_PREFIX in path:
            data = self.rng.choice(words.QUOTAS)
        head = wire.text(path) + wire.buffer(data) + self._acl()
        return head + wire.int_(self._flags(usual))

    def _present(self, path: bytes | None) -> bytes | None:
        """That path, if it may be used here; else "".

        Null is for 3.9. The quotas of a multi's own operations are not those that Apache
        ZooKeeper holds it against, but those of the tree before it.
        """
        if path is None:
            return b"" if self.in_multi and not self.newer else path
        return b"" if self.in_multi and words.QUOTA_PREFIX in path else path

    def create(self) -> bytes:
        return self._creation((0, 0, 0, 0, 1, 1, 2, 3))

    def create_container(self) -> bytes:
        return self._creation((4,))

    def create_ttl(self) -> bytes:
        ttl = self.rng.choice(words.TTLS_MS) if self.rng.random() < 0.3 else 1000000
        body = self._creation((5, 5, 6))
        if body[-4:] not in (wire.int_(5), wire.int_(6)):
            ttl = max(ttl, 0)  # Apache ZooKeeper does not survive a negative one without TTL flags
        return body + wire.long(ttl)

    def _path(self) -> bytes | None:
        return self._present(words.path(self.rng, self.shadow))

    def _version(self, path: bytes | None) -> int:
        node = self.shadow.nodes.get(path or b"")
        if node is not None and self.rng.random() < 0.3:
            return node.version
        return self.rng.choice(words.VERSIONS)

    def delete(self) -> bytes:
        rng = self.rng
        many = len(self.shadow.nodes) > NODES_MANY
        path = self._path()
        leaves = self.shadow.leaves()
        if leaves and rng.random() < (0.95 if many else 0.5):
            path = rng.choice(leaves)
        version = -1 if many else self._version(path)
        return wire.versioned(path, version)

    def set_data(self) -> bytes:
        path = self._path()
        data = words.data(self.rng)
        if path and words.QUOTA_PREFIX in path:
            data = self.rng.choice(words.QUOTAS)
        return wire.set_data(path, data, self._version(path))

    def set_acl(self) -> bytes:
        path = self._path()
        return wire.text(path) + self._acl() + wire.int_(self.rng.choice(words.VERSIONS))

    def check(self) -> bytes:
        path = self._path()
        return wire.versioned(path, self._version(path))

    def watched(self) -> bytes:
        path = self._path()
        return wire.watched(path, self.rng.choice(_FLAGS) if self._sets(_STANDARD) else 0)

    def path_only(self) -> bytes:
        return wire.text(self._path())

    def watch_kind(self) -> bytes:
        path = self._path()
        kind = self.rng.choice((1, 2, 3, 3, 4, 5, 0, 6, -1))
        return wire.text(path) + wire.int_(kind)

    def add_watch(self) -> bytes:
        path = self._path()
        modes = [2, -1]
        modes += [0, 0, 0, 0] if self._sets(_PERSISTENT) else []
        modes += [1, 1, 1, 1] if self._sets(_RECURSIVE) else []
        return wire.text(path) + wire.int_(self.rng.choice(modes))

    def set_watches(self, count: int) -> Callable[[], bytes]:
        def make() -> bytes:
            rng = self.rng
            zxid = rng.choice((0, -1, 1 << 40, rng.randrange(1, 2000)))
            kinds = (_STANDARD, _STANDARD, _STANDARD, _PERSISTENT, _RECURSIVE)
            lists = [
                words.paths(rng, self.shadow) if self._sets(kind) else () for kind in kinds[:count]
            ]
            return wire.set_watches(zxid, lists)

        return make

    def reconfig(self) -> bytes:
        texts = [self.rng.choice((None, b"", b"server.1=x")) for _ in range(3)]
        return b"".join(map(wire.text, texts)) + wire.long(-1)

    def multi(self) -> bytes:
        rng = self.rng
        count = rng.choice((0, 1, 1, 2, 2, 3, 4, 6))
        choices: list[tuple[int, Callable[[], bytes]]] = [
            (wire.CREATE, self.create),
            (wire.CREATE, self.create),
            (wire.CREATE2, self.create),
            (wire.CREATE_CONTAINER, self.create_container),
            (wire.CREATE_TTL, self.create_ttl),
            (wire.DELETE, self.delete),
            (wire.DELETE, self.delete),
            (wire.SET_DATA, self.set_data),
            (wire.SET_DATA, self.set_data),
            (wire.CHECK, self.check),
        ]
        ops: list[tuple[int, bytes]] = []
        self.in_multi = True
        for _ in range(count):
            op, make = rng.choice(choices)
            ops.append((op, make()))
        self.in_multi = False
        if rng.random() < 0.04:  # one that does not belong there
            stranger = rng.choice(_STRANGERS)
            ops.insert(rng.randrange(len(ops) + 1), (stranger, wire.watched(self._path())))
        return wire.multi(ops)

    def multi_read(self) -> bytes:
        rng = self.rng
        kinds = (wire.GET_DATA, wire.GET_CHILDREN)
        ops = [
            (rng.choice(kinds), wire.watched(self._path(), rng.choice((0, 1))))
            for _ in range(rng.choice((0, 1, 2, 3, 5)))
        ]
        if rng.random() < 0.05:
            ops.append((wire.DELETE, wire.versioned(self._path(), -1)))
        return wire.multi(ops)

    # Requests after which the connection may be gone

    def alone(self, slot: int) -> Step:
        rng = self.rng
        dice = rng.random()
        xid = self.next_xid(wire.AUTH)
        if dice < 0.55:
            op, body = wire.AUTH, self.authentication()
            xid = wire.AUTH_XID if rng.random() < 0.8 else xid
        elif dice < 0.85:
            op, body = wire.CLOSE_SESSION, rng.choice((b"", b"", b"junk"))
        elif dice < 0.88:
            op, body = wire.SASL, rng.choice((b"", wire.buffer(None), wire.buffer(b"")))
        else:
            op, body = rng.choice(self.unknown_ops), wire.versioned(self._path(), -1)
        return Send(slot, (wire.request(xid, op, body),), alone=True)

    def authentication(self) -> bytes:
        rng = self.rng
        dice = rng.random()
        if dice < 0.06:
            return wire.auth("digest", SUPER)
        if dice < 0.85:
            return wire.auth("digest", rng.choice(words.USERS), rng.choice((0, 0, 5)))
        if dice < 0.95:
            scheme = rng.choice((b"ip", b"world", b"nosuch", b"", b"auth", None))
            return wire.auth(scheme, b"whatever")
        return self.damaged(wire.auth("digest", b"ann:one"), wire.AUTH)

    def quota(self, slot: int) -> Step:
        """Set a quota on a node, or change one: limits and statistics as zkCli writes them."""
        rng = self.rng
        folder = b"/zookeeper/quota/" + words.name(rng)
        limits, stats = folder + b"/zookeeper_limits", folder + b"/zookeeper_stats"
        data = rng.choice(words.QUOTAS)
        kind = rng.random()
        ops: list[tuple[int, bytes]] = []
        if kind < 0.6:
            ops.append((wire.CREATE, wire.create(folder, b"", wire.OPEN, 0)))
            ops.append((wire.CREATE, wire.create(limits, data, wire.OPEN, 0)))
            ops.append((wire.CREATE, wire.create(stats, b"count=0,bytes=0", wire.OPEN, 0)))
        elif kind < 0.8:
            ops.append((wire.SET_DATA, wire.set_data(limits, data, -1)))
        else:
            for path in (limits, stats, folder):
                ops.append((wire.DELETE, wire.versioned(path, -1)))
        requests = []
        for op, body in ops:
            self.xid += 1
            requests.append(wire.request(self.xid, op, body))
        return Send(slot, tuple(requests))
