"""What a front-end answers by itself: reads, watches, pings, auth.

Each handler gets the connection, the xid and the frame from the opcode on, and replies through the
connection. A body that cannot be read is answered MARSHALLINGERROR, and the connection stays
(server/FinalRequestProcessor.java of Apache ZooKeeper; spec: client protocol sections 7, 8, 12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from struct import error as StructError
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from zkd.bus.messages import READ_ONLY
from zkd.jute.codec import Malformed, Reader, text
from zkd.jute.protocol import Err, Op, Perm
from zkd.server import authentication, replies
from zkd.server.replies import buffer, string, strings
from zkd.server.view import Node
from zkd.tree import acl as acls
from zkd.tree import watches
from zkd.tree.errors import ClientRefusal

if TYPE_CHECKING:
    from zkd.server.connection import Connection

_INT: Final = Struct(">i")
_MULTI: Final = Struct(">i?i")
SLICE_NAMES: Final = 2000
"""So many names of a long listing are read before others get their turn."""
PAGE_MAX: Final = 10_000
TRIMMED: Final = "".join(map(chr, range(0x21)))
"""What Java's String.trim takes off."""
HOT_MAX: Final = 64 << 10
"""Replies larger than this are not kept prepared."""

NOT_READ_ONLY: Final = frozenset(
    {
        Op.SYNC, Op.CREATE, Op.CREATE2, Op.CREATE_TTL, Op.CREATE_CONTAINER, Op.DELETE,
        Op.DELETE_CONTAINER, Op.SET_DATA, Op.RECONFIG, Op.SET_ACL, Op.MULTI, Op.CHECK,
    }
)  # fmt: skip
"""What a server that is cut off refuses (server/quorum/ReadOnlyRequestProcessor.java)."""

Handler = Callable[["Connection", int, bytes], None]


def run(conn: Connection, xid: int, op: int, frame: bytes) -> None:
    """Answer one request, or close the connection if its opcode is unknown."""
    handler = HANDLERS.get(op)
    if handler is None:
        if op in NOT_READ_ONLY and conn.fe.stream.granted == READ_ONLY:
            conn.reply(xid, Err.NOT_READONLY)
            return
        conn.out.append(replies.header(0, xid, -1, Err.UNIMPLEMENTED))
        conn.flush()
        conn.refuse("opcode.unknown", opcode=op)
        return
    if op != Op.PING:
        conn.fe.metrics.slow_reads += 1
    conn.last_op = op
    try:
        handler(conn, xid, frame)
    except ClientRefusal as e:
        conn.reply(xid, e.code)
        if e.code == Err.NO_AUTH:
            conn.fe.metrics.denied.add(replies.OP_LABELS.get(op, "NA"))
    except (Malformed, StructError, UnicodeError):
        conn.reply(xid, Err.MARSHALLING_ERROR)


def _path(frame: bytes) -> tuple[str, int]:
    """The path at the beginning of the record, and the position behind it."""
    size: int = _INT.unpack_from(frame, 4)[0]
    stop = 8 + size
    if size < 0 or stop > len(frame):
        raise Malformed("path")
    return text(frame[8:stop]), stop


def _watch(frame: bytes, pos: int) -> bool:
    if pos >= len(frame):
        raise Malformed("watch")
    return frame[pos] != 0


def _readable(conn: Connection, path: str, perm: int = Perm.READ) -> Node:
    """The node, if it is there and the connection may read it."""
    node = conn.fe.served.view.get(path or "/")
    if node is None:
        raise ClientRefusal(Err.NO_NODE)
    if node.acl is not None:
        _check(conn, node, perm)
    return node


def _check(conn: Connection, node: Node, perm: int) -> None:
    if not conn.fe.served.may(conn, node.acl, perm):
        raise ClientRefusal(Err.NO_AUTH)


def _prepare(conn: Connection, frame: bytes, path: str, stop: int, node: Node, body: bytes) -> None:
    """Keep a reply ready for the next request of the same bytes, if anyone may have it."""
    if node.acl is None and len(body) < HOT_MAX and len(frame) == stop + 1 and path.isascii():
        conn.fe.served.remember_hot(frame, body)
        node.hot = True


def _get_data(conn: Connection, xid: int, frame: bytes) -> None:
    path, stop = _path(frame)
    watch = _watch(frame, stop)
    node = _readable(conn, path)
    body = buffer(node.data) + conn.fe.served.client_stat(node.stat)
    if watch:
        conn.fe.served.add_watch(conn, path, watches.DATA)
    else:
        _prepare(conn, frame, path, stop, node, body)
    conn.reply(xid, 0, body)


