"""An oracle for a pair of servers (the file of `oraclePath`): lets one go on when the other fails.

    at most one server is let go on alone, and it has everything that was ever delivered

It knows what a witness could know, and more. That it is right is its keeper's business in real
life; what the servers make of its word is looked at here.
"""

from __future__ import annotations

from tests.zab.group import Group
from tests.zab.node import Node
from zkd.zab import inputs as i

ASK_MS = 100


class Oracle:
    def __init__(self, group: Group) -> None:
        self.group = group
        group.oracle_says = dict.fromkeys(group.nodes, "0")
        self._ask()

    def _ask(self) -> None:
        group = self.group
        for one, other in ((1, 2), (2, 1)):
            node = group.nodes[one]
            if node.peer is not None and group.nodes[other].peer is None and self._has_all(node):
                self._grant(one)
        group.after(ASK_MS, self._ask)

    def _has_all(self, node: Node) -> bool:
        history = self.group.history
        disks = [other.disk for other in self.group.nodes.values()]
        newest = max((disk.current, disk.end()) for disk in disks)
        mine = (node.disk.current, node.disk.end())
        return mine == newest and (not history or node.disk.holds(history[-1]))

    def _grant(self, sid: int) -> None:
        group = self.group
        if group.alone == {sid}:
            return
        group.alone = {sid}
        group.count("oracle's words")
        group.log(sid, "may go on alone", None)
        for node in group.nodes.values():
            said = "1" if node.sid == sid else "0"
            group.oracle_says[node.sid] = said
            if node.peer is not None:
                node.feed(i.Oracle(said))
