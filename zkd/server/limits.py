"""Limits and throttles of clients, as values: no clock, no socket, no randomness of their own.

Each class has the meaning of its counterpart in Apache ZooKeeper and the same keys. Times are
integer milliseconds of any monotonic clock, the same one for all calls of one object. One object
lives in one process (several front-ends divide a server's limits: see `ConnectionCounter` and
`OutstandingLimit` for what comes from the others). Switched off, each costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from zkd.config.sections.limits import LimitSettings


class SessionKind(IntEnum):
    """What a connect request asks for; it decides how many tokens it takes."""

    LOCAL = 0
    RENEW = 1
    GLOBAL = 2


@dataclass(frozen=True, slots=True)
class Weights:
    """Tokens of each kind of session; invalid ones are replaced as BlueThrottle.java does."""

    local: int
    renew: int
    global_: int

    @classmethod
    def of(cls, settings: LimitSettings) -> Weights:
        told = settings.connection_throttle_local_session_weight
        local = told if told > 0 else 1
        renew = settings.connection_throttle_renew_session_weight
        new = settings.connection_throttle_global_session_weight
        return cls(
            local,
            max(renew, told) if renew > 0 else 2,
            max(new, told) if new > 0 else 3,
        )


class ConnectionThrottle:
    """The token bucket of new sessions, with BLUE's random drops before it (BlueThrottle.java).

    A bucket of 0 tokens is off. A freeze time of -1 switches the random drops off. `random` gives
    a number in [0, 1). Invariant: tokens <= max_tokens; 0 <= drop_chance <= 1.
    """

    def __init__(
        self, settings: LimitSettings, now_ms: int, random: Callable[[], float], *, share: int = 1
    ) -> None:
        self._random = random
        self._last_fill = now_ms
        self._last_freeze = now_ms
        self.drop_chance = 0.0
        self.max_tokens = 0
        self.tokens = 0
        self.configure(settings, share=share)

    def configure(self, settings: LimitSettings, *, share: int = 1) -> None:
        """Take (new) settings; what is missing in the bucket stays missing.

        `share`: number of front-ends that divide the bucket and its filling between them.
        """
        self.weighted = settings.connection_throttle_weight_enabled
        self.weights = Weights.of(settings)
        unit = self.weights.global_ if self.weighted else 1
        missing = self.max_tokens - self.tokens
        tokens = settings.connection_throttle_tokens * unit
        self.max_tokens = -(-tokens // share)
        self.tokens = self.max_tokens - missing
        self._fill_count = settings.connection_throttle_fill_count * unit
        self._fill_time = settings.connection_throttle_fill_time * share
        self._freeze_time = settings.connection_throttle_freeze_time
        self._increase = settings.connection_throttle_drop_increase
        self._decrease = settings.connection_throttle_drop_decrease
        self._decrease_point = settings.connection_throttle_decrease_ratio

    @property
    def deficit(self) -> int:
        """Tokens that are missing: the metric connection_token_deficit."""
        return self.max_tokens - self.tokens

    def need(self, kind: SessionKind) -> int:
        """Tokens that a session of this kind takes."""
        if not self.weighted:
            return 1
        return (self.weights.local, self.weights.renew, self.weights.global_)[kind]

    def admits(self, kind: SessionKind, now_ms: int) -> bool:
        """Whether a connect request may go on; if so its tokens are taken."""
        if not self.max_tokens:
            return True
        self._fill(now_ms)
        if self._freeze_time != -1 and self._drops(now_ms):
            return False
        need = self.need(kind)
        if self.tokens < need:
            return False
        self.tokens -= need
        return True

    def _fill(self, now_ms: int) -> None:
        passed = now_ms - self._last_fill
        if passed > self._fill_time:
            refill = passed * self._fill_count // self._fill_time
            self.tokens = min(self.tokens + refill, self.max_tokens)
            self._last_fill = now_ms

    def _drops(self, now_ms: int) -> bool:
        if now_ms - self._last_freeze > self._freeze_time:
            threshold = int(self.max_tokens * self._decrease_point + 0.5)
            if self.deficit == self.max_tokens and self.drop_chance < 1:
                self.drop_chance = min(self.drop_chance + self._increase, 1.0)
            elif self.deficit <= threshold and self.drop_chance > 0:
                self.drop_chance = max(self.drop_chance - self._decrease, 0.0)
            self._last_freeze = now_ms
        return self._random() < self.drop_chance


class Verdict(IntEnum):
    """What becomes of a request at the throttle. STALL: ask again on a reply or after the pause."""

    PASS = 0
    STALL = 1
    DROP = 2
    REFUSE = 3


class RequestThrottle:
    """Stalls requests before the pipeline, drops stale ones, refuses late ones.

    Source: RequestThrottler.java, Request.java (isStale, isThrottlable). DROP means that the
    connection is closed and all that it still sends is dropped, so that the order of its requests
    holds; REFUSE that the request goes on and is answered THROTTLEDOP (-127) in its turn.
    """

    __slots__ = (
        "_by_connection",
        "_by_latency",
        "_drop_stale",
        "max_requests",
        "op_wait_time",
        "stall_time",
    )

    def __init__(self, settings: LimitSettings) -> None:
        self.configure(settings)

    def configure(self, settings: LimitSettings) -> None:
        self.max_requests = settings.request_throttle_max_requests
        self.stall_time = settings.request_throttle_stall_time
        self.op_wait_time = settings.throttled_op_wait_time
        self._drop_stale = settings.request_throttle_drop_stale
        self._by_connection = settings.request_stale_connection_check
        self._by_latency = settings.request_stale_latency_check

    @property
    def on(self) -> bool:
        """Off, every request passes and nobody needs to ask."""
        return self.max_requests > 0 or self.op_wait_time > 0

    def stale(
        self, *, closed: bool, closes_session: bool, age_ms: int, session_timeout_ms: int
    ) -> bool:
        """Whether nobody waits for the answer any more. closeSession never is."""
        if closes_session:
            return False
        if self._by_connection and closed:
            return True
        return self._by_latency and age_ms > session_timeout_ms

    def verdict(
        self, in_process: int, waited_ms: int, *, stale: bool, throttlable: bool
    ) -> Verdict:
        """Judge a request that has waited here since `waited_ms` ago.

        `in_process`: requests of the whole server in the pipeline. `throttlable`: not a ping, not
        the beginning or end of a session.
        """
        if self.max_requests:
            if stale and self._drop_stale:
                return Verdict.DROP
            if in_process >= self.max_requests:
                return Verdict.STALL
        if throttlable and 0 < self.op_wait_time < waited_ms:
            return Verdict.REFUSE
        return Verdict.PASS


class LargeRequestBudget:
    """Bytes of large requests in flight (ZooKeeperServer.java, checkRequestSize...).

    A request that is refused costs its connection. `in_flight` is what was admitted and not yet
    given back. Off with a threshold of -1.
    """

    __slots__ = ("in_flight", "max_bytes", "rejected", "threshold")

    def __init__(self, settings: LimitSettings) -> None:
        self.in_flight = 0
        self.rejected = 0
        self.configure(settings)

    def configure(self, settings: LimitSettings) -> None:
        self.threshold = settings.large_request_threshold
        self.max_bytes = settings.large_request_max_bytes

    def could_admit(self, length: int, others: int = 0) -> bool:
        """Judge by a frame's length alone, before its bytes have come; takes nothing."""
        if self.threshold == -1 or length <= self.threshold:
            return True
        if self.in_flight + others + length <= self.max_bytes:
            return True
        self.rejected += 1
        return False

    def admit(self, length: int, others: int = 0) -> int:
        """Take a whole request in: the bytes to give back with `finish`, or -1 if it is refused.

        `others`: bytes of large requests in flight at the other front-ends.
        """
        if self.threshold == -1 or length <= self.threshold:
            return 0
        if self.in_flight + others + length > self.max_bytes:
            self.rejected += 1
            return -1
        self.in_flight += length
        return length

    def finish(self, taken: int) -> None:
        """The request is answered or dropped; `taken` is what `admit` gave."""
        self.in_flight -= taken


