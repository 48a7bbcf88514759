"""The core's disk: what it writes goes to storage, in order, and the tree keeps up with the log.

    logged <= handed <= taken       durable, given to storage, given by the core
    tree = the tree on disk + every row of the log, committed or not; None while it is loaded
    held = rows above what front-ends were told to be committed, with their effects

What the core appends needs the tree (its effects go to storage and to front-ends), so it waits
while the tree is loaded; so does all that the core asks after it. TRUNC and a snapshot throw the
tree away: it is loaded anew, as at the start, in slices, so that elections and heartbeats go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from zkd.bus.messages import EPOCHS, IMPOSSIBLE, INSTALL, TRUNCATE
from zkd.storage.errors import LogCorrupt
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.reader import TreeReader
from zkd.tree.state import TreeState
from zkd.zab.inputs import Appended, EpochsSaved, SnapshotInstalled, Truncated
from zkd.zab.outputs import Append, InstallSnapshot, SaveEpochs, Truncate

if TYPE_CHECKING:
    from zkd.server.member.process import Member

SLICE_S = 0.003
"""So long the loop does nothing but load."""
ROWS_A_LOOK = 32

Write = Append | SaveEpochs | Truncate | InstallSnapshot


class Disk:
    """See the module's text."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.logged = self.handed = self.taken = 0
        self.prepared: deque[tuple[Any, ...]] = deque()
        """Whole transactions that this leader has prepared and the core has not appended yet."""
        self._queue: deque[Write] = deque()
        self._under_way: Truncate | InstallSnapshot | None = None
        self._loading: _Loading | None = None
        self._scheduled = False
        self._turn_read = -1

    def begin(self, durable: int) -> None:
        """Storage has begun an incarnation; its log ends at `durable`."""
        self.logged = self.handed = self.taken = durable
        self._queue.clear()
        self._under_way = None
        self.reload()

    def end(self) -> None:
        """Storage will not answer any more."""
        self._queue.clear()
        self._under_way = None
        self._drop()

    @property
    def idle(self) -> bool:
        """Has everything been handed to storage, and answered?"""
        return not self._queue and self._under_way is None

    # -- the core's writes ---------------------------------------------------------------------

    def submit(self, write: Write) -> None:
        """Do this after all that was asked before."""
        if isinstance(write, Append):
            self.taken = write.txns[-1][0]
        self._queue.append(write)
        self._pump()

    def _pump(self) -> None:
        member, queue = self.member, self._queue
        while queue and self._under_way is None:
            write = queue[0]
            if isinstance(write, Append):
                if member.tree is None:
                    return
                queue.popleft()
                self._append(write)
            elif isinstance(write, SaveEpochs):
                queue.popleft()
                member.order(EPOCHS, write.accepted, write.current)
            else:
                queue.popleft()
                self._under_way = write
                self._drop()
                if isinstance(write, Truncate):
                    member.order(TRUNCATE, write.zxid)
                else:
                    epochs = (write.accepted, write.current)
                    member.order(INSTALL, write.zxid, list(write.txns), *epochs)

    def _append(self, write: Append) -> None:
        prepared, txns = self.prepared, write.txns
        if prepared and prepared[0][0] == txns[0][0]:
            batch = [prepared.popleft() for _ in txns]
        else:
            tree = self.member.tree
            assert tree is not None
            of = self.member.answered_by
            batch = []
            for zxid, body in txns:
                applied = tree.process(body)
                life, number, xid, results = of(applied)
                batch.append((zxid, life, number, xid, applied.err, body, applied.effects, results))
        self.handed = txns[-1][0]
        self.member.hand_out(batch)

    # -- storage's answers ---------------------------------------------------------------------

    def durable(self, zxid: int, turn: int) -> None:
        """Storage has gone on."""
        if self._under_way is None and zxid > self.logged:
            self.logged = zxid
            self.member.feed(Appended(zxid))
        if turn != self.member.turn:
            self.member.turn = turn
            if self.member.tree is not None:
                self._rebase()
        self._load_soon()

    def saved(self, accepted: int, current: int) -> None:
        self.member.feed(EpochsSaved(accepted, current))

    def truncated(self, zxid: int) -> None:
        under_way, self._under_way = self._under_way, None
        assert isinstance(under_way, Truncate)
        if zxid == IMPOSSIBLE:
            self.member.halt(f"the log cannot be cut off at 0x{under_way.zxid:x}")
            return
        self.logged = self.handed = zxid
        if not any(isinstance(write, Append) for write in self._queue):
            self.taken = zxid
        self.reload()
        self.member.feed(Truncated(zxid))
        self._pump()

    def installed(self, zxid: int) -> None:
        under_way, self._under_way = self._under_way, None
        assert isinstance(under_way, InstallSnapshot)
        end = under_way.txns[-1][0] if under_way.txns else zxid
        self.logged = self.handed = end
        if not any(isinstance(write, Append) for write in self._queue):
            self.taken = end
        self.member.announced = zxid
        self.reload()
        self.member.feed(SnapshotInstalled(zxid))
        self._pump()

    # -- the tree ------------------------------------------------------------------------------

    def reload(self) -> None:
        """The tree is not what the log says, or not there: load it."""
        self._drop()
        self._load_soon()

    def _drop(self) -> None:
        member = self.member
        if self._loading is not None:
            self._loading.close()
            self._loading = None
        if member.tree is not None:
            base = member.tree.base
            member.tree = None
            assert isinstance(base, TreeReader)
            base.close()
        member.held.clear()
        self.prepared.clear()

    def _load_soon(self) -> None:
        """Load as soon as what was handed to storage is in the log."""
        if (
            self.member.tree is None
            and self._under_way is None
            and self.logged == self.handed
            and not self._scheduled
        ):
            self._scheduled = True
            self.member.loop.call_soon(self._load)

    def _load(self) -> None:
        """A slice of it."""
        self._scheduled = False
        member = self.member
        if member.tree is not None or self._under_way is not None or not member.incarnation:
            return
        if self._loading is None:
            self._turn_read = member.turn
            self._loading = _Loading(member, self.logged)
        loading = self._loading
        try:
            more = loading.work(monotonic() + SLICE_S)
        except LogCorrupt as e:
            loading.close()
            self._loading = None
            if e.good != loading.base.zxid or member.turn == self._turn_read:
                raise  # no rows were purged meanwhile
            more = True
        if more:
            self._load_soon()
            return
        self._loading = None
        member.loaded(loading.base, loading.tree, loading.held, loading.took_s)
        if member.turn != self._turn_read:
            self._rebase()
        self._pump()

    def _rebase(self) -> None:
        self._turn_read = self.member.turn
        self.member.rebase()


