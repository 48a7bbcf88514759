"""What operators see of a member: its mode and state, and the learners of a leader.

Everything is read from the core when it is asked for. The words are Apache ZooKeeper's
(`QuorumPeer.getDetailedPeerState`, `LeaderZooKeeperServer.registerMetrics`); a number that only a
leader has is None elsewhere, and then is not shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from zkd.jute.quorum import Kind
from zkd.zab import catch_up, establish
from zkd.zab.establish import Establishing
from zkd.zab.leader import Leader
from zkd.zab.learner import Learner
from zkd.zab.learner_link import FORWARDING
from zkd.zab.votes import ServerState

if TYPE_CHECKING:
    from zkd.server.metrics import Metrics
    from zkd.zab.learner_link import LearnerLink
    from zkd.zab.peer import Peer

READ_ONLY: Final = "read-only"
_MODES: Final = {
    ServerState.LEADING: "leader",
    ServerState.FOLLOWING: "follower",
    ServerState.OBSERVING: "observer",
    ServerState.LOOKING: "looking",
}
_DISCOVERY: Final = (
    establish.Phase.DISCOVERY, establish.Phase.PROMISING, establish.Phase.EPOCH_ACK,
    catch_up.Phase.CONNECTING, catch_up.Phase.DISCOVERY, catch_up.Phase.PROMISING,
)  # fmt: skip
_HEADS: Final = {Kind.DIFF: "diff", Kind.TRUNC: "trunc", Kind.SNAP: "snap"}


def mode(core: Peer, *, read_only: bool = False) -> str:
    """leader, follower, observer, read-only; looking while none of them (nobody is served then)."""
    return READ_ONLY if read_only else _MODES[core.server_state]


def detailed_state(core: Peer) -> str:
    """`peer_state` of mntr: "leading - broadcast", "following - synchronization - diff"."""
    parts = [core.server_state.name.lower()]
    role = core.role
    if role is not None:
        if core.serving:
            parts.append("broadcast")
        else:
            parts.append("discovery" if role.phase in _DISCOVERY else "synchronization")
    if isinstance(role, Learner) and role.head is not None:
        parts.append(_HEADS.get(role.head, ""))
    return " - ".join(part for part in parts if part)


def statistics(core: Peer, *, read_only: bool = False) -> dict[str, Any]:
    """The parts of what the peer answers that an ensemble adds (gathered.Peer)."""
    answer: dict[str, Any] = {
        "mode": mode(core, read_only=read_only),
        "serving": core.serving or read_only,
        "read_only": read_only,
        "server_id": core.state.sid,
        "state": detailed_state(core),
    }
    leader = leader_of(core)
    if leader is not None:
        answer["leader_id"] = leader
        line = core.state.committed.servers.get(leader)
        if line is not None:
            answer["leader_address"] = line.addresses[0].host
    return answer


def leader_of(core: Peer) -> int | None:
    """The id of who leads; None while that is open."""
    if isinstance(core.role, Leader):
        return core.state.sid
    return core.role.leader if core.role is not None else None


class Followers:
    """The learners of a core that leads, or follows and serves observers."""

    def __init__(self, core: Peer) -> None:
        self._core = core

    def _links(self) -> list[LearnerLink]:
        role = self._core.role
        if isinstance(role, Leader):
            return list(role.links.values())
        if role is not None and role.master is not None:
            return list(role.master.links.values())
        return []

    def _synced(self, *, observers: bool) -> list[LearnerLink]:
        """Those that are sent what is proposed, or what is committed."""
        return [
            link
            for link in self._links()
            if link.phase in FORWARDING and link.observer is observers
        ]

    @property
    def learners(self) -> int | None:
        """All connections, whatever they are at."""
        return len(self._links()) if isinstance(self._core.role, Establishing) else None

    @property
    def synced_followers(self) -> int | None:
        """Followers, voting or not, that are up to date."""
        leads = isinstance(self._core.role, Leader)
        return len(self._synced(observers=False)) if leads else None

    @property
    def synced_non_voting(self) -> int | None:
        """Those of them that no configuration names as voters."""
        if not isinstance(self._core.role, Leader):
            return None
        voters = {line.id for line in self._core.state.committed.voters()}
        return sum(link.sid not in voters for link in self._synced(observers=False))

    @property
    def synced_observers(self) -> int | None:
        role = self._core.role
        serves = isinstance(role, Leader) or (role is not None and role.master is not None)
        return len(self._synced(observers=True)) if serves else None

    @property
    def pending_syncs(self) -> int | None:
        role = self._core.role
        return role.pending_syncs if isinstance(role, Leader) else None


def register(
    metrics: Metrics, core: Callable[[], Peer | None], led_ms: Callable[[], int | None]
) -> None:
    """Have `metrics` show all of this. `core`: the present one, if any; `led_ms`: how long this
    server has led, None if it does not. The sizes of proposals are fed by whoever proposes."""

    def of(read: Callable[[Followers], int | None]) -> Callable[[], int | None]:
        def look() -> int | None:
            present = core()
            return read(Followers(present)) if present is not None else None

        return look

    def voters() -> int | None:
        present = core()
        return len(present.state.committed.voters()) if present is not None else None

    metrics.gauge("learners", of(lambda seen: seen.learners))
    metrics.gauge("synced_followers", of(lambda seen: seen.synced_followers))
    metrics.gauge("synced_non_voting_followers", of(lambda seen: seen.synced_non_voting))
    metrics.gauge("synced_observers", of(lambda seen: seen.synced_observers))
    metrics.gauge("pending_syncs", of(lambda seen: seen.pending_syncs))
    metrics.gauge("leader_uptime", led_ms)
    metrics.gauge("quorum_size", voters)
