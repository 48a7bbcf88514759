"""One client's connection: framing, the handshake, the order of replies, the fast way of a read.

Replies leave in the order of the requests. A write goes to the peer at once and its place in the
order is kept in `pending`; a read that comes behind an unanswered write waits there too, so that it
sees that write. While `pending` is empty a read is answered at once, and where the front-end's
table `hot` has the very bytes of the request, the prepared reply goes out unparsed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any, Final

from zkd.bus.messages import CLIENT_SESSION, GONE, NEW_SESSION, READ_ONLY, REATTACH
from zkd.jute.codec import text
from zkd.jute.protocol import Err, Op
from zkd.server import fourletter, operations, replies

if TYPE_CHECKING:
    from zkd.plugins.api import Identity
    from zkd.server.frontend import FrontEnd

monotonic: Final = time.monotonic
HEAD: Final = Struct(">ii")
_unpack_head: Final = HEAD.unpack_from
_pack_head: Final = HEAD.pack
_HELLO: Final = Struct(">iqiq")

NEW, STARTING, OPEN, HELD, CLOSING, CLOSED, WORD = range(7)
SENT, DEFERRED, BUSY = range(3)
"""States of a pending request: at the peer; a read that waits its turn; being worked on here."""

WORDS: Final = frozenset(word.encode() for word in fourletter.WORDS)
WRITES: Final = frozenset(
    {
        Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER, Op.CREATE_TTL, Op.DELETE, Op.DELETE_CONTAINER,
        Op.SET_DATA, Op.SET_ACL, Op.MULTI, Op.SYNC, Op.RECONFIG, Op.CLOSE_SESSION,
    }
)  # fmt: skip
"""What goes to the peer, in the client's order (sync has no transaction but waits its turn)."""
NO_OP: Final = 1 << 20
"""The last operation before there was one."""
OUT_LIMIT_BYTES: Final = 64 << 20
"""A client so slow to take its replies and events that more than this waits for it is closed."""