def _exists(conn: Connection, xid: int, frame: bytes) -> None:
    path, stop = _path(frame)
    watch = _watch(frame, stop)
    if "\0" in path:
        raise ClientRefusal(Err.BAD_ARGUMENTS)
    node = conn.fe.served.view.get(path or "/")
    if node is not None and node.acl is not None:
        _check(conn, node, Perm.READ)
    if watch:
        conn.fe.served.add_watch(conn, path, watches.DATA)
    if node is None:
        raise ClientRefusal(Err.NO_NODE)
    body = conn.fe.served.client_stat(node.stat)
    if not watch:
        _prepare(conn, frame, path, stop, node, body)
    conn.reply(xid, 0, body)


def _children(conn: Connection, xid: int, frame: bytes) -> None:
    _list(conn, xid, frame, with_stat=False)


def _children2(conn: Connection, xid: int, frame: bytes) -> None:
    _list(conn, xid, frame, with_stat=True)


def _list(conn: Connection, xid: int, frame: bytes, *, with_stat: bool) -> None:
    path, stop = _path(frame)
    watch = _watch(frame, stop)
    node = _readable(conn, path)
    if watch:
        conn.fe.served.add_watch(conn, path, watches.CHILD)
    stat = conn.fe.served.client_stat(node.stat) if with_stat else b""
    path = path or "/"
    view = conn.fe.served.view
    names = view.children(path)
    if names is None:
        count = _INT.unpack_from(node.stat, 56)[0]
        if count > SLICE_NAMES:
            _list_long(conn, xid, path, stat)
            return
        names = strings([n for part in view.listing(path, SLICE_NAMES) for n in part])
        if conn.fe.served.keeps_lists:
            view.remember_children(path, names)
    body = names + stat
    if not watch:
        _prepare(conn, frame, path, stop, node, body)
    conn.reply(xid, 0, body)


def _list_long(conn: Connection, xid: int, path: str, stat: bytes) -> None:
    """A listing in slices; only this connection waits for it."""
    parts: list[bytes] = []
    total = 0

    def take(names: list[str]) -> None:
        nonlocal total
        total += len(names)
        parts.append(strings(names)[4:])

    def end() -> None:
        conn.reply(xid, 0, b"".join((_INT.pack(total), *parts, stat)))

    steps = conn.fe.served.view.listing(path, SLICE_NAMES)
    Slices(conn, path, steps, take, end).start(xid, Op.GET_CHILDREN)


def takes_long(conn: Connection, op: int, frame: bytes) -> bool:
    """Will this request be done in slices? Then what follows it should not be sent on before."""
    if op not in (Op.GET_CHILDREN, Op.GET_CHILDREN2):
        return op == Op.GET_ALL_CHILDREN_NUMBER
    try:
        path, _ = _path(frame)
    except (Malformed, StructError):
        return False
    node = conn.fe.served.view.get(path or "/")
    return node is not None and int(_INT.unpack_from(node.stat, 56)[0]) > SLICE_NAMES


class Slices:
    """A long read of one connection, done in steps between the other work of the loop.

    The view's reader stays where it is meanwhile. No further request of the connection is looked
    at. `rush` ends it at once: the answer to a later request, which had been sent on before, is
    there (`takes_long` did not foresee it), and the client must not see what that did before its
    time.
    """

    def __init__(
        self,
        conn: Connection,
        path: str,
        steps: Iterator[Any],
        take: Callable[[Any], None],
        end: Callable[[], None],
    ) -> None:
        """`take` each step's result, then `end` (which replies)."""
        self.conn = conn
        self.path = path
        self.steps = steps
        self.take = take
        self.end = end
        self.xid = self.op = 0
        self.began = 0.0
        self.over = False
        self.holding = False

    def start(self, xid: int, op: int) -> None:
        """Take the head of the line and begin."""
        conn = self.conn
        self.xid, self.op = xid, op
        self.began = monotonic()
        conn.busy(xid, op, self)
        if conn.state == OPEN:
            self.holding = True
            conn.hold()
        conn.fe.served.view.holds += 1
        self._turn()

    def _turn(self) -> None:
        if not self.over and self._step():
            self.conn.heard = monotonic()  # it is silent because it is not listened to
            self.conn.fe.touched.add(self.conn)
            self.conn.fe.loop.call_soon(self._turn)

    def rush(self) -> None:
        """Do all the rest now."""
        while self._step():
            pass

    def _step(self) -> bool:
        """One step; True if there is more to do."""
        if self.conn.state != CLOSED:
            try:
                for result in self.steps:
                    self.take(result)
                    return True
            except ClientRefusal as e:  # what is stored there is damaged
                self.conn.reply(self.xid, e.code)
            else:
                self.end()
            took_ms = (monotonic() - self.began) * 1000
            if took_ms > self.conn.fe.slow_ms:
                self.conn.fe.slow(self.conn, self.op, self.path, took_ms)
        self.over = True
        self.conn.fe.served.view.holds -= 1
        self.conn.done()
        if self.holding and self.conn.state == HELD:
            self.conn.go_on()
            self.conn.flush()
        return False


