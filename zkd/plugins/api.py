"""All that a plugin may import from zkd: values, base classes, the hook marker.

A plugin is a module (or object) named by an entry point of the group `zkd.plugins`. The entry
point's name is `KIND.NAME`; KIND is one of `KINDS` and decides in which processes the module is
imported at all: nowhere else, and never before the fork. The module implements the one hook of its
kind (`zkd/plugins/hookspecs.py`), which returns objects of the base classes below.

Everything here is stable within one `HOOKSPEC_VERSION`: base classes may gain methods that have a
default, dataclasses may gain fields that have a default, nothing else changes. A module may say
which version it was written for in `zkd_hookspec_version`; one that this zkd does not know is
refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pluggy

HOOKSPEC_VERSION: Final = 1
"""The version of the hooks and of this module."""

PROJECT: Final = "zkd"
ENTRY_POINT_GROUP: Final = "zkd.plugins"

hookimpl: Final = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of the same name."""

Config = Mapping[str, str]
"""The server's configuration: keys and values as in zoo.cfg, a leading `zookeeper.` removed."""

Identity = tuple[str, str]
"""`(scheme, id)` of a client's connection."""

SUPER: Final[Identity] = ("super", "")
"""The identity to which no ACL applies."""

Number = int | float

KINDS: Final = ("auth", "observer", "snapshot", "metrics", "audit")
"""What an entry point's name begins with, before its first dot."""


def flag(config: Config, key: str, default: bool) -> bool:
    """A boolean of the configuration; only `true` and `yes` (in any case) mean true."""
    value = config.get(key)
    return default if value is None else value.strip().lower() in ("true", "yes")


def settings(config: Config, plugin: str) -> dict[str, str]:
    """A plugin's own settings: `plugin.audit.log.file=x` is `{"file": "x"}` of `audit.log`."""
    prefix = f"plugin.{plugin}."
    return {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}


# --- authentication -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from, as the server sees it.

    `address`: the remote address as text, IPv4 or IPv6, no brackets and no zone. `certificate`:
    the client's leaf certificate in DER after its trust was checked, None without TLS or without
    a client certificate.
    """

    address: str
    port: int
    tls: bool = False
    certificate: bytes | None = None


class AuthFailed(Exception):
    """This client is not who it says: it gets AUTHFAILED (-115) and its connection is closed."""


class Disconnect(Exception):
    """Close the connection without an answer: the client then tries another server."""


class AuthProvider(ABC):
    """One authentication scheme (`org.apache.zookeeper.server.auth.AuthenticationProvider`).

    `authenticate` runs off the event loop and may block up to a time limit. All others are pure:
    no I/O, no waiting, the same answer for the same arguments for as long as the process lives;
    the server may keep answers. What takes longer than 50 ms counts as no.
    """

    scheme: str
    """The scheme of an ACL entry and of an auth packet. `world`, `auth`, `super` are taken."""

    is_authenticated: bool = True
    """Whether `auth:` in an ACL stands for this scheme's identities, too."""

    @abstractmethod
    def authenticate(self, data: bytes, origin: Origin) -> Sequence[Identity]:
        """The identities that an auth packet with `data` gives its connection.

        Raises AuthFailed; Disconnect. An empty sequence is a success that gives nothing. Any
        other exception, and a call beyond the time limit, is AUTHFAILED for that client.
        """

    def on_connect(self, origin: Origin) -> Sequence[Identity]:
        """Identities that a connection has from its first moment. Pure."""
        return ()

    @abstractmethod
    def is_valid(self, acl_id: str) -> bool:
        """Whether `acl_id` may be written into an ACL with this scheme. Pure."""

    def matches(self, identity_id: str, acl_id: str) -> bool:
        """Whether the ACL entry `acl_id` means the connection's `identity_id`. Pure."""
        return identity_id == acl_id

    def user_name(self, identity_id: str) -> str:
        """The part of an identity that may be shown: whoAmI, audit lines. Pure."""
        return identity_id

    def redact(self, acl_id: str) -> str:
        """`acl_id` without its secret, for getACL by a client without ADMIN or READ. Pure."""
        return acl_id


# --- commit observers -----------------------------------------------------------------------

ChangeKind = Literal[
    "create", "delete", "set_data", "set_acl", "check", "create_session", "close_session", "error"
]