class ConnectionCounter:
    """Connections by address and in all: maxClientCnxns and maxCnxns.

    Source: NIOServerCnxnFactory.java (doAccept), ServerCnxnFactory.java (maxCnxns). An address is
    the text without port and zone, IPv4 in IPv6 already unwrapped. Own connections are counted by
    `add` and `remove`; `set_others` tells those of the other front-ends, as of their last word.
    0 is without limit. Addresses without a connection take no memory.
    """

    __slots__ = ("_other_total", "_others", "_own", "max_per_address", "max_total", "total")

    def __init__(self, settings: LimitSettings) -> None:
        self._own: dict[str, int] = {}
        self._others: Mapping[str, int] = {}
        self._other_total = 0
        self.total = 0
        self.configure(settings)

    def configure(self, settings: LimitSettings) -> None:
        self.max_per_address = settings.max_client_cnxns
        self.max_total = settings.max_cnxns

    def set_others(self, counts: Mapping[str, int], total: int | None = None) -> None:
        """Connections at the other front-ends by address; `total` if `counts` is not all."""
        self._others = counts
        self._other_total = sum(counts.values()) if total is None else total

    def refusal(self, address: str) -> str:
        """Why one more connection from this address is refused; empty if it is not."""
        if 0 < self.max_total <= self.total + self._other_total:
            return f"Too many connections max allowed is {self.max_total}"
        if 0 < self.max_per_address <= self.count(address):
            return f"Too many connections from /{address} - max is {self.max_per_address}"
        return ""

    def count(self, address: str) -> int:
        """Connections from an address over all front-ends."""
        return self._own.get(address, 0) + self._others.get(address, 0)

    def admit(self, address: str) -> str:
        """Count a new connection, unless it is refused: then the reason."""
        reason = self.refusal(address)
        if not reason:
            self.add(address)
        return reason

    def add(self, address: str) -> None:
        """Count a connection, even if it is one too many."""
        self._own[address] = self._own.get(address, 0) + 1
        self.total += 1

    def remove(self, address: str) -> None:
        """A connection that `add` counted has ended."""
        left = self._own[address] - 1
        if left:
            self._own[address] = left
        else:
            del self._own[address]
        self.total -= 1

    def own(self) -> Mapping[str, int]:
        """This front-end's counts, to be told to the others. Not a copy."""
        return self._own


class OutstandingLimit:
    """Back-pressure by globalOutstandingLimit (ZooKeeperServer.java, shouldThrottle).

    Above the limit the server stops reading from connections that have requests outstanding, and
    reads again when their last one is answered or the limit is no longer exceeded. In an ensemble
    the limit is divided by the number of other voters (LeaderZooKeeperServer.java,
    FollowerZooKeeperServer.java).
    """

    __slots__ = ("_settings_limit", "limit")

    def __init__(self, settings: LimitSettings, voters: int = 1) -> None:
        self.configure(settings, voters)

    def configure(self, settings: LimitSettings, voters: int = 1) -> None:
        """`voters`: voting members of the ensemble, 1 standalone."""
        self._settings_limit = settings.global_outstanding_limit
        self.set_voters(voters)

    def set_voters(self, voters: int) -> None:
        self.limit = self._settings_limit // (voters - 1 if voters > 2 else 1)

    def exceeded(self, in_process: int) -> bool:
        """`in_process`: requests of the whole server that were read and not yet answered."""
        return in_process > self.limit

    def stops(self, in_process: int, outstanding: int) -> bool:
        """Whether to stop reading from a connection with `outstanding` requests of its own."""
        return in_process > self.limit and outstanding > 0
