"""What every role of one server shares: its epochs, its log, its configurations, its outputs.

    current <= accepted; neither ever goes back
    `accepted`, `current`: durable; `wanted`: the pair handed to the disk last

A role writes through here, so that what is under way at the disk is known: a server looks for a
leader again only when everything it handed to the disk has been answered (`settled`), because its
vote must name what it really holds.
"""

from __future__ import annotations

from zkd.config.servers import Membership
from zkd.zab.faults import DriverFault
from zkd.zab.history import History, Positions
from zkd.zab.inputs import Txn
from zkd.zab.outputs import (
    Append,
    Committed,
    InstallSnapshot,
    Output,
    ReceiveSnapshot,
    SaveEpochs,
    Truncate,
)
from zkd.zab.quorum import Verifier, tracked, verifier_of
from zkd.zab.settings import Settings, Standing


class State:
    def __init__(
        self,
        standing: Standing,
        settings: Settings,
        history: History,
        committed: Membership,
        last_seen: Membership | None,
    ) -> None:
        if standing.current_epoch > standing.accepted_epoch:
            raise DriverFault("the current epoch is above the accepted one")
        self.sid = standing.sid
        self.settings = settings
        self.history = history
        self.positions = Positions(standing.logged, standing.committed)
        self.accepted = standing.accepted_epoch
        self.current = standing.current_epoch
        self.wanted = (self.accepted, self.current)
        self._saving = False
        """`wanted` is on its way to the disk, also if nothing changes by it: its answer says that
        what was appended before is durable."""
        self.trusted = standing.trusted
        self.now_ms = 0
        self.oracle: str | None = None
        """What the oracle's file said last; None: there is none."""
        self.out: list[Output] = []
        self.installing: int | None = None
        """The zxid of a snapshot that takes the place of log and tree."""
        self.receiving: int | None = None
        """The zxid of a snapshot that is being read."""
        self._installed_upto = 0
        self.truncating: int | None = None
        self.configure(committed, last_seen)

    def configure(self, committed: Membership, last_seen: Membership | None) -> None:
        self.committed = committed
        self.last_seen = last_seen if last_seen is not None else committed
        self.committed_verifier: Verifier = verifier_of(committed)
        self.verifiers = tracked(self.committed_verifier, verifier_of(self.last_seen))

    # ---- the disk

    @property
    def settled(self) -> bool:
        """Has the disk answered everything?"""
        positions = self.positions
        return (
            positions.logged == positions.received
            and not self._saving
            and self.receiving is None
            and self.installing is None
            and self.truncating is None
        )

    @property
    def last_zxid(self) -> int:
        """For votes and ACKEPOCH: -1 if the log cannot be trusted."""
        return self.positions.received if self.trusted else -1

    def append(self, txns: list[Txn]) -> None:
        self.positions.receive(txns[-1][0])
        self.out.append(Append(txns))

    def appended(self, upto: int) -> None:
        self.positions.log(upto)

    def save_epochs(self, accepted: int, current: int) -> None:
        assert accepted >= self.wanted[0], "the accepted epoch never goes back"
        assert current >= self.wanted[1], "the current epoch never goes back"
        self.wanted = (accepted, current)
        self._saving = True
        self.out.append(SaveEpochs(accepted, current))

    def epochs_saved(self, accepted: int, current: int) -> None:
        below = accepted < self.accepted or current < self.current
        if below or accepted > self.wanted[0] or current > self.wanted[1]:
            raise DriverFault("epochs were saved that nobody asked to save")
        self.accepted, self.current = accepted, current
        self._saving = self.wanted != (accepted, current)

    def truncate(self, zxid: int) -> None:
        self.positions.truncate(zxid)
        self.truncating = zxid
        self.out.append(Truncate(zxid))

    def truncated(self, zxid: int) -> None:
        if zxid != self.truncating:
            raise DriverFault("a truncation that nobody asked for")
        self.truncating = None

    def receive_snapshot(self, conn: int, zxid: int) -> None:
        self.receiving = zxid
        self.out.append(ReceiveSnapshot(conn, zxid))

    def snapshot_received(self, zxid: int | None) -> None:
        """None: it was not."""
        if self.receiving is None or zxid not in (None, self.receiving):
            raise DriverFault("a snapshot that nobody asked for")
        self.receiving = None

    def install(self, zxid: int, txns: list[Txn], epoch: int) -> None:
        """The snapshot and the rows above it, from now on all that there is, and the epoch."""
        self.wanted = (epoch, epoch)
        self.installing = zxid
        self.positions.reset(zxid)
        if txns:
            self.positions.receive(txns[-1][0])
        self._installed_upto = self.positions.received
        self.out.append(InstallSnapshot(zxid, txns, epoch, epoch))

    def installed(self, zxid: int) -> None:
        if zxid != self.installing:
            raise DriverFault("a snapshot that nobody asked to install")
        self.installing = None
        self.trusted = True
        self.positions.log(self._installed_upto)
        self.epochs_saved(*self.wanted)

    # ---- what clients may see

    def commit(self, upto: int) -> None:
        self.positions.commit(upto)
        self.deliver()

    def deliver(self) -> None:
        if self.positions.deliver():
            self.out.append(Committed(self.positions.delivered))