def _children_page(conn: Connection, xid: int, frame: bytes) -> None:
    """zkd's own: {path, after, limit} -> {names, more, Stat} (docs/extensions.md)."""
    reader = Reader(frame, 4)
    path, after, limit = reader.string(), reader.string(), reader.int_()
    if path is None:
        raise Malformed("path")
    if not 0 < limit <= PAGE_MAX:
        raise ClientRefusal(Err.BAD_ARGUMENTS)
    node = _readable(conn, path)
    names, more = conn.fe.served.view.page(path or "/", after or "", limit)
    stat = conn.fe.served.client_stat(node.stat)
    conn.reply(xid, 0, strings(names) + (b"\1" if more else b"\0") + stat)


def _count(conn: Connection, xid: int, frame: bytes) -> None:
    path, _ = _path(frame)
    _readable(conn, path)
    total = 0 if path else 1  # the root is below "" (server/DataTree.java getAllChildrenNumber)

    def take(count: int) -> None:
        nonlocal total
        total += count

    def end() -> None:
        conn.reply(xid, 0, _INT.pack(total))

    steps = conn.fe.served.view.descendants(path or "/", SLICE_NAMES)
    Slices(conn, path, steps, take, end).start(xid, Op.GET_ALL_CHILDREN_NUMBER)


def _get_acl(conn: Connection, xid: int, frame: bytes) -> None:
    path, _ = _path(frame)
    node = _readable(conn, path, Perm.READ | Perm.ADMIN)
    may_see = conn.fe.served.may(conn, node.acl, Perm.ADMIN)
    shown = acls.expand(node.acl) if may_see else acls.redact(node.acl)
    conn.reply(xid, 0, shown + conn.fe.served.client_stat(node.stat))


def _get_ephemerals(conn: Connection, xid: int, frame: bytes) -> None:
    size = _INT.unpack_from(frame, 4)[0]
    prefix = "" if size == -1 else _path(frame)[0]
    paths = conn.fe.served.view.ephemerals(conn.session)
    if prefix.strip(TRIMMED) not in ("", "/"):
        paths = {p for p in paths if p.startswith(prefix)}
    conn.reply(xid, 0, strings(sorted(paths)))


def _ping(conn: Connection, xid: int, frame: bytes) -> None:
    conn.reply(-2, 0)


def _who_am_i(conn: Connection, xid: int, frame: bytes) -> None:
    registry = conn.fe.registry
    parts = [_INT.pack(len(conn.identities))]
    for scheme, id_ in conn.identities:
        name = registry.user_name(scheme, id_)
        parts += (string(scheme), string(id_ if name is None else name))
    conn.reply(xid, 0, b"".join(parts))


# -- watches -----------------------------------------------------------------------------------


def _add_watch(conn: Connection, xid: int, frame: bytes) -> None:
    reader = Reader(frame, 4)
    path, mode = reader.string(), reader.int_()
    if mode not in (0, 1):
        raise Malformed("mode")
    if path is not None:  # a null one is accepted, and nothing ever happens there
        conn.fe.served.add_watch(conn, path, watches.RECURSIVE if mode else watches.PERSISTENT)
    conn.reply(xid, 0, b"\0\0\0\0")


def _watch_named(frame: bytes) -> tuple[str | None, int]:
    """Path and type of a watch; nobody watches a null path."""
    reader = Reader(frame, 4)
    path, code = reader.string(), reader.int_()
    if not 1 <= code <= 5:
        raise Malformed("type")
    return path, code


def _check_watches(conn: Connection, xid: int, frame: bytes) -> None:
    path, code = _watch_named(frame)
    if path is None or not conn.fe.served.watches.check(conn, path, code):
        raise ClientRefusal(Err.NO_WATCHER)
    conn.reply(xid, 0)


def _remove_watches(conn: Connection, xid: int, frame: bytes) -> None:
    path, code = _watch_named(frame)
    if path is None or not conn.fe.served.watches.remove(conn, path, code):
        raise ClientRefusal(Err.NO_WATCHER)
    conn.reply(xid, 0)


