"""What servers say to each other on the election port.

    first message, of the connecting side only:
        long version (-65536, -65535)   long sid   int length   host:port[|host:port...]
        or, from before 3.5, a single long that is not negative: the sid
    then, in both directions:
        int length   notification

A notification has grown over the years: 28 bytes (no epoch), 40 (with the leader's epoch), then
with its version and the sender's configuration. `Notification.read` takes all of them and says
None for what Apache ZooKeeper drops silently.
Source: `quorum/QuorumCnxManager.java` (`InitialMessage`), `quorum/FastLeaderElection.java` of
Apache ZooKeeper; spec zab-quorum-protocol section 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from zkd.jute.codec import INT, LONG, Malformed, text

ONE_ADDRESS: Final = -65536
MANY_ADDRESSES: Final = -65535
ANONYMOUS: Final = (1 << 63) - 1
"""The sid of an observer that has none."""
ADDRESSES_MAX: Final = 2048
MESSAGE_MAX: Final = 512 * 1024
"""Longest notification on the wire."""
VERSION: Final = 0x2
"""Notifications with a configuration."""

LOOKING: Final = 0
FOLLOWING: Final = 1
LEADING: Final = 2
OBSERVING: Final = 3

_WILDCARDS = ("", "0.0.0.0", "::")
_INITIAL = Struct(">qqi")
_VOTE = Struct(">iqqqq")
"""state, leader, zxid, round, epoch of the leader."""
_OLD_BYTES = 28
_VOTE_BYTES = 40
"""The vote and a version, which is 0 whatever its four bytes say."""
_HEAD_BYTES = 44


class Initial(NamedTuple):
    """Who connects, and where its own election port is (nothing: it does not say)."""

    sid: int
    addresses: tuple[tuple[str, int], ...] = ()


def encode_initial(sid: int, addresses: Sequence[tuple[str, int]], *, many: bool) -> bytes:
    """The first message. `many`: in the form for several addresses (multiAddress.enabled); else
    only the first address is told."""
    told = addresses if many else addresses[:1]
    texts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in told]
    raw = "|".join(texts).encode()
    return _INITIAL.pack(MANY_ADDRESSES if many else ONE_ADDRESS, sid, len(raw)) + raw


def read_initial(buf: bytes) -> tuple[Initial, int] | None:
    """The first message of a connection and how long it is; None if bytes are missing. Raises
    Malformed, for a bad version or length as soon as it is there."""
    if len(buf) < 8:
        return None
    (version,) = LONG.unpack_from(buf)
    if version >= 0:
        return Initial(version), 8
    if version not in (ONE_ADDRESS, MANY_ADDRESSES):
        raise Malformed(f"unknown version {version} of the election protocol")
    if len(buf) < _INITIAL.size:
        return None
    _, sid, size = _INITIAL.unpack_from(buf)
    if not 0 < size <= ADDRESSES_MAX:
        raise Malformed(f"an address of {size} bytes, {ADDRESSES_MAX} is the most")
    end = _INITIAL.size + size
    if len(buf) < end:
        return None
    addresses = [_address(part) for part in text(buf[_INITIAL.size : end]).split("|")]
    return Initial(sid, tuple(a for a in addresses if a[0] not in _WILDCARDS)), end


def _address(told: str) -> tuple[str, int]:
    host, colon, port = told.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Malformed(f"{told!r} is not host:port")
    return host, int(port)


class Notification(NamedTuple):
    """A vote, and what its sender is doing."""

    state: int
    leader: int
    zxid: int
    round: int
    """electionEpoch, the sender's logical clock."""
    peer_epoch: int
    """Of the proposed leader."""
    version: int = VERSION
    """0: from a server before 3.4.6, or the like; less of such a vote is compared."""
    config: str = ""
    """The sender's committed configuration, as text; empty if it tells none."""

    def encode(self) -> bytes:
        """Without the length in front. Versions below 2 carry no configuration."""
        head = _VOTE.pack(self.state, self.leader, self.zxid, self.round, self.peer_epoch)
        if self.version < VERSION:
            return head + INT.pack(self.version)
        raw = self.config.encode()
        return head + INT.pack(self.version) + INT.pack(len(raw)) + raw

    @classmethod
    def read(cls, data: bytes) -> Notification | None:
        """From a message without its length; None for what must be dropped: too short, between
        the known lengths, or of a configuration that is longer than the message."""
        size = len(data)
        if size == _OLD_BYTES:
            state, leader, zxid, round_ = Struct(">iqqq").unpack(data)
            return cls(state, leader, zxid, round_, zxid >> 32, 0)
        if size < _VOTE_BYTES:
            return None
        vote: tuple[int, int, int, int, int] = _VOTE.unpack_from(data)
        if size == _VOTE_BYTES:
            return cls(*vote, version=0)
        if size < _HEAD_BYTES:
            (version,) = INT.unpack_from(data, 36)
            return cls(*vote, version=version) if version < VERSION else None
        version, length = Struct(">ii").unpack_from(data, 36)
        if version < VERSION:
            return cls(*vote, version=version)
        if not 0 <= length <= size - _HEAD_BYTES:
            return None
        return cls(*vote, version, text(data[_HEAD_BYTES : _HEAD_BYTES + length]))


def frame(message: bytes) -> bytes:
    """A notification as it goes over the wire."""
    return INT.pack(len(message)) + message


class MessageDecoder:
    """Finds notifications in a stream that comes in pieces of any size; bounded."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete with `data`. Raises Malformed for a bad length."""
        buf = self._buffer
        buf += data
        messages: list[bytes] = []
        pos = 0
        while len(buf) - pos >= 4:
            (size,) = INT.unpack_from(buf, pos)
            if not 0 < size <= MESSAGE_MAX:
                raise Malformed(f"a notification of {size} bytes, {MESSAGE_MAX} is the most")
            if len(buf) - pos - 4 < size:
                break
            messages.append(bytes(buf[pos + 4 : pos + 4 + size]))
            pos += 4 + size
        del buf[:pos]
        return messages
