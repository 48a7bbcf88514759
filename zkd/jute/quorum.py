"""QuorumPackets: what servers say to each other on the quorum port.

    int type   long zxid   buffer data   vector<Id{ustring scheme, ustring id}> authinfo

The packets stand back to back in the stream without any length around them: a reader must take a
packet apart to find its end. A packet is the plain tuple `(type, zxid, data, authinfo)`; data None
(null) and b"" are different things, authinfo None is null. The data of each type have their pair of
functions here; a function `read_...` raises `Malformed`.
Source: `zookeeper.jute`, `quorum/Leader.java`, `quorum/Learner.java`, `quorum/LearnerHandler.java`
of Apache ZooKeeper; spec zab-quorum-protocol sections 3, 7 and 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final, NamedTuple

from zkd.jute.codec import DEFAULT_LIMIT, INT, LONG, NULL, Malformed, string, text

Authinfo = tuple[tuple[str, str], ...] | None
"""(scheme, id) of a client."""

Packet = tuple[int, int, bytes | None, Authinfo]
"""type, zxid, data, authinfo."""


class Kind:
    """Packet types."""

    REQUEST: Final = 1
    PROPOSAL: Final = 2
    ACK: Final = 3
    COMMIT: Final = 4
    PING: Final = 5
    REVALIDATE: Final = 6
    SYNC: Final = 7
    INFORM: Final = 8
    COMMIT_AND_ACTIVATE: Final = 9
    NEW_LEADER: Final = 10
    FOLLOWER_INFO: Final = 11
    UP_TO_DATE: Final = 12
    DIFF: Final = 13
    TRUNC: Final = 14
    SNAP: Final = 15
    OBSERVER_INFO: Final = 16
    LEADER_INFO: Final = 17
    ACK_EPOCH: Final = 18
    INFORM_AND_ACTIVATE: Final = 19


NAMES: Final[dict[int, str]] = {
    value: name.replace("_", "") for name, value in vars(Kind).items() if isinstance(value, int)
}
"""Names as Apache ZooKeeper's logs have them."""

PROTOCOL_VERSION: Final = 0x10000
IDS_MAX: Final = 4096
"""Identities of one client that a packet may carry."""

_HEAD = Struct(">iqi")
"""type, zxid, length of data."""
_BARE = Struct(">iqii")
"""A whole packet without data and authinfo."""
_LEARNER_INFO = Struct(">qiq")
_TOUCH = Struct(">qi")
_REQUEST = Struct(">qii")
_VALID = Struct(">q?")
_HEAD_BYTES = 16


def name(kind: int) -> str:
    """The name of a packet type, for logs."""
    return NAMES.get(kind, f"type {kind}")


# -- packets -----------------------------------------------------------------------------------


def encode(kind: int, zxid: int, data: bytes | None = None, authinfo: Authinfo = None) -> bytes:
    """One packet's bytes."""
    if authinfo is None:
        if data is None:
            return _BARE.pack(kind, zxid, -1, -1)
        return b"%b%b%b" % (_HEAD.pack(kind, zxid, len(data)), data, NULL)
    parts = [_HEAD.pack(kind, zxid, -1 if data is None else len(data)), data or b""]
    parts.append(INT.pack(len(authinfo)))
    for scheme, identity in authinfo:
        parts += (string(scheme), string(identity))
    return b"".join(parts)


def encode_proposals(txns: Iterable[tuple[int, bytes]], kind: int = Kind.PROPOSAL) -> bytes:
    """A run of PROPOSAL (or INFORM) packets of (zxid, body)."""
    pack = _HEAD.pack
    return b"".join([b"%b%b%b" % (pack(kind, z, len(body)), body, NULL) for z, body in txns])


def encode_history(txns: Iterable[tuple[int, bytes]]) -> bytes:
    """PROPOSAL and COMMIT of each (zxid, body): how a learner is brought up to date."""
    pack, bare = _HEAD.pack, _BARE.pack
    return b"".join(
        [
            b"%b%b%b%b"
            % (pack(Kind.PROPOSAL, z, len(body)), body, NULL, bare(Kind.COMMIT, z, -1, -1))
            for z, body in txns
        ]
    )


