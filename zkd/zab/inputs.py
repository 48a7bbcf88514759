"""What the driver tells the core. Every value goes through `Peer.step(input, now_ms)`.

`conn` is a number that the driver gives to each quorum connection, of a learner here or of this
learner to its leader, and never gives again. What comes for a connection that the core has closed,
or that belonged to an earlier role, is ignored: it was on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zkd.config.servers import Membership
from zkd.jute.quorum import Packet
from zkd.zab.votes import Notification

Txn = tuple[int, bytes]
"""zxid, and the bytes of its PROPOSAL: TxnHeader, record, optional digest."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: at least every tickTime/4, and when `Peer.deadline_ms` has come.

    `delivered`: of the election's messages, those to one server at least have been sent.
    """

    delivered: bool = True


# ---- the network


@dataclass(frozen=True, slots=True)
class Notified:
    """A notification of the election port."""

    from_sid: int
    notification: Notification


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection that `Connect` asked for stands; TLS and SASL are done."""

    conn: int


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """It does not, after all tries. Means nothing once the role is another."""

    reason: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A learner has connected to this leader."""

    conn: int


@dataclass(frozen=True, slots=True)
class Received:
    """Packets of one connection, in their order. What follows a SNAP and its stream is handed in
    after `SnapshotReceived`."""

    conn: int
    packets: Sequence[Packet]


@dataclass(frozen=True, slots=True)
class Disconnected:
    conn: int
    reason: str = ""


# ---- the disk: answers in the order of what was asked


@dataclass(frozen=True, slots=True)
class Appended:
    """All that `Append` brought up to this zxid is durable."""

    upto: int


@dataclass(frozen=True, slots=True)
class EpochsSaved:
    accepted: int
    current: int


@dataclass(frozen=True, slots=True)
class Truncated:
    """The log ends at this zxid."""

    zxid: int


@dataclass(frozen=True, slots=True)
class SnapshotReceived:
    """The snapshot is complete, good and durable beside log and tree, which are what they were."""

    zxid: int


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """The stream broke off or was no snapshot."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """The snapshot is in the place of log and tree, with all that `InstallSnapshot` names."""

    zxid: int


# ---- leader


@dataclass(frozen=True, slots=True)
class Propose:
    """Transactions prepared, in order, the first of them at `Peer.next_zxid`."""

    txns: Sequence[Txn]


@dataclass(frozen=True, slots=True)
class SnapshotStarted:
    """SNAP with this zxid and the snapshot's stream have been queued on the connection, as
    `SendSnapshot` asked. The zxid is delivered here, and no row above it has left the log."""

    conn: int
    zxid: int


@dataclass(frozen=True, slots=True)
class Sent:
    """All that was queued on the connection is written: the time for its answer begins.

    Told at least after a snapshot and after a history."""

    conn: int


@dataclass(frozen=True, slots=True)
class LearnerSync:
    """`LearnerRequest` of a sync, given back when all that came before it is proposed."""

    conn: int


@dataclass(frozen=True, slots=True)
class RevalidateAnswer:
    """The answer to `RevalidateAsked`."""

    conn: int
    session: int
    valid: bool


# ---- learner


@dataclass(frozen=True, slots=True)
class Forward:
    """Requests of this server's clients for the leader, each the data of a REQUEST
    (`zkd.jute.quorum.request`) and the client's identities. Not the syncs."""

    requests: Sequence[tuple[bytes, tuple[tuple[str, str], ...] | None]]


@dataclass(frozen=True, slots=True)
class Revalidate:
    """A client has come with a session that another server had."""

    session: int
    timeout_ms: int


# ---- either


@dataclass(frozen=True, slots=True)
class Sync:
    """A client of this server syncs; `Synced(tag)` answers. `data` is that of its REQUEST."""

    tag: int
    data: bytes = b""
    authinfo: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Oracle:
    """What the file of `oraclePath` says; None: it is not set. Matters with two voters only.

    Handed in when the server starts and when it changes. A file that cannot be read says ""."""

    said: str | None


@dataclass(frozen=True, slots=True)
class Configured:
    """The configurations that hold from now on."""

    committed: Membership
    last_seen: Membership | None = None


Input = (
    Tick
    | Notified
    | Connected
    | ConnectFailed
    | Accepted
    | Received
    | Disconnected
    | Appended
    | EpochsSaved
    | Truncated
    | SnapshotReceived
    | SnapshotFailed
    | SnapshotInstalled
    | Propose
    | SnapshotStarted
    | Sent
    | LearnerSync
    | RevalidateAnswer
    | Forward
    | Revalidate
    | Sync
    | Oracle
    | Configured
)
