"""Whether log, mark and tree of one server fit together: what every start and `zkd check` ask.

    purged_to <= T <= end of the log         the log's rows above T are what the tree lacks
    end >= what the mark claims              else something durable is missing
    T >= the mark's tree_synced              else the tree's file was damaged

Pure: the values come from writers at a start, from readers beside a running server. A reader takes
them in the order mark, meta, T, end: then a server that goes on meanwhile cannot break them.
"""

from __future__ import annotations

from zkd.storage.files import Claims
from zkd.storage.log import LogMeta

GO_ON = "`zkd check --accept-log-end` goes on from where the log ends"
MEND_TREE = "`zkd restore SNAPSHOT --keep-log`: the log goes on from there (docs/recovery.md)"
MEND_LOG = (
    "`zkd restore SNAPSHOT --replace`, where SNAPSHOT may be this server's own tree-N.db"
    " (docs/recovery.md)"
)


def tree_fault(meta: LogMeta, tree_zxid: int, generation: int, claims: Claims | None) -> str:
    """Why the tree cannot be gone on with from this log; "" if it can."""
    if tree_zxid < meta.purged_to:
        return f"the tree is at 0x{tree_zxid:x}, the log begins above 0x{meta.purged_to:x}"
    if (
        claims is not None
        and claims.log_id == meta.id
        and claims.generation == generation
        and tree_zxid < claims.tree_synced
    ):
        return f"the tree is at 0x{tree_zxid:x}, but 0x{claims.tree_synced:x} was on disk"
    return ""


def missing(meta: LogMeta, end: int, tree_zxid: int, claims: Claims | None) -> tuple[str, int]:
    """What the log lacks of what was said to be durable: (reason, zxid), ("", 0) if nothing."""
    if tree_zxid > end:
        return f"the log ends at 0x{end:x}, before its own tree (0x{tree_zxid:x})", tree_zxid
    if claims is None:
        return "", 0
    if claims.log_id != meta.id:
        return "log.mark belongs to another log", claims.zxid
    if claims.cut > meta.cut:
        return "the log lacks its last truncation", claims.zxid
    if claims.cut == meta.cut and claims.zxid > end:
        return f"the log ends at 0x{end:x}, but 0x{claims.zxid:x} was durable", claims.zxid
    lost = (
        claims.incarnation > meta.incarnation
        or claims.accepted_epoch > meta.accepted_epoch
        or claims.current_epoch > meta.current_epoch
    )
    if lost:
        return "the log lacks a promise that was durable (an epoch or an incarnation)", claims.zxid
    return "", 0