def encode_commits(zxids: Iterable[int]) -> bytes:
    """A run of COMMIT packets."""
    pack = _BARE.pack
    return b"".join([pack(Kind.COMMIT, zxid, -1, -1) for zxid in zxids])


def encode_acks(zxids: Iterable[int]) -> bytes:
    """A run of ACK packets: a learner acknowledges every proposal by itself."""
    pack = _BARE.pack
    return b"".join([pack(Kind.ACK, zxid, -1, -1) for zxid in zxids])


class PacketDecoder:
    """Finds packets in a stream that comes in pieces of any size.

    Holds at most one packet that is not complete, and refuses a length above `limit` as soon as it
    is read. Behind a SNAP other bytes follow than packets: there it stops, and holds what it has
    until `take_rest` or `go_on`.
    """

    __slots__ = ("_buffer", "_need", "limit", "stopped")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        """Longest data, and longest authinfo, in bytes: jute.maxbuffer and its extra size."""
        self.stopped = False
        """A SNAP was found: the bytes behind it are not packets."""
        self._buffer = bytearray()
        self._need = 1

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are complete with `data`, in order. Raises Malformed; nothing that
        comes later has a meaning then."""
        held = self._buffer
        if held or self.stopped:
            held += data
            if self.stopped or len(held) < self._need:
                return []
            packets, pos = self._parse(held)
            del held[:pos]
            return packets
        packets, pos = self._parse(data)
        if pos < len(data):
            held += memoryview(data)[pos:]
        return packets

    def take_rest(self) -> bytes:
        """What was fed and is in no packet yet; the decoder is empty then, and not stopped."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._need = 1
        self.stopped = False
        return rest

    def go_on(self, data: bytes = b"") -> list[Packet]:
        """Behind the bytes that followed a SNAP: `data` and what comes now are packets again."""
        return self.feed(self.take_rest() + data)

    def _parse(self, buf: bytes | bytearray) -> tuple[list[Packet], int]:
        """The complete packets of `buf`, and where the rest begins; sets how much it needs."""
        packets: list[Packet] = []
        pos, end, limit = 0, len(buf), self.limit
        unpack = _HEAD.unpack_from
        while True:
            at = pos + _HEAD_BYTES
            if at + 4 > end:
                self._need = _HEAD_BYTES if end < at else self._checked(buf, pos)
                break
            kind, zxid, size = unpack(buf, pos)
            data: bytes | None = None
            if size != -1:
                if size < 0 or size > limit:
                    self._checked(buf, pos)
                after = at + size
                if after + 4 > end:
                    self._need = after + 4 - pos
                    break
                data = bytes(buf[at:after])
                at = after
            if buf[at : at + 4] == NULL:
                packets.append((kind, zxid, data, None))
                pos = at + 4
            else:
                authinfo, after = self._authinfo(buf, at, kind)
                if after > end:
                    self._need = after - pos
                    break
                packets.append((kind, zxid, data, authinfo))
                pos = after
            if kind == Kind.SNAP:
                self.stopped = True
                break
        return packets, pos

    def _checked(self, buf: bytes | bytearray, pos: int) -> int:
        """How many bytes the packet at `pos` needs at least, by its head."""
        kind, _, size = _HEAD.unpack_from(buf, pos)
        if size < -1 or size > self.limit:
            raise Malformed(
                f"a packet of {name(kind)} claims {size} bytes of data, {self.limit} is the most"
                " (no ZooKeeper server, or another jute.maxbuffer)"
            )
        return _HEAD_BYTES + max(int(size), 0) + 4

    def _authinfo(self, buf: bytes | bytearray, pos: int, kind: int) -> tuple[Authinfo, int]:
        """The identities at `pos` and where they end; (None, at least so many) if some bytes are
        missing."""
        (count,) = INT.unpack_from(buf, pos)
        if count > IDS_MAX:
            raise Malformed(f"a packet of {name(kind)} claims {count} identities")
        start, end = pos, len(buf)
        pos += 4
        texts: list[str] = []
        for left in range(2 * count, 0, -1):
            if pos + 4 * left > end:
                return None, pos + 4 * left
            (size,) = INT.unpack_from(buf, pos)
            pos += 4
            if size < -1 or pos + size - start > self.limit:
                raise Malformed(f"a packet of {name(kind)} has an identity of {size} bytes")
            after = pos + max(size, 0)
            if after > end:
                return None, after + 4 * (left - 1)
            texts.append(text(bytes(buf[pos:after])))
            pos = after
        return tuple(zip(texts[::2], texts[1::2], strict=True)), pos


