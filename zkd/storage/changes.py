"""The net effect of many transactions: what the next flush of the tree has to write.

`nodes` has one entry a path, in the form of an effect: the last state wins. An entry says as much
as is known: CREATED everything, CHANGED stat and data, ACL stat and acl, STAT the stat alone,
DELETED that the node is gone. `fold` is on the busiest process's path: one dict look-up an
effect, paths are split only when they are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from zkd.jute import txn as jute
from zkd.jute.codec import Malformed
from zkd.tree.effects import ACL, CHANGED, CLOSED, CREATED, DELETED, QUOTA, SESSION, STAT, Effect

ENTRY_BYTES: Final = 400
"""Memory of one entry beside its path and data: tuple, stat, dict slot, object headers."""
NO_OWNER: Final = bytes(8)
ERROR_TYPE: Final = b"\xff\xff\xff\xff"
CLOSE_TYPE: Final = b"\xff\xff\xff\xf5"


class Changes:
    """Net changes of consecutive transactions up to `zxid`."""

    __slots__ = (
        "_closed_digest",
        "_digest_body",
        "bytes",
        "nodes",
        "owners",
        "sessions",
        "txns",
        "zxid",
    )

    def __init__(self) -> None:
        self.nodes: dict[str, Effect] = {}
        self.owners: dict[tuple[int, str], bool] = {}
        """(raw owner, path) -> whether it is there: ephemerals, containers, TTL nodes."""
        self.sessions: dict[int, int | None] = {}
        """session -> timeout in ms, None when it is closed."""
        self.zxid = 0
        self.txns = 0
        self.bytes = 0
        """About how much memory all of this holds."""
        self._digest_body = b""
        self._closed_digest = 0

    def fold(self, txns: Iterable[tuple[Any, ...]]) -> None:
        """Take in Txns (or (zxid, .., body at 5, effects at 6) tuples) in order."""
        txn = None
        for txn in txns:
            body = txn[5]
            if body[28:32] != ERROR_TYPE:
                self._digest_body = body
                self.effects(txn[6])
            self.txns += 1
        if txn is not None:
            self.zxid = txn[0]

    def effects(self, effects: Iterable[Effect]) -> None:
        """Take in the effects of one transaction."""
        nodes = self.nodes
        for effect in effects:
            kind = effect[0]
            if kind == CREATED:
                path = effect[1]
                nodes[path] = effect
                data = effect[3]
                self.bytes += ENTRY_BYTES + len(path) + (len(data) if data else 0)
                owner = effect[2][44:52]
                if owner != NO_OWNER:
                    self.owners[(int.from_bytes(owner, "big", signed=True), path)] = True
            elif kind == STAT:
                path = effect[1]
                old = nodes.get(path)
                if old is None:
                    nodes[path] = effect
                    self.bytes += ENTRY_BYTES + len(path)
                elif old[0] == STAT:
                    nodes[path] = effect
                elif old[0] != DELETED:
                    nodes[path] = (old[0], path, effect[2], *old[3:])
            elif kind in (CHANGED, QUOTA):
                self._data(effect)
            elif kind == DELETED:
                path = effect[1]
                if path not in nodes:
                    self.bytes += ENTRY_BYTES + len(path)
                nodes[path] = effect
                if effect[2]:
                    self.owners[(effect[2], path)] = False
            elif kind == ACL:
                self._acl(effect)
            elif kind == SESSION:
                self.sessions[effect[1]] = effect[2]
                self.bytes += 100
            elif kind == CLOSED:
                self.sessions[effect[1]] = None
                self._closed_digest = effect[2]
                self.bytes += 100

    def _data(self, effect: Effect) -> None:
        path = effect[1]
        data = effect[3]
        size = len(data) if data else 0
        old = self.nodes.get(path)
        if old is None:
            self.nodes[path] = effect
            self.bytes += ENTRY_BYTES + len(path) + size
            return
        before = old[0]
        if before == CREATED:
            self.nodes[path] = (CREATED, path, effect[2], data, old[4])
        elif before == ACL:
            self.nodes[path] = (CREATED, path, effect[2], data, old[3])
        elif before != DELETED:
            self.nodes[path] = effect
        if before in (CREATED, CHANGED, QUOTA):
            size -= len(old[3]) if old[3] else 0
        self.bytes += size

    def _acl(self, effect: Effect) -> None:
        path = effect[1]
        old = self.nodes.get(path)
        if old is None:
            self.nodes[path] = effect
            self.bytes += ENTRY_BYTES + len(path) + 100
        elif old[0] in (CREATED, CHANGED, QUOTA):
            self.nodes[path] = (CREATED, path, effect[2], old[3], effect[3])
        elif old[0] != DELETED:
            self.nodes[path] = effect

    def digest(self) -> int | None:
        """The tree's digest after the last of these transactions: what it carries, or, if it is a
        closeSession without its list, what its effect says; 0 (unknown) if nobody says it. None if
        all of them are errors, which leave it as it was."""
        body = self._digest_body
        if not body:
            return None
        try:
            told = jute.decode(body, len(body)).digest
        except Malformed:
            return 0
        if told is None and body[28:32] == CLOSE_TYPE:
            return self._closed_digest
        return told or 0
