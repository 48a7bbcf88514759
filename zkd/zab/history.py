"""The own log as the core sees it, and how positions in it may move.

    acked <= logged <= received        delivered = min(committed, logged)

`received` is what was handed to the disk, `logged` what the disk says is durable, `committed` what
the protocol says can never be undone. `committed` may run ahead of `logged`: a quorum can do
without this disk. `delivered` is what the clients of this server may see. Truncation lowers
`received` and `logged`, never below `committed`. Only a snapshot moves all four elsewhere.

Nothing here knows roles; who may move what is decided by leader and learner.
"""

from __future__ import annotations

from typing import Protocol

from zkd.zab.faults import DriverFault
from zkd.zab.zxid import text


class History(Protocol):
    """The rows of the log on disk, read when a learner is brought up to date.

    Answers for what is durable. zxids of one epoch have no gap between them, as ever.
    """

    def first(self) -> int | None:
        """The lowest zxid; None for an empty log."""
        ...

    def last(self) -> int | None: ...

    def floor(self, zxid: int) -> int | None:
        """The highest zxid that is not above this one."""
        ...

    def has(self, zxid: int) -> bool: ...


class Positions:
    __slots__ = ("committed", "delivered", "logged", "received")

    def __init__(self, logged: int, committed: int) -> None:
        if committed > logged:
            raise DriverFault(f"the tree is at {text(committed)}, the log ends at {text(logged)}")
        self.received = logged
        self.logged = logged
        self.committed = committed
        self.delivered = committed

    def receive(self, upto: int) -> None:
        assert upto > self.received, "rows go to the disk in order"
        self.received = upto

    def log(self, upto: int) -> None:
        if not self.logged <= upto <= self.received:
            raise DriverFault(
                f"durable up to {text(upto)}, but it was {text(self.logged)} and"
                f" {text(self.received)} was handed in"
            )
        self.logged = upto

    def commit(self, upto: int) -> None:
        assert upto >= self.committed, "what is committed stays so"
        self.committed = upto

    def truncate(self, zxid: int) -> None:
        assert self.committed <= zxid <= self.received, "what is committed stays so"
        self.received = zxid
        self.logged = min(self.logged, zxid)

    def reset(self, zxid: int) -> None:
        """A snapshot has taken the place of everything."""
        self.received = self.logged = self.committed = self.delivered = zxid

    def deliver(self) -> bool:
        """Bring `delivered` up to date; True if it moved."""
        upto = min(self.committed, self.logged)
        if upto <= self.delivered:
            return False
        self.delivered = upto
        return True