class _Loading:
    """The tree on disk, and the log above it, on their way to be one state."""

    def __init__(self, member: Member, upto: int) -> None:
        self.took_s = 0.0
        self.held: list[tuple[Any, ...]] = []
        self.base = member.open_tree()
        self.tree: TreeState = member.state_over(self.base)
        self._log = LogReader(member.config.data_log_dir / LOG_NAME)
        self._rows: Iterator[tuple[int, bytes]] = self._log.read(self.base.zxid, upto)
        self._committed = member.announced

    def work(self, until: float) -> bool:
        """Go on until then; True if there is more."""
        began = now = monotonic()
        process = self.tree.process
        while now < until:
            for _ in range(ROWS_A_LOOK):
                row = next(self._rows, None)
                if row is None:
                    self._log.close()
                    self.took_s += monotonic() - began
                    return False
                zxid, body = row
                applied = process(body)
                if zxid > self._committed:
                    told = (applied.err, body, applied.effects, applied.results)
                    self.held.append((zxid, 0, 0, 0, *told))
            now = monotonic()
        self.took_s += now - began
        return True

    def close(self) -> None:
        self._log.close()
        self.base.close()


class LogHistory:
    """The rows of the log, as the core asks for them (`zkd.zab.history.History`)."""

    def __init__(self, member: Member) -> None:
        self._log = LogReader(member.config.data_log_dir / LOG_NAME)

    def first(self) -> int | None:
        return self._log.first()

    def last(self) -> int | None:
        return self._log.floor((1 << 63) - 1)

    def floor(self, zxid: int) -> int | None:
        return self._log.floor(zxid)

    def has(self, zxid: int) -> bool:
        return self._log.floor(zxid) == zxid

    def close(self) -> None:
        self._log.close()
