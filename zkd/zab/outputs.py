"""What the core asks of its driver. A list of them is carried out in its order.

Those for the disk go to the one writer in order, and are answered in order by the input named
beside each. What the core waits for before it tells others, it waits for itself: a `Send...` may
leave at once. Those for a connection are queued on it in order, behind a history or a snapshot that
is still being sent; what is for a connection that is gone is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zkd.config.servers import Membership
from zkd.jute.quorum import Authinfo, Packet
from zkd.zab.inputs import Txn
from zkd.zab.votes import Notification, ServerState

# ---- the disk


@dataclass(frozen=True, slots=True)
class Append:
    """Write rows to the log: `Appended`."""

    txns: Sequence[Txn]


@dataclass(frozen=True, slots=True)
class SaveEpochs:
    """Write both epochs, not before what was appended: `EpochsSaved`."""

    accepted: int
    current: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Drop the rows above `zxid`: `Truncated`."""

    zxid: int


@dataclass(frozen=True, slots=True)
class ReceiveSnapshot:
    """Read the stream that follows SNAP on the connection, and keep it beside log and tree:
    `SnapshotReceived` or `SnapshotFailed`. Asked once, answered once, also when the connection has
    ended meanwhile. A snapshot that was received and is not installed is dropped at
    `RoleChanged`."""

    conn: int
    zxid: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """In one step: the snapshot received takes the place of the tree, `txns` that of the whole
    log, and the epochs are written: `SnapshotInstalled`.

    All or nothing, because the rows it replaces may be among those that were acknowledged and
    are above the snapshot's zxid: with the snapshot alone they would be lost.
    """

    zxid: int
    txns: Sequence[Txn]
    accepted: int
    current: int


# ---- the network


@dataclass(frozen=True, slots=True)
class Notify:
    """Send on the election port; replaces what still waits for the same server."""

    to_sid: int
    notification: Notification


@dataclass(frozen=True, slots=True)
class ConnectAll:
    """Open a connection for elections to every voter to whom there is none."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to the quorum port of a server: `Connected` or `ConnectFailed`."""

    sid: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a quorum connection. Nothing of it is heard any more."""

    conn: int
    reason: str


@dataclass(frozen=True, slots=True)
class SendPackets:
    conn: int
    packets: Sequence[Packet]


@dataclass(frozen=True, slots=True)
class SendProposals:
    """PROPOSAL of each transaction to each of the connections."""

    conns: Sequence[int]
    txns: Sequence[Txn]


@dataclass(frozen=True, slots=True)
class SendInforms:
    """INFORM of each transaction to each of the connections."""

    conns: Sequence[int]
    txns: Sequence[Txn]


@dataclass(frozen=True, slots=True)
class SendCommits:
    """COMMIT of every zxid from `first` to `last`, both included and of one epoch."""

    conns: Sequence[int]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SendAcks:
    """ACK of every zxid from `first` to `last`, both included and of one epoch."""

    conn: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SendHistory:
    """PROPOSAL and COMMIT of every row of the log above `after` up to `upto`, then `Sent`."""

    conn: int
    after: int
    upto: int


@dataclass(frozen=True, slots=True)
class SendSnapshot:
    """Queue SNAP and the snapshot's stream: `SnapshotStarted`; at its end `Sent`."""

    conn: int


@dataclass(frozen=True, slots=True)
class SendPing:
    """Answer a PING: PING of the zxid with the touch table, which begins anew."""

    conn: int
    zxid: int


# ---- what happened


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """Nothing is served before `Serving`. LOOKING: all quorum connections end, requests without
    an answer are lost. LEADING: learners are accepted from now on."""

    role: ServerState
    leader: int | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """The epoch stands. A leader may propose from `Peer.next_zxid` on."""

    role: ServerState
    epoch: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The log up to this zxid is committed and durable here."""

    zxid: int


@dataclass(frozen=True, slots=True)
class LearnerRequest:
    """A request of a learner's client. A sync is given back as `LearnerSync`."""

    conn: int
    sid: int
    session: int
    cxid: int
    op: int
    body: bytes
    authinfo: Authinfo


@dataclass(frozen=True, slots=True)
class RevalidateAsked:
    """A learner asks for a session: touch it, make the learner its owner: `RevalidateAnswer`."""

    conn: int
    session: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Touched:
    """Sessions that a learner has heard of, with their timeouts in ms."""

    conn: int
    sessions: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Synced:
    """All that was committed when `Sync` was asked is in `Committed`: it ended at `zxid`. What its
    client has asked later is above that, though it may be committed at the same moment."""

    tag: int
    zxid: int


@dataclass(frozen=True, slots=True)
class Revalidated:
    session: int
    valid: bool


@dataclass(frozen=True, slots=True)
class ConfigurationSeen:
    """Proposed and not committed yet, or what the leader saw last: keep it (`.dynamic.next`)."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class ConfigurationActivated:
    """Committed: write it down, and show it as /zookeeper/config."""

    membership: Membership
    restart_election: bool = False
    """Its content differs: the election's connections begin anew."""


@dataclass(frozen=True, slots=True)
class ReconfigCommitted:
    """The transaction at `zxid`, a reconfiguration, is committed; who leads from now on."""

    zxid: int
    leader: int


@dataclass(frozen=True, slots=True)
class Warned:
    """For the log: somebody else's mistake, or one that was got over."""

    text: str


@dataclass(frozen=True, slots=True)
class Halt:
    """The core goes no further. The driver starts it again with `trusted=False`, so that a
    snapshot of the leader takes the place of this server's state."""

    reason: str


Output = (
    Append
    | SaveEpochs
    | Truncate
    | ReceiveSnapshot
    | InstallSnapshot
    | Notify
    | ConnectAll
    | Connect
    | Close
    | SendPackets
    | SendProposals
    | SendInforms
    | SendCommits
    | SendAcks
    | SendHistory
    | SendSnapshot
    | SendPing
    | RoleChanged
    | Serving
    | Committed
    | LearnerRequest
    | RevalidateAsked
    | Touched
    | Synced
    | Revalidated
    | ConfigurationSeen
    | ConfigurationActivated
    | ReconfigCommitted
    | Warned
    | Halt
)
