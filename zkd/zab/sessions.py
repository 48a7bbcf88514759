"""Sessions: when they expire, whose they are, their ids and passwords.

    expiry = the first multiple of `tick_ms` after (last touch + timeout)

so a silent session lives for its timeout and up to one tick more. Sessions are filed in buckets by
expiry. A touch only writes the new expiry down; the session moves to its new bucket when the one
it is filed in is due. Times are milliseconds of a clock that never goes back, given by the caller.
Time that the server itself was stalled can be given back: it counts for nobody.

Ids and timeouts are signed numbers as on the wire. Nothing here reads a clock.
Source: `SessionTrackerImpl.java`, `ExpiryQueue.java`, `ZooKeeperServer.generatePasswd` of Apache
ZooKeeper; spec txn-and-storage-formats section 12.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Final

from zkd.jute.codec import wrap_long
from zkd.jute.protocol import Err

PASSWORD_BYTES: Final = 16
NO_PASSWORD: Final = bytes(PASSWORD_BYTES)

_CONTAINER_OWNER: Final = -0x8000000000000000
_SECRET: Final = 0xB3415C00
_MULTIPLIER: Final = 0x5DEECE66D
_MASK_48: Final = (1 << 48) - 1


def clamp_timeout(requested_ms: int, min_ms: int, max_ms: int) -> int:
    """The negotiated timeout."""
    return min(max(requested_ms, min_ms), max_ms)


def first_session_id(server_id: int, now_ms: int) -> int:
    """The first id that a server gives after its start.

    The top byte is the server, the next five are 40 bits of the clock, the last two count from 0.
    """
    clock = (now_ms << 24 & 0xFFFFFFFFFFFFFFFF) >> 8
    first = wrap_long(clock | server_id << 56)
    return first + 1 if first in (0, _CONTAINER_OWNER) else first


def next_session_id(session: int) -> int:
    """The id after `session`; 0 and the mark of containers are left out."""
    following = wrap_long(session + 1)
    return following + 1 if following in (0, _CONTAINER_OWNER) else following


def password_of(session: int, key: bytes | None = None) -> bytes:
    """The password of a session: 16 bytes that every server of an ensemble can compute.

    With a key it is an HMAC-SHA256 of the id, cut off. Without one it is what Apache ZooKeeper
    gives (`java.util.Random`), which anybody can compute: needed in a mixed ensemble.
    """
    if key:
        return hmac.digest(key, session.to_bytes(8, "big", signed=True), "sha256")[:PASSWORD_BYTES]
    state = (session ^ _SECRET ^ _MULTIPLIER) & _MASK_48
    password = b""
    for _ in range(4):
        state = (state * _MULTIPLIER + 0xB) & _MASK_48
        password += (state >> 16).to_bytes(4, "little")
    return password


def check_password(session: int, password: bytes | None, key: bytes | None = None) -> bool:
    """Is it the session's password? Never for session 0."""
    if session == 0 or password is None:
        return False
    return hmac.compare_digest(password_of(session, key), password)


class Session:
    """One session. `owner` is opaque: whoever's connection the session is on, None for nobody."""

    __slots__ = ("closing", "expiry", "filed", "id", "owner", "timeout_ms")

    def __init__(self, id_: int, timeout_ms: int, owner: object) -> None:
        self.id = id_
        self.timeout_ms = timeout_ms
        self.owner = owner
        self.closing = False
        self.expiry = 0  # in the tracker's own time
        self.filed = 0  # the bucket it is in; entries in others are void


