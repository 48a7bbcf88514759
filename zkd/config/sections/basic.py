"""Keys of ports, folders, sessions, the transaction log and snapshots (spec section 2)."""

# ruff: noqa: RUF009  (setting() gives a dataclass field; it is no mutable default)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zkd.config.key import setting
from zkd.config.kinds import (
    BOOL,
    BYTES,
    FLAG,
    HOUR,
    INT,
    KILOBYTES,
    MIB,
    MS,
    PATH,
    REAL,
    TEXT,
    YES_UNLESS_NO,
    choice,
    duration,
)

JUTE_MAXBUFFER = 0xFFFFF


@dataclass(frozen=True, init=False, repr=False, eq=False)
class BasicSettings:
    """Ports, folders, time, log and snapshots. Durations in ms, sizes in bytes."""

    client_port: int = setting(
        "clientPort",
        INT,
        -1,
        "Port for clients without TLS.",
        default_text="none; 2181 without a file",
        minimum=0,
        maximum=65535,
    )
    client_port_address: str = setting(
        "clientPortAddress",
        TEXT,
        "",
        "Address that the client port is bound to.",
        default_text="all; 127.0.0.1 without a file",
    )
    secure_client_port: int = setting(
        "secureClientPort",
        INT,
        -1,
        "Port for clients with TLS.",
        default_text="none",
        minimum=0,
        maximum=65535,
    )
    secure_client_port_address: str = setting(
        "secureClientPortAddress",
        TEXT,
        "",
        "Address that the TLS client port is bound to.",
        default_text="all",
    )
    client_port_listen_backlog: int = setting(
        "clientPortListenBacklog",
        INT,
        -1,
        "Length of the queue of connections not yet accepted.",
        default_text="-1 (1024 or the system's limit)",
        minimum=1,
        special=-1,
        note="-1 is 1024 here; Java's 50 overflows in a storm of reconnects.",
    )
    data_dir: Path = setting(
        "dataDir",
        PATH,
        Path("zkd-data"),
        "Folder of the data and of the file myid.",
        default_text="required; ./zkd-data without a file",
        note="The znode tree is kept here in a database, tree-N.db.",
    )
    data_log_dir: Path = setting(
        "dataLogDir",
        PATH,
        Path("zkd-data"),
        "Folder of the transaction log.",
        default_text="dataDir",
        note="The log is kept here in a database, log.db.",
    )
    tick_time: int = setting(
        "tickTime",
        MS,
        3000,
        "The base unit of time: sessions expire in steps of one tick.",
        minimum=1,
    )
    min_session_timeout: int = setting(
        "minSessionTimeout",
        MS,
        -1,
        "Shortest session timeout that a client is given.",
        default_text="-1 (2 ticks)",
        minimum=1,
        special=-1,
    )
    max_session_timeout: int = setting(
        "maxSessionTimeout",
        MS,
        -1,
        "Longest session timeout that a client is given.",
        default_text="-1 (20 ticks)",
        minimum=1,
        special=-1,
    )
    pre_alloc_bytes: int = setting(
        "preAllocSize",
        KILOBYTES,
        64 * MIB,
        "Space set aside for the transaction log at once.",
        minimum=0,
        note="Less than 4 MB makes the write-ahead file of log.db smaller; more has no effect.",
    )
    snap_count: int = setting(
        "snapCount",
        INT,
        100_000,
        "Transactions between two snapshots.",
        minimum=2,
        clamp=True,
        note="If it is set, changes are flushed to the tree's database after this many.",
    )
    snap_size_limit_bytes: int = setting(
        "snapSizeLimitInKb",
        KILOBYTES,
        4096 * MIB,
        "Bytes of log between two snapshots.",
        reloadable=True,
        note="Less than 16 MB flushes changes to the tree's database earlier.",
    )
    txn_log_size_limit_bytes: int = setting(
        "txnLogSizeLimitInKb",
        KILOBYTES,
        -1,
        "Size at which a log file is ended; -1 is off.",
        note="If it is set, purging keeps log.db below it.",
    )
    commit_log_count: int = setting(
        "commitLogCount",
        INT,
        500,
        "Committed transactions kept in memory for learners.",
        minimum=1,
    )
    snapshot_size_factor: float = setting(
        "snapshotSizeFactor",
        REAL,
        0.33,
        "Share of the snapshot's size up to which a learner is sent log from disk instead.",
    )
    autopurge_snap_retain_count: int = setting(
        "autopurge.snapRetainCount",
        INT,
        3,
        "Snapshots that purging leaves.",
        minimum=3,
        clamp=True,
        reloadable=True,
    )
    autopurge_purge_interval: int = setting(
        "autopurge.purgeInterval",
        duration("h"),
        HOUR,
        "Time between two purges; a bare number counts hours; 0 switches purging off.",
        apache="0 (off)",
        minimum=0,
        reloadable=True,
    )
    snapshot_compression_method: str = setting(
        "snapshot.compression.method",
        choice("", "gz", "snappy", "zstd"),
        "",
        "How snapshots in Apache ZooKeeper's format are compressed.",
    )
    snapshot_trust_empty: bool = setting(
        "snapshot.trust.empty",
        FLAG,
        False,
        "Start with a log but no snapshot.",
        note="A missing tree is made anew from the log, if that still begins with the first "
        "transaction. Take the line out again afterwards.",
    )
    serialize_last_processed_zxid_enabled: bool = setting(
        "serializeLastProcessedZxid.enabled",
        FLAG,
        True,
        "Write the last zxid at the end of snapshots in Apache ZooKeeper's format.",
    )
    digest_enabled: bool = setting(
        "digest.enabled",
        FLAG,
        True,
        "Carry a digest of the tree with each transaction.",
    )
    force_sync: bool = setting(
        "forceSync",
        YES_UNLESS_NO,
        True,
        "Bring the log to the disk before a write is answered; no risks answered writes.",
    )
    fsync_warning_threshold: int = setting(
        "fsync.warningthresholdms",
        MS,
        1000,
        "A sync of the log that takes longer is logged.",
        minimum=0,
        reloadable=True,
    )
    flush_delay: int = setting(
        "flushDelay",
        MS,
        0,
        "How long writes wait for others to share one sync; 0: not at all.",
        minimum=0,
        reloadable=True,
    )
    max_write_queue_poll_time: int = setting(
        "maxWriteQueuePollTime",
        MS,
        -1,
        "How long the log waits for one more write before it syncs, with flushDelay.",
        default_text="flushDelay / 3",
        minimum=0,
        special=-1,
        reloadable=True,
    )
    max_batch_size: int = setting(
        "maxBatchSize",
        INT,
        1000,
        "Most transactions in one sync.",
        minimum=1,
        reloadable=True,
    )
    force_snapshot_sync: bool = setting(
        "forceSnapshotSync",
        FLAG,
        False,
        "Send every learner a whole snapshot (for tests).",
    )
    datadir_autocreate: bool = setting(
        "datadir.autocreate",
        FLAG,
        True,
        "Create the folders of data and log if they are missing.",
    )
    db_autocreate: bool = setting(
        "db.autocreate",
        FLAG,
        True,
        "Take an empty folder for a new server; false: it has no vote before it is synchronised, "
        "unless a file named initialize lies in dataDir.",
    )
    jute_maxbuffer: int = setting(
        "jute.maxbuffer",
        BYTES,
        JUTE_MAXBUFFER,
        "Largest packet from a client.",
        minimum=1024,
        note="May stand in the file, too; the reference takes it as -D only.",
    )
    jute_maxbuffer_extrasize: int = setting(
        "jute.maxbuffer.extrasize",
        BYTES,
        -1,
        "What a record made by a server may be larger.",
        default_text="jute.maxbuffer",
        minimum=1024,
        clamp=True,
    )
    close_session_txn_enabled: bool = setting(
        "closeSessionTxn.enabled",
        FLAG,
        True,
        "List the removed paths in the transaction that ends a session.",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class BehaviourSettings:
    """What the server does beyond limits: kinds of sessions and znodes (spec section 3)."""

    enforce_quota: bool = setting(
        "enforceQuota",
        FLAG,
        False,
        "Refuse what would exceed a hard quota.",
    )
    enable_eager_acl_check: bool = setting(
        "enableEagerACLCheck",
        FLAG,
        False,
        "Check ACLs before a write is sent to the leader.",
    )
    local_sessions_enabled: bool = setting(
        "localSessionsEnabled",
        BOOL,
        False,
        "Sessions that only their own server knows.",
    )
    local_sessions_upgrading_enabled: bool = setting(
        "localSessionsUpgradingEnabled",
        BOOL,
        False,
        "Make a local session a global one when it creates an ephemeral znode.",
    )
    extended_types_enabled: bool = setting(
        "extendedTypesEnabled",
        FLAG,
        False,
        "Allow TTL znodes; server ids then end at 254.",
    )
    emulate_353_ttl_nodes: bool = setting(
        "emulate353TTLNodes",
        FLAG,
        False,
        "Read TTL znodes in the layout of 3.5.3.",
    )
    container_check_interval: int = setting(
        "znode.container.checkIntervalMs",
        MS,
        60_000,
        "Time between two searches for empty containers and old TTL znodes.",
        minimum=1,
    )
    container_max_per_minute: int = setting(
        "znode.container.maxPerMinute",
        INT,
        10_000,
        "Most containers and TTL znodes removed in a minute.",
        minimum=1,
    )
    container_max_never_used_interval: int = setting(
        "znode.container.maxNeverUsedIntervalMs",
        MS,
        0,
        "Age at which a container that never had a child is removed; 0: never.",
        minimum=0,
    )
    read_only_mode_enabled: bool = setting(
        "readonlymode.enabled",
        FLAG,
        False,
        "Serve reads while cut off from the ensemble.",
    )
    tcp_keep_alive: bool = setting(
        "tcpKeepAlive",
        FLAG,
        False,
        "TCP keep-alive between servers.",
    )
    client_tcp_keep_alive: bool = setting(
        "clientTcpKeepAlive",
        FLAG,
        False,
        "TCP keep-alive to clients.",
    )
    sessionless_cnxn_timeout: int = setting(
        "nio.sessionlessCnxnTimeout",
        MS,
        10_000,
        "How long a connection may stay without a session.",
        minimum=1,
        reloadable=True,
    )
    path_stats_enabled: bool = setting(
        "pathStats.enabled",
        FLAG,
        False,
        "Count requests by path.",
        note="Feeds the view of the busiest paths.",
    )
    path_stats_slot_capacity: int = setting(
        "pathStats.slotCapacity",
        INT,
        60,
        "Time slots that are kept.",
        minimum=1,
    )
    path_stats_slot_duration: int = setting(
        "pathStats.slotDuration",
        duration("s"),
        15_000,
        "Length of a time slot.",
        minimum=1,
    )
    path_stats_max_depth: int = setting(
        "pathStats.maxDepth",
        INT,
        6,
        "Parts of a path that are told apart.",
        minimum=1,
    )
    path_stats_initial_delay: int = setting(
        "pathStats.initialDelay",
        duration("s"),
        5_000,
        "Time before the first count.",
        minimum=0,
    )
    path_stats_delay: int = setting(
        "pathStats.delay",
        duration("s"),
        5_000,
        "Time between two counts.",
        minimum=1,
    )
    path_stats_top_path_max: int = setting(
        "pathStats.topPathMax",
        INT,
        20,
        "Paths that are listed.",
        minimum=1,
    )
    path_stats_sample_rate: float = setting(
        "pathStats.sampleRate",
        REAL,
        0.1,
        "Share of the requests that is counted.",
        minimum=0,
        maximum=1,
    )
    message_tracker_enabled: bool = setting(
        "messageTracker.Enabled",
        FLAG,
        False,
        "Keep the last messages between servers and log them when a connection ends.",
    )
    message_tracker_buffer_size: int = setting(
        "messageTracker.BufferSize",
        INT,
        10,
        "Messages kept for that.",
        minimum=1,
    )