# -- the data of packets -----------------------------------------------------------------------


class LearnerInfo(NamedTuple):
    """FOLLOWERINFO and OBSERVERINFO."""

    sid: int | None
    """None: the learner does not say; the leader invents a negative one."""
    protocol_version: int = PROTOCOL_VERSION
    config_version: int = 0
    """Of the configuration that the learner has committed."""

    def encode(self) -> bytes:
        """20 bytes; `sid` must be known."""
        return _LEARNER_INFO.pack(*self)

    @classmethod
    def read(cls, data: bytes | None) -> LearnerInfo:
        """Also the shorter forms of old servers: without configuration, without version."""
        if data is None:
            return cls(None, 1)
        if len(data) >= _LEARNER_INFO.size:
            return cls(*_LEARNER_INFO.unpack_from(data))
        if len(data) >= 12:
            return cls(*_TOUCH.unpack_from(data))
        return cls(read_long(data, "LearnerInfo"), 1)


def read_int(data: bytes | None, what: str) -> int:
    """The int of LEADERINFO (protocol version) or ACKEPOCH (current epoch, -1: accepted before)."""
    if data is None or len(data) < 4:
        raise Malformed(f"{what} without its number")
    return int(INT.unpack_from(data)[0])


def read_long(data: bytes | None, what: str) -> int:
    """The long that COMMITANDACTIVATE and INFORMANDACTIVATE begin with: the designated leader."""
    if data is None or len(data) < 8:
        raise Malformed(f"{what} without its number")
    return int(LONG.unpack_from(data)[0])


def touches(table: Mapping[int, int]) -> bytes:
    """A learner's answer to PING: session -> timeout in ms. Never null, b"" if there are none."""
    return b"".join([_TOUCH.pack(session, timeout) for session, timeout in table.items()])


def read_touches(data: bytes | None) -> list[tuple[int, int]]:
    """(session, timeout in ms) of a PING."""
    if not data:
        return []
    if len(data) % _TOUCH.size:
        raise Malformed(f"a touch table of {len(data)} bytes")
    return list(_TOUCH.iter_unpack(data))


def request(session: int, cxid: int, op: int, body: bytes) -> bytes:
    """REQUEST: a client's request as its learner forwards it."""
    return _REQUEST.pack(session, cxid, op) + body


def read_request(data: bytes | None) -> tuple[int, int, int, bytes]:
    """(session, cxid, operation, body)."""
    if data is None or len(data) < _REQUEST.size:
        raise Malformed("a REQUEST without its head")
    session, cxid, op = _REQUEST.unpack_from(data)
    return session, cxid, op, data[_REQUEST.size :]


def revalidate(session: int, timeout_ms: int) -> bytes:
    """REVALIDATE: a learner asks for a session."""
    return _TOUCH.pack(session, timeout_ms)


def read_revalidate(data: bytes | None) -> tuple[int, int]:
    """(session, timeout in ms)."""
    if data is None or len(data) < _TOUCH.size:
        raise Malformed("a REVALIDATE without its session")
    session, timeout = _TOUCH.unpack_from(data)
    return session, timeout


def revalidated(session: int, valid: bool) -> bytes:
    """REVALIDATE: the leader's answer."""
    return _VALID.pack(session, valid)


def read_revalidated(data: bytes | None) -> tuple[int, bool]:
    """(session, valid)."""
    if data is None or len(data) < _VALID.size:
        raise Malformed("an answer to REVALIDATE without its session")
    session, valid = _VALID.unpack_from(data)
    return session, valid


def designate(leader: int, body: bytes = b"") -> bytes:
    """COMMITANDACTIVATE: who leads from now on; with the transaction: INFORMANDACTIVATE."""
    return LONG.pack(leader) + body