@dataclass(frozen=True, slots=True)
class Change:
    """One operation of a committed transaction.

    `path` is None where the operation has none. `data` is what was written, None for the rest
    and for null. `version`: the new version of set_data and set_acl. `owner`: the session of an
    ephemeral, else 0. `error`: the code of an error transaction.
    """

    kind: ChangeKind
    path: str | None = None
    data: bytes | None = None
    version: int | None = None
    owner: int = 0
    error: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed transaction. `time_ms`: the leader's wall clock, since 1970.

    `session` and `cxid`: of the request. `type`: the transaction's opcode. `changes`: in order;
    more than one only for multi, and for a closed session, whose ephemerals are there as `delete`
    before its own `close_session` (as far as the transaction names them). `body`: the entry as it
    stands in the log (TxnHeader, record, digest).
    """

    zxid: int
    time_ms: int
    session: int
    cxid: int
    type: int
    changes: tuple[Change, ...]
    body: bytes


class CommitObserver(ABC):
    """Is told every committed transaction, in order, each at least once, in batches.

    Runs in a thread of its own in the admin process, behind the server: it may block as long as
    it likes and holds up nobody. Its position is kept on disk under `name`.
    """

    name: str
    """Letters, digits, `-` and `_`: the name of its cursor."""

    from_oldest: bool = False
    """Without a cursor: begin with the oldest transaction of the log instead of the next one."""

    @abstractmethod
    def on_commit(self, batch: Sequence[Commit]) -> None:
        """Handle `batch` (never empty). An exception: the same batch comes again, later."""

    def on_gap(self, after_zxid: int, upto_zxid: int, reason: str) -> None:
        """What was committed after `after_zxid` is lost to this observer, up to `upto_zxid`.

        The log was purged beyond its position, or the server's history was replaced (restore);
        then the observer goes on after `upto_zxid`, which may be the smaller one. Read the tree.
        """
        return None

    def metrics(self) -> Sequence[MetricFamily]:
        """Metrics of this observer; names begin with `zkd_`. Called from another thread."""
        return ()

    def close(self) -> None:
        """The server stops."""
        return None


# --- snapshot formats -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SnapshotNode:
    """One znode of a snapshot. `stat`: the 68 bytes of the raw stat. `acl`: the encoded jute
    vector<ACL>, None for world:anyone:31. (docs/internals.md)"""

    path: str
    data: bytes | None
    stat: bytes
    acl: bytes | None


class SnapshotSource(ABC):
    """A tree at one zxid: what a format writes, and what it gives back when it reads.

    `nodes()` yields parents before their children. It may be iterated more than once.
    """

    zxid: int
    digest: int | None = None

    @abstractmethod
    def sessions(self) -> Mapping[int, int]:
        """Session id -> timeout in ms."""

    @abstractmethod
    def nodes(self) -> Iterator[SnapshotNode]:
        """All znodes, the root first."""


class SnapshotFormat(ABC):
    """One way to keep a whole tree in a file. Runs in a short-lived child: may block."""

    name: str
    suffix: str
    """Of file names, with its dot."""

    @abstractmethod
    def write(self, source: SnapshotSource, path: Path) -> None:
        """Write and sync the file `path` (which does not exist). An exception: no snapshot."""

    @abstractmethod
    def verify(self, path: Path) -> int:
        """Read the file through; its zxid. Raises ValueError saying what is wrong and where."""

    @abstractmethod
    def read(self, path: Path) -> SnapshotSource:
        """Open a file to be restored from. Raises ValueError for what cannot be one."""


# --- metrics --------------------------------------------------------------------------------

MetricKind = Literal["gauge", "counter", "summary", "histogram"]


@dataclass(frozen=True, slots=True)
class SummaryValue:
    """`quantiles`: ((0.5, value), ...), as many as the metric has."""

    count: int
    sum: int
    min: int
    max: int
    quantiles: tuple[tuple[float, Number], ...] = ()


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """`buckets`: ((upper bound, observations up to it), ...), cumulative, the last is inf."""

    buckets: tuple[tuple[float, int], ...]
    sum: float


Value = Number | SummaryValue | HistogramValue


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric of the whole server.

    `name`: Apache ZooKeeper's, without `zk_`; zkd's own begin with `zkd_`. `label`: the label's
    name of a set (Apache's: `key`), "" for a single value; `samples`: label value -> value, the
    label value being "" without a label.
    """

    name: str
    kind: MetricKind
    help: str
    label: str = ""
    samples: Mapping[str, Value] = field(default_factory=dict)


ReadMetrics = Callable[[], Sequence[MetricFamily]]


class MetricsExporter(ABC):
    """Takes the server's metrics elsewhere. Runs in the admin process; may block."""

    name: str

    @abstractmethod
    def start(self, read_metrics: ReadMetrics) -> None:
        """Begin. `read_metrics` may be called at any time, from any thread, until `stop`."""

    @abstractmethod
    def stop(self) -> None:
        """End, leave nothing behind. Also called if `start` raised."""


# --- audit ----------------------------------------------------------------------------------

AuditResult = Literal["success", "failure", "invoked"]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit log (`org.apache.zookeeper.audit.AuditEvent`); None: does not apply.

    `operation`: serverStart, serverStop, create, delete, setData, setAcl, multiOperation,
    reconfig, ephemeralZNodeDeletionOnSessionCloseOrExpire. `user`: names, comma-separated.
    `znode_type`: Java's CreateMode in small letters. `acl`: `scheme:id:perms` of each entry.
    """

    operation: str
    result: AuditResult
    time_ms: int
    user: str | None = None
    session: int | None = None
    ip: str | None = None
    znode: str | None = None
    znode_type: str | None = None
    acl: str | None = None
    zxid: int | None = None


class AuditSink(ABC):
    """Keeps audit events. Called from a thread of its own in each front-end.

    One that blocks holds up no client: its queue is bounded, what does not fit is dropped,
    counted and logged.
    """

    name: str

    @abstractmethod
    def write(self, event: AuditEvent) -> None:
        """Keep one event. An exception: counted, logged, the event is lost to this sink."""

    def close(self) -> None:
        """The process stops."""
        return None
