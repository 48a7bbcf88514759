"""What can go wrong with the files of one server.

`LogFull` is a state that ends by itself, `LogFailed` is the end of the process, the others are for
the operator: each names its file, and the zxid where there is one.
"""

from __future__ import annotations

from zkd.errors import OperatorError
from zkd.jute.protocol import Err
from zkd.tree.errors import ClientRefusal

MEND_ROW = (
    "`zkd check` lists all that is damaged; stop the server and `zkd restore SNAPSHOT --keep-log`:"
    " the log goes on from there (docs/recovery.md)"
)


class LogFull(Exception):
    """The disk is full. Nothing of the batch is in the log; nothing more is accepted until
    `Engine.open_incarnation` has succeeded."""


class LogFailed(Exception):
    """An fsync or a write failed (EIO). What is on disk is unknown: never tried again, the engine
    is dead, and the next process finds out by reading."""


class LogCorrupt(OperatorError):
    """A row of the log does not agree with its CRC, or a row is missing: `zxid` is the first bad
    one, `good` the last zxid before it."""

    def __init__(self, what: str, where: str, *, zxid: int, good: int, mend: str = "") -> None:
        super().__init__(what, where, mend)
        self.zxid = zxid
        self.good = good


class LogBehind(OperatorError):
    """The log ends before what this server has said to be durable (or before its own tree):
    `end` is where it ends, `promised` where it should."""

    def __init__(self, what: str, where: str, *, end: int, promised: int, mend: str = "") -> None:
        super().__init__(what, where, mend)
        self.end = end
        self.promised = promised


class DiskFull(OperatorError):
    """There is no room to open the files."""

    def __init__(self, where: str) -> None:
        super().__init__("the disk is full", where, "free some space on it; nothing is lost")


class TreeDamaged(OperatorError):
    """tree-N.db cannot be read, is older than what was known to be on disk, or lacks log rows to
    go on from."""


class RowDamaged(TreeDamaged, ClientRefusal):
    """A row of the tree does not agree with its checksum, or its page cannot be read. Whoever asked
    for it on a client's behalf refuses that client (DATAINCONSISTENCY); nobody else is harmed."""

    def __init__(self, what: str, where: str) -> None:
        Exception.__init__(self, what, where, MEND_ROW)
        self.what, self.where, self.mend = what, where, MEND_ROW
        self.code = Err.DATA_INCONSISTENCY