class SessionTracker:
    """All sessions of an ensemble, or of a standalone server."""

    def __init__(self, tick_ms: int, sessions: dict[int, int] | None = None, now_ms: int = 0):
        """Begin with `sessions` (id to timeout), each with its full time from `now_ms` on."""
        self.tick_ms = tick_ms
        self.now_ms = now_ms
        """The latest time that `create` or `expire` was told."""
        self.given_back_ms = 0
        self._sessions: dict[int, Session] = {}
        self._buckets: dict[int, list[Session]] = {}
        self._next = self._bucket(now_ms)
        for session, timeout_ms in (sessions or {}).items():
            self.create(session, timeout_ms, now_ms)

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session: int) -> bool:
        return session in self._sessions

    def __iter__(self) -> Iterator[int]:
        return iter(self._sessions)

    def _bucket(self, own_ms: int) -> int:
        return (own_ms // self.tick_ms + 1) * self.tick_ms

    # ---- life

    def create(self, session: int, timeout_ms: int, now_ms: int, owner: object = None) -> None:
        """A session begins, or begins anew: re-attached with another timeout, taken over."""
        self.now_ms = max(self.now_ms, now_ms)
        found = self._sessions.get(session)
        if found is None:
            found = self._sessions[session] = Session(session, timeout_ms, owner)
        else:
            found.timeout_ms = timeout_ms
            found.closing = False
            if owner is not None:
                found.owner = owner
        found.expiry = self._bucket(now_ms - self.given_back_ms + timeout_ms)
        if not found.filed or found.expiry < found.filed:
            self._file(found)

    def touch(self, session: int, now_ms: int, timeout_ms: int | None = None) -> bool:
        """Its client was heard of, and has this timeout now (None: as before). False if the session
        is unknown or closing."""
        found = self._sessions.get(session)
        if found is None or found.closing:
            return False
        if timeout_ms is not None:
            found.timeout_ms = timeout_ms
        tick = self.tick_ms
        expiry = ((now_ms - self.given_back_ms + found.timeout_ms) // tick + 1) * tick
        if expiry > found.expiry:
            found.expiry = expiry
        return True

    def set_closing(self, session: int) -> None:
        """The transaction that closes it is on the way."""
        found = self._sessions.get(session)
        if found is not None:
            found.closing = True

    def close(self, session: int) -> None:
        """The session is over."""
        self._sessions.pop(session, None)

    def expire(self, now_ms: int) -> list[int]:
        """Sessions whose time is over, the longest silent first; they are closing from now on."""
        self.now_ms = max(self.now_ms, now_ms)
        own_ms = now_ms - self.given_back_ms
        if own_ms < self._next:
            return []
        self._next = self._bucket(own_ms)
        expired: list[int] = []
        for due in sorted(bucket for bucket in self._buckets if bucket <= own_ms):
            for session in self._buckets.pop(due):
                if session.filed != due or self._sessions.get(session.id) is not session:
                    continue
                if session.expiry > own_ms:
                    self._file(session)
                    continue
                session.filed = 0
                if not session.closing:
                    session.closing = True
                    expired.append(session.id)
        return expired

    def next_expiry_ms(self) -> int:
        """When `expire` has something to look at again."""
        return self._next + self.given_back_ms

    def give_back(self, stall_ms: int) -> None:
        """The server was stalled for so long: every expiry moves by as much."""
        self.given_back_ms += stall_ms

    def _file(self, session: Session) -> None:
        session.filed = session.expiry
        self._buckets.setdefault(session.expiry, []).append(session)

    # ---- owners

    def check(self, session: int, owner: object, *, global_: bool = False) -> int:
        """0 if `owner` may write for the session; else UNKNOWN_SESSION, SESSION_EXPIRED or
        SESSION_MOVED. A session of nobody becomes the owner's.

        `global_` is the form for ephemerals, to which an unknown session is expired.
        """
        found = self._sessions.get(session)
        if found is None:
            return Err.SESSION_EXPIRED if global_ else Err.UNKNOWN_SESSION
        if found.closing:
            return Err.SESSION_EXPIRED
        if found.owner is None:
            found.owner = owner
        elif found.owner != owner:
            return Err.SESSION_MOVED
        return 0

    def set_owner(self, session: int, owner: object) -> bool:
        """Another connection has the session; False if it is unknown or closing."""
        found = self._sessions.get(session)
        if found is None or found.closing:
            return False
        found.owner = owner
        return True

    # ---- seen from outside

    def timeout_of(self, session: int) -> int:
        """The timeout in ms, also of a session that has just expired; KeyError if unknown."""
        return self._sessions[session].timeout_ms

    def dump(self) -> list[tuple[int, int, int]]:
        """(session, timeout in ms, time of expiry in ms), in the order of expiry."""
        back = self.given_back_ms
        entries = [(one.id, one.timeout_ms, one.expiry + back) for one in self._sessions.values()]
        return sorted(entries, key=lambda entry: (entry[2], entry[0]))

    def buckets(self) -> list[tuple[int, list[int]]]:
        """(time of expiry in ms, sessions), in the order of expiry: the word `dump`."""
        found: dict[int, list[int]] = {}
        for session, _, expires_ms in self.dump():
            found.setdefault(expires_ms, []).append(session)
        return list(found.items())
