"""What the core is told once: numbers of the configuration, and where this server stands at start.

Limits count in ticks, as in zoo.cfg; the properties give them in ms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zkd.zab.election import ElectionSettings


@dataclass(frozen=True, slots=True)
class Settings:
    tick_ms: int = 2000
    init_limit: int = 10
    sync_limit: int = 5
    reconfig_enabled: bool = False
    diff_rows_max: int = 100_000
    """More rows than these go to a learner as a snapshot, if its history allows either."""
    snap_syncs_max: int = 10
    """Observers that come while so many learners get a snapshot are sent away
    (`zookeeper.leader.maxConcurrentSnapSyncs`)."""
    diff_syncs_max: int = 100
    """The same for those who get DIFF or TRUNC (`zookeeper.leader.maxConcurrentDiffSyncs`)."""
    epoch_wait_ms: int | None = None
    """A leader that has waited so long for its epoch gives up when it sees a voter that looks for
    a leader (`zookeeper.leader.maxTimeToWaitForEpoch`); None: not before initLimit."""
    force_snapshot: bool = False
    """`zookeeper.forceSnapshotSync`: no learner gets less."""
    observer_master: bool = False
    """Serve observers while following (`observerMasterPort`)."""
    election: ElectionSettings = field(default_factory=ElectionSettings)

    @property
    def init_ms(self) -> int:
        return self.init_limit * self.tick_ms

    @property
    def sync_ms(self) -> int:
        return self.sync_limit * self.tick_ms


@dataclass(frozen=True, slots=True)
class Standing:
    """What the disk says at start."""

    sid: int
    accepted_epoch: int
    current_epoch: int
    logged: int
    """The last zxid of the log; that of the tree if the log is empty."""
    committed: int
    """The zxid of the tree: the rows above it are pending."""
    trusted: bool = True
    """False: the log has lost its end or its tree. The server does not vote and asks for a
    snapshot."""