class Connection(asyncio.Protocol):
    """See the module's text."""

    __slots__ = (
        "address", "admitted", "buffer", "established", "fe", "has_read_only", "heard",
        "identities", "last_latency", "last_op", "last_xid", "last_zxid",
        "latency_max", "latency_min", "latency_sum", "line_held", "needed", "number", "out",
        "password", "pending", "read_only", "received", "sent", "session", "state", "timed",
        "timeout_ms", "transport", "watching", "write_paused",
    )  # fmt: skip

    def __init__(self, fe: FrontEnd) -> None:
        self.fe = fe
        self.number = 0
        self.state = NEW
        self.session = 0
        self.timeout_ms = 0
        self.password = b""
        self.has_read_only = False
        self.read_only = False
        self.address: tuple[str, int] = ("", 0)
        self.identities: tuple[Identity, ...] = ()
        self.buffer: list[bytes] = []
        self.needed = 0
        self.out: list[bytes] = []
        self.pending: deque[Any] = deque()
        self.heard = 0.0
        self.admitted = False
        self.watching = False
        self.write_paused = False
        self.line_held = False
        """HELD until the line is empty: its last request takes long."""
        self.established = time.time()
        self.reset_statistics()
        self.last_zxid = -1

    def reset_statistics(self) -> None:
        """Forget what `cons` shows (crst)."""
        self.last_op = NO_OP
        self.last_xid = -1
        self.last_latency = 0.0
        self.timed = 0
        self.received = 0
        self.sent = 0
        self.latency_min = -1.0
        self.latency_max = 0.0
        self.latency_sum = 0.0

    # -- the transport's callbacks --------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport: Any = transport
        peer = transport.get_extra_info("peername") or ("", 0)
        host = peer[0]
        if host.startswith("::ffff:"):
            host = host[7:]
        self.address = (host, peer[1])
        self.heard = monotonic()
        if self.fe.config.client_tcp_keep_alive:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.fe.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state != CLOSED:
            self._gone("client closed" if exc is None else str(exc))

    def pause_writing(self) -> None:
        self.write_paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self not in self.fe.paused and self.state != CLOSED:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.state != OPEN:
            self._early(data)
            return
        fe = self.fe
        now = monotonic()
        if now > fe.stream.deadline:
            fe.lapsed()
            return
        self.heard = now
        fe.touched.add(self)
        if self.needed:
            self.buffer.append(data)
            self.needed -= len(data)
            if self.needed > 0:
                return
            data = b"".join(self.buffer)
            self.buffer.clear()
            self.needed = 0
        if fe.others and fe.behind():
            fe.wait_for_board(self, data)
            return
        self._frames(data)

    # -- frames --------------------------------------------------------------------------------

    def _frames(self, data: bytes) -> None:
        """Handle all whole frames of data; keep the rest."""
        fe = self.fe
        served = fe.served
        hot = served.hot
        zx = served.zx
        out = self.out
        pending = self.pending
        size_max = fe.frame_max
        pos = 0
        end = len(data)
        count = 0
        slow = 0
        xid = 0
        while end - pos >= 12:
            length, xid = _unpack_head(data, pos)
            stop = pos + 4 + length
            if length > size_max or length < 8:
                break
            if stop > end:
                break
            body = hot.get(data[pos + 8 : stop]) if not pending else None
            if body is not None:
                out += (_pack_head(len(body) + 16, xid), zx, body)
            else:
                slow += 1
                self._frame(xid, data[pos + 8 : stop])
                if self.state != OPEN:
                    pos = stop
                    count += 1
                    break
            count += 1
            pos = stop
        if count:
            self.received += count
            self.last_xid = xid
            metrics = fe.metrics
            metrics.packets_received += count
            metrics.bytes_received += pos
            fast = count - slow
            if fast:
                self.sent += fast
                metrics.fast_reads += fast
                self.timed += fast
                self.last_op = Op.GET_DATA
            if metrics.samples:
                metrics.sample(data)
        if self.state == CLOSED:
            return
        if pos < end:
            if self.state == OPEN:
                self._keep(data, pos, end)
            elif self.state == HELD:
                self.buffer = [data[pos:]]
        if out and self.state != CLOSED:
            fe.board[fe.slot] = served.applied  # we may be within `apply_ready`
            data = b"".join(out)
            fe.metrics.bytes_sent += len(data)
            self.transport.write(data)
            out.clear()

    def _keep(self, data: bytes, pos: int, end: int) -> None:
        """The beginning of a frame stays; its declared length is checked as soon as it is there."""
        have = end - pos
        if have < 4:
            self.buffer = [data[pos:]]
            self.needed = 4 - have
            return
        length = int.from_bytes(data[pos : pos + 4], "big", signed=True)
        if length < 0 or length > self.fe.frame_max:
            self.refuse("frame.length", length=length)
            return
        if length > self.fe.large_above and not self.fe.large.could_admit(length):
            self.refuse("request.large", bytes=length)
            return
        if have >= length + 4:  # shorter than a RequestHeader
            self.refuse("frame.short", length=length)
            return
        self.buffer = [data[pos:]]
        self.needed = length + 4 - have

    def _frame(self, xid: int, frame: bytes) -> None:
        """One request: frame begins with the opcode."""
        fe = self.fe
        op = int.from_bytes(frame[:4], "big", signed=True)
        if op == Op.CREATE_SESSION:
            op = CLIENT_SESSION
        if (op in WRITES or op == CLIENT_SESSION) and (
            fe.stream.granted != READ_ONLY or op == Op.CLOSE_SESSION
        ):
            fe.send_write(self, xid, op, frame[4:])
            return
        if self.pending:
            if operations.takes_long(self, op, frame) and self._only_sent():
                self.line_held = True
                self.hold()
            self.pending.append((DEFERRED, xid, op, frame))
            fe.hold_back(self)
            return
        operations.run(self, xid, op, frame)

    def _only_sent(self) -> bool:
        """Is everything in the line at the peer?"""
        return all(entry[0] == SENT for entry in self.pending)

    # -- the handshake -------------------------------------------------------------------------

    def _early(self, data: bytes) -> None:
        """Data before the session is there, or after it has ended."""
        if self.state >= CLOSING:
            return
        self.buffer.append(data)
        if self.state in (STARTING, HELD):
            if sum(map(len, self.buffer)) > self.fe.frame_max:
                self.transport.pause_reading()
            return
        data = b"".join(self.buffer)
        self.buffer = [data]
        if len(data) < 4:
            return
        word = data[:4]
        if word in WORDS:
            self.state = WORD
            self.fe.four_letter_word(self, word.decode(), data[4:12])
            return
        length = int.from_bytes(word, "big", signed=True)
        if length < 0 or length > self.fe.frame_max:
            reason = (
                "http.request" if word in (b"GET ", b"POST", b"HEAD", b"PUT ") else "frame.length"
            )
            if word[:2] == b"\x16\x03":
                reason = "tls.on_plain_port"
            self.refuse(reason, length=length)
            return
        if not self.fe.serving:
            self.fe.metrics.not_serving.value += 1
            self.close("not serving")
            return
        if len(data) >= 4 + length:
            self.buffer = [data[4 + length :]] if len(data) > 4 + length else []
            self._hello(data[4 : 4 + length])

    def _hello(self, frame: bytes) -> None:
        """ConnectRequest (server/ZooKeeperServer.java processConnectRequest)."""
        fe = self.fe
        self.received += 1
        fe.metrics.packets_received += 1
        fe.metrics.bytes_received += 4 + len(frame)
        try:
            _, last_zxid, timeout_ms, session = _HELLO.unpack_from(frame)
            size = int.from_bytes(frame[24:28], "big", signed=True)
            if len(frame) < 28 or size < -1 or 28 + size > len(frame):
                raise StructError
        except StructError:
            self.refuse("hello.malformed", length=len(frame))
            return
        self.password = frame[28 : 28 + size] if size > 0 else b""
        rest = frame[28 + max(size, 0) :]
        self.has_read_only = len(rest) > 0
        self.read_only = rest[:1] not in (b"", b"\0")
        if not fe.admit(self, session):
            return
        if fe.stream.granted == READ_ONLY and not self.read_only:
            fe.log.info("client.not_read_only", client=self.peer)
            self.close("not a read-only client")
            return
        if last_zxid > fe.served.applied:
            if fe.others and last_zxid <= fe.board_max():
                fe.wait_for_zxid(last_zxid, lambda: self._start(session, timeout_ms))
                self.state = STARTING
                return
            self.fe.log.info(
                "client.ahead", client=self.peer, seen=hex(last_zxid), ours=hex(fe.served.applied)
            )
            self.close("client has seen a later zxid")
            return
        self._start(session, timeout_ms)

    def _start(self, session: int, timeout_ms: int) -> None:
        if self.state == CLOSED:
            return
        self.state = STARTING
        op = NEW_SESSION if session == 0 else REATTACH
        self.pending.append((SENT, 0, op, self.heard))
        if session == 0:
            self.fe.ask(self, 0, NEW_SESSION, (timeout_ms, self.identities))
        else:
            self.fe.ask(self, 0, REATTACH, (session, self.password, timeout_ms, self.identities))

    def attached(self, session: int, timeout_ms: int, password: bytes) -> None:
        """The peer has made this connection the owner of the session."""
        self.pending.popleft()
        self.sent += 1
        self.session = session
        self.timeout_ms = timeout_ms
        self.password = password
        self.last_op = Op.CREATE_SESSION
        self._respond(timeout_ms, session, password)
        self.fe.own(self)
        self.go_on()

    def _respond(self, timeout_ms: int, session: int, password: bytes) -> None:
        """Queue the ConnectResponse."""
        read_only = self.fe.stream.granted == READ_ONLY
        told = (timeout_ms, session, password, self.has_read_only, read_only)
        self.out.append(replies.connect_response(*told))

    def hold(self) -> None:
        """Read no further frames until `go_on`."""
        self.state = HELD

    def go_on(self) -> None:
        """Take up what has arrived meanwhile."""
        self.state = OPEN
        rest = b"".join(self.buffer)
        self.buffer.clear()
        if not self.write_paused:
            self.transport.resume_reading()
        self.turn()
        if not rest or self.state >= CLOSING:
            return
        if self.state == HELD:  # by what has waited in line
            self.buffer[:0] = [rest]
        elif self.fe.others and self.fe.behind():  # what came meanwhile may ask for more
            self.fe.wait_for_board(self, rest)
        else:
            self._frames(rest)

    def refused_session(self) -> None:
        """No such session, or the wrong password: zeros, then the end."""
        self._respond(0, 0, bytes(16))
        self.flush()
        self.close("session refused")

    # -- replies -------------------------------------------------------------------------------

    def reply(self, xid: int, err: int, body: bytes = b"") -> None:
        """Queue a reply at the present zxid; it leaves with the next flush."""
        self.sent += 1
        self.fe.metrics.reply_size(16 + len(body))
        self.out += (replies.header(len(body), xid, self.fe.served.applied, err), body)

    def complete(self, txn: tuple[Any, ...], now: float) -> None:
        """The transaction of the oldest request is applied: answer, then what waited behind it."""
        pending = self.pending
        entry = pending.popleft()
        xid, op, asked = entry[1], entry[2], entry[3]
        if len(entry) > 5:
            self.fe.large.finish(entry[5])
            if self.fe.auditing is not None:
                self.fe.auditing.completed(self, op, entry[4], txn)
        if op == NEW_SESSION:
            pending.appendleft(entry)
            session, timeout_ms, password = txn[7]
            self.attached(session, timeout_ms, password)
            return
        assert xid == txn[3], f"reply {txn[3]} to request {xid}"
        if txn[4] == Err.SESSION_MOVED:  # as Apache ZooKeeper: no reply
            self.close("session moved to another server")
            return
        self.sent += 1
        if op == CLIENT_SESSION:
            self._respond(self.timeout_ms, self.session, self.password)
            self.turn()
            return
        reply = replies.of_write(op, xid, txn, self.fe.served.client_stat)
        self.out.append(reply)
        self.fe.metrics.reply_size(len(reply) - 4)
        if txn[4] == Err.NO_AUTH:
            self.fe.metrics.denied.add(replies.OP_LABELS.get(op, "NA"))
        took_ms = (now - asked) * 1000
        self.note(op, txn[0], took_ms)
        if took_ms > self.fe.slow_ms:
            path = txn[6][0][1] if txn[6] else ""
            self.fe.slow(self, op, path if isinstance(path, str) else "", took_ms)
        if op == Op.CLOSE_SESSION:
            self.flush()
            self.close("closed by the client")
            return
        if pending:
            self.turn()

    def synced(self, xid: int) -> None:
        """The answer to a sync: the path as it came (it is not looked at)."""
        _, asked_xid, _, _, body, taken = self.pending.popleft()
        assert asked_xid == xid
        self.fe.large.finish(taken)
        size = int.from_bytes(body[:4], "big", signed=True)
        if len(body) < 4 or size < -1 or 4 + size > len(body):
            self.reply(xid, Err.MARSHALLING_ERROR)
        else:
            path = text(body[4 : 4 + max(size, 0)])
            self.reply(xid, 0, replies.NULL if size == -1 else replies.string(path))
        self.turn()

    def not_done(self, xid: int, err: int) -> None:
        """The peer has not done the oldest request, and no transaction says so."""
        entry = self.pending.popleft()
        assert entry[1] == xid
        if len(entry) > 5:
            self.fe.large.finish(entry[5])
        self.reply(xid, err)
        self.turn()

    def note(self, op: int, zxid: int, latency_ms: float) -> None:
        """Statistics of one answered request."""
        self.last_op = op
        self.last_zxid = zxid
        self.last_latency = latency_ms
        self.timed += 1
        self.latency_sum += latency_ms
        if latency_ms > self.latency_max:
            self.latency_max = latency_ms
        elif latency_ms < self.latency_min or self.latency_min < 0:
            self.latency_min = latency_ms

    def turn(self) -> None:
        """Run the reads at the head of the line."""
        pending = self.pending
        while pending and pending[0][0] == DEFERRED and OPEN <= self.state < CLOSED:
            _, xid, op, frame = pending.popleft()
            operations.run(self, xid, op, frame)
        if self.line_held and not pending and self.state == HELD:
            self.line_held = False
            self.go_on()

    def busy(self, xid: int, op: int, work: operations.Slices) -> None:
        """The request at hand takes longer; what comes behind waits until `done`."""
        self.pending.appendleft((BUSY, xid, op, work))

    def settle(self) -> None:
        """End what is being worked on at the head of the line: its successor has its answer."""
        while self.pending and self.pending[0][0] == BUSY:
            self.pending[0][3].rush()

    def done(self) -> None:
        """The busy request has been answered."""
        if self.state == CLOSED:
            return
        self.pending.popleft()
        self.turn()
        self.flush()

    def flush(self) -> None:
        """Hand what is queued to the transport with one call."""
        if self.out and self.state != CLOSED:
            fe = self.fe
            fe.board[fe.slot] = fe.served.applied  # before anyone is told
            data = b"".join(self.out)
            fe.metrics.bytes_sent += len(data)
            self.transport.write(data)
            self.out.clear()
            if self.write_paused and self.transport.get_write_buffer_size() > OUT_LIMIT_BYTES:
                self.refuse("client.slow", limit=OUT_LIMIT_BYTES)

    # -- the end -------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The client's address as text."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def refuse(self, event: str, **more: Any) -> None:
        """Close because of what the client did, and say so in the log."""
        self.fe.log.warning(
            "client.refused", reason=event, client=self.peer, session=hex(self.session), **more
        )
        self.fe.metrics.refused.add(event)
        self.close(event)

    def close(self, reason: str) -> None:
        """End the connection; what was flushed still goes out."""
        if self.state == CLOSED:
            return
        self.transport.close()
        self._gone(reason)

    def _gone(self, reason: str) -> None:
        had = self.state in (STARTING, OPEN, HELD, CLOSING)
        self.state = CLOSED
        self.out.clear()
        self.buffer.clear()
        self.fe.disconnected(self, reason)
        self.pending.clear()
        if had:
            self.fe.ask(self, 0, GONE, reason)