def _set_watches(conn: Connection, xid: int, frame: bytes) -> None:
    _rearm(conn, xid, frame, lists=3)


def _set_watches2(conn: Connection, xid: int, frame: bytes) -> None:
    _rearm(conn, xid, frame, lists=5)


def _rearm(conn: Connection, xid: int, frame: bytes, *, lists: int) -> None:
    reader = Reader(frame, 4)
    relative_zxid = reader.long()
    paths: list[list[str]] = []
    for _ in range(lists):
        found = reader.vector(Reader.string)
        if found is None or None in found:
            raise Malformed("null paths")
        paths.append([path for path in found if path is not None])
    paths += [[] for _ in range(5 - lists)]
    served = conn.fe.served

    def lookup(path: str) -> bytes | None:
        node = served.view.get(path or "/")
        return None if node is None else node.stat

    data, exist, child, persistent, recursive = paths
    for kind, path in served.watches.set_watches(
        conn, relative_zxid, data, exist, child, persistent, recursive, lookup
    ):
        conn.watching = True
        node = served.view.get(path or "/")
        if node is not None and node.acl is not None:
            try:
                _check(conn, node, Perm.READ)
            except ClientRefusal:
                continue
        conn.out.append(replies.event(kind, path, -1))
    conn.watching = True
    conn.reply(xid, 0)


# -- multiRead ---------------------------------------------------------------------------------


def _multi_read(conn: Connection, xid: int, frame: bytes) -> None:
    """MultiOperationRecord of reads; each has its own result (spec: client protocol 8.7)."""
    pos = 4
    parts = []
    while True:
        op, done, _ = _MULTI.unpack_from(frame, pos)
        pos += 9
        if done:
            break
        if op not in (Op.GET_DATA, Op.GET_CHILDREN):
            raise Malformed("not a read")
        path, stop = _path(frame[pos - 4 :])
        stop += pos - 4
        _watch(frame, stop)
        pos = stop + 1
        try:
            node = _readable(conn, path)
            if op == Op.GET_DATA:
                body = buffer(node.data) + conn.fe.served.client_stat(node.stat)
            else:
                body = strings(
                    [
                        n
                        for part in conn.fe.served.view.listing(path or "/", SLICE_NAMES)
                        for n in part
                    ]
                )
            parts.append(_MULTI.pack(op, False, 0) + body)
        except ClientRefusal as e:
            parts.append(_MULTI.pack(-1, False, e.code) + _INT.pack(e.code))
    parts.append(replies.MULTI_END)
    conn.reply(xid, 0, b"".join(parts))


# -- auth --------------------------------------------------------------------------------------


def _auth(conn: Connection, xid: int, frame: bytes) -> None:
    try:
        reader = Reader(frame, 4)
        reader.int_()
        scheme = reader.string()
        data = reader.buffer()
    except (Malformed, StructError):
        conn.refuse("auth.malformed")
        return
    authentication.start(conn, xid, scheme or "", data or b"")


def _sasl(conn: Connection, xid: int, frame: bytes) -> None:
    """No SASL is configured: an empty answer (server/ZooKeeperServer.java processSasl)."""
    try:
        token = Reader(frame, 4).buffer()
    except (Malformed, StructError):
        token = None
    if token is None:
        conn.refuse("sasl.malformed")
        return
    conn.sent += 1
    conn.out += (replies._HEADER.pack(20, xid, 0, 0), replies.NULL)


HANDLERS: Final[dict[int, Handler]] = {
    Op.EXISTS: _exists,
    Op.GET_DATA: _get_data,
    Op.GET_ACL: _get_acl,
    Op.GET_CHILDREN: _children,
    Op.GET_CHILDREN2: _children2,
    Op.GET_CHILDREN_PAGE: _children_page,
    Op.GET_ALL_CHILDREN_NUMBER: _count,
    Op.GET_EPHEMERALS: _get_ephemerals,
    Op.PING: _ping,
    Op.WHO_AM_I: _who_am_i,
    Op.ADD_WATCH: _add_watch,
    Op.CHECK_WATCHES: _check_watches,
    Op.REMOVE_WATCHES: _remove_watches,
    Op.SET_WATCHES: _set_watches,
    Op.SET_WATCHES2: _set_watches2,
    Op.MULTI_READ: _multi_read,
    Op.AUTH: _auth,
    Op.SASL: _sasl,
}

OPEN, HELD, CLOSED = 2, 3, 5
"""States of connections; that module imports this one."""
