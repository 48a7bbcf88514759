"""What tests of ensembles share: cases by kinds of members, equal trees, how a member came back.

A case is a string of kinds ("AAZ": Apache ZooKeeper as 1 and 2, zkd as 3). Cases without zkd show
that a test asks what Apache ZooKeeper itself does; they are slow, since they say nothing of zkd.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import pytest

from tests import apache
from tests.ensembles.manager import APACHE, ZKD, Ensemble
from tests.ensembles.trees import Tree, differences, tree_of

ZKD_SERVES = False
"""zkd cannot be a member of an ensemble yet; its cases are left out until it can."""
DIFF, TRUNC, SNAP = "DIFF", "TRUNC", "SNAP"
# What Apache ZooKeeper logs as a learner, and of its learners.
_AS_LEARNER = re.compile(r"(Getting a diff|Truncating log|Getting a snapshot)\b")
_AS_LEADER = re.compile(r"Sending (DIFF|TRUNC|snapshot)\b.*")
# zkd names the packet that it gets as a learner.
_OF_ZKD = re.compile(r"\b(DIFF|TRUNC|SNAP)\b")
_WAYS = {
    "Getting a diff": DIFF, "Truncating log": TRUNC, "Getting a snapshot": SNAP,
    "DIFF": DIFF, "TRUNC": TRUNC, "snapshot": SNAP,
}  # fmt: skip


def cases(*kinds: str, slow: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Parametrise a test by `kinds`; all-Apache cases and those of `slow` are marked slow."""
    parameters = []
    for case in kinds:
        if ZKD in case.upper() and not ZKD_SERVES:
            continue
        marks = []
        if APACHE in case.upper():
            marks.append(pytest.mark.apache)
        if ZKD not in case.upper() or case in slow:
            marks.append(pytest.mark.slow)
        parameters.append(pytest.param(case, marks=marks, id=case))
    return pytest.mark.parametrize("kinds", parameters)


def need(kinds: str) -> None:
    """Skip what needs Apache ZooKeeper where it is not installed."""
    if APACHE in kinds and (reason := apache.missing()):
        pytest.skip(reason)


async def same_trees(members: Ensemble, *sids: int) -> Tree:
    """All these members (default: all) have the same tree, node by node, Stat by Stat; that tree.

    The load must have come to rest, its sessions still alive.
    """
    read = await asyncio.gather(*(tree_of(members.address(s)) for s in sids or members.places))
    for sid, tree in zip(sids or members.places, read, strict=True):
        found = differences(read[0], tree)
        assert not found, f"member {sid} differs:\n" + "\n".join(found)
    return read[0]


def below(tree: Tree, top: str) -> Tree:
    """The part of a tree at and below a path."""
    return {p: node for p, node in tree.items() if p == top or p.startswith(top + "/")}


class Rejoin:
    """How a learner that starts now will be synchronised, as the logs of both sides tell.

    Made before the learner starts; it looks at what is logged from then on.
    """

    def __init__(self, members: Ensemble, learner: int, leader: int) -> None:
        self.members = members
        self.learner, self.leader = learner, leader
        self._from = {sid: members.log_end(sid) for sid in (learner, leader)}

    @property
    def first(self) -> str | None:
        """The way of its first try. (Apache ZooKeeper 3.8.0 may need a second one under load: its
        learner can fail over a COMMIT that comes between NEWLEADER and UPTODATE.)"""
        text = self.members.log_from(self.learner, self._from[self.learner])
        if self.members.kinds[self.learner] == APACHE:
            found = _AS_LEARNER.search(text)
            return _WAYS[found.group(1)] if found else None
        if self.members.kinds[self.leader] == APACHE:
            text = self.members.log_from(self.leader, self._from[self.leader])
            lines = (found for found in _AS_LEADER.finditer(text))
            ways = (_WAYS[found.group(1)] for found in lines if self._is_ours(found.group()))
            return next(ways, None)
        found = _OF_ZKD.search(text)
        return found.group(1) if found else None

    def _is_ours(self, line: str) -> bool:
        peer = re.search(r"for peer sid: ?(\d+)", line)
        return peer is None or int(peer.group(1)) == self.learner
