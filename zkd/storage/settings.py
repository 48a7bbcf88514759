"""What can be set about storage, with its units and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from zkd.tree.settings import TreeSettings

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class StorageSettings:
    """Everything the engine may be told. Sizes are bytes, times are seconds."""

    commit_on_append: bool = True
    """Standalone: what is durable is committed. In an ensemble False: `Engine.commit` says it."""
    autocreate: bool = True
    """Make an empty database where there is none. If False only when `<dataDir>/initialize` is
    there (it is removed then), as Apache ZooKeeper's db.autocreate."""
    create_folders: bool = True
    """Make dataDir and dataLogDir where they are missing (zookeeper.datadir.autocreate)."""
    trust_empty: bool = False
    """Make a missing tree anew from the log, where that is whole (snapshot.trust.empty)."""
    force_sync: bool = True
    """Bring the log to the disk before `append` returns; False loses answered writes with the
    machine's power (forceSync=no)."""
    accept_log_end: bool = False
    """The operator's word that the log may end where it does: `zkd check --accept-log-end`."""
    configuration: str = ""
    """The text of the ensemble's configuration, for /zookeeper/config; "" leaves that alone,"""
    configuration_version: int = 0
    """and its version."""
    tree: TreeSettings = field(default_factory=TreeSettings)
    """Which owners are sessions, which are TTLs."""
    flush_interval_s: float = 1.0
    """The tree is flushed when its oldest unflushed transaction is this old,"""
    flush_count: int = 20_000
    """or when this many nodes have changed,"""
    flush_bytes: int = 16 * MIB
    """or when the unflushed changes hold this much memory."""
    log_wal_bytes: int = 4 * MIB
    """log.db's WAL is made this large at once, and checkpointed when it is full."""
    tree_wal_bytes: int = 16 * MIB
    """The tree's WAL is checkpointed beyond this."""
    tree_cache_bytes: int = 8 * MIB
    """Page cache of the tree's writer."""
    log_cache_bytes: int = 2 * MIB
    """Page cache of the log's writer."""
    purge: bool = True
    """Remove old log rows."""
    log_retain: int = 100_000
    """Rows that are kept, whatever the tree holds."""
    log_retain_bytes: int = 1024 * MIB
    """Rows go before `log_retain` is reached when log.db holds more than this."""
    reserve_bytes: int = 8 * MIB
    """Size of the file that is given up when the disk is full; 0 for none."""
    vfs: str = ""
    """SQLite VFS (tests)."""

    @classmethod
    def of(cls, config: object) -> StorageSettings:
        """The settings of a server's configuration; an attribute it lacks keeps its default."""
        names = {
            "commit_on_append": "standalone",
            "create_folders": "datadir_autocreate",
            "autocreate": "db_autocreate",
            "trust_empty": "snapshot_trust_empty",
            "accept_log_end": "accept_log_end",
        }
        values = {}
        for name in cls.__dataclass_fields__:
            value = getattr(config, names.get(name, name), None)
            if value is not None:
                values[name] = value
        return cls(**values)
