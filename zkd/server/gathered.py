"""What the processes of a server tell of themselves when a front-end gathers it.

Plain dicts, since they travel over the bus; made by `words.py`, `peer_statistics.py` and
`storage.py`, read by `fourletter.py`. A session id is a signed 64-bit int.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict


class Connection(TypedDict):
    """One client connection, as its front-end counts it. Times are in milliseconds."""

    address: str
    """Numeric address of the client."""
    port: int
    interest: int
    """1 if it is read from, plus 4 if replies wait to be written (SelectionKey's bits)."""
    queued: int
    """Requests read and not yet answered."""
    recved: int
    sent: int
    sid: int
    """0 as long as it has no session; then what follows is not shown."""
    lop: str
    """The last operation: GETD, PING, ...; NA."""
    established_ms: int
    """Unix time at which it was accepted."""
    timeout_ms: int
    lcxid: int
    """The last xid; below 0: none."""
    lzxid: int
    """The last zxid told to it; -1: none."""
    lresp_ms: int
    """Unix time of the last reply."""
    llat: int
    minlat: int
    avglat: int
    maxlat: int
    expires_ms: int
    """Unix time at which it is closed if nothing more is heard of it."""


class FrontEnd(TypedDict):
    """What a front-end answers; the optional parts only if `parts(word)` names them."""

    name: str
    packets_received: int
    packets_sent: int
    connection_count: int
    outstanding: int
    latency_count: int
    latency_total: int
    """Sum of the latencies of `latency_count` requests, milliseconds."""
    latency_min: int
    latency_max: int
    """Both without meaning while latency_count is 0."""
    watch_connections: int
    """Connections with at least one data, exist or persistent watch; child watches are not
    counted here nor listed below, as in Apache ZooKeeper."""
    watch_paths: int
    watch_count: int
    trace_mask: int
    connections: NotRequired[list[Connection]]
    watches_by_session: NotRequired[dict[int, list[str]]]
    metrics: NotRequired[dict[str, Any]]
    """`Metrics.dump()`."""


class Session(TypedDict):
    sid: int
    timeout_ms: int
    expires_ms: int
    """Unix time of the bucket in which it expires unless it is heard of."""


class Peer(TypedDict):
    """What the peer answers; the optional parts only if `parts(word)` names them."""

    mode: str
    """leader, follower, observer, standalone or read-only."""
    serving: bool
    read_only: bool
    zxid: int
    node_count: int
    uptime_ms: int
    server_id: int
    """0 standalone."""
    state: NotRequired[str]
    """`peer_state` of mntr, such as "leading - broadcast"; only in an ensemble."""
    proposal_sizes: NotRequired[tuple[int, int, int]]
    """Leader only: last, least and greatest proposal in bytes; -1 before the first."""
    leader_id: NotRequired[int]
    leader_address: NotRequired[str]
    sessions: NotRequired[list[Session]]
    ephemerals: NotRequired[dict[int, list[str]]]
    digests: NotRequired[list[tuple[int, int]]]
    """(zxid, digest of the tree at it), the digest unsigned."""
    metrics: NotRequired[dict[str, Any]]


class Storage(TypedDict):
    """What the storage process answers; the optional parts only if `parts(word)` names them."""

    data_dir_size: NotRequired[int]
    """Bytes in dataDir and, below, in dataLogDir: both are the part "sizes"."""
    log_dir_size: NotRequired[int]
    metrics: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """The processes' answers; None and a name in `missing` for each that was too late."""

    frontends: list[FrontEnd | None]
    peer: Peer | None
    storage: Storage | None
    missing: list[str]

    @property
    def answered(self) -> list[FrontEnd]:
        return [frontend for frontend in self.frontends if frontend is not None]
