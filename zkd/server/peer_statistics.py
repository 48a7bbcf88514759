"""What the peer answers to a QUERY (see fourletter.Peer)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zkd.server.peer import PeerProcess


def collect(peer: PeerProcess, what: dict[str, Any]) -> dict[str, Any]:
    """The peer's statistics; the costly parts only if `what` names them."""
    wanted = what.get("parts", ())
    tree = peer.tree
    if what.get("reset") == "server":
        peer.metrics.reset()
    answer: dict[str, Any] = {
        "name": peer.child.name,
        "pid": os.getpid(),
        "mode": "standalone",
        "serving": peer.serving,
        "read_only": False,
        "accepting": peer.accepting,
        "zxid": peer.seen_zxid(),
        "durable": peer.durable,
        "incarnation": peer.incarnation,
        "node_count": tree.node_count if tree is not None else 0,
        "data_bytes": tree.data_bytes if tree is not None else 0,
        "uptime_ms": int((time.monotonic() - peer.began) * 1000),
        "server_id": 0,
        "session_count": len(peer.sessions),
    }
    if tree is None:
        return answer
    if "sessions" in wanted:
        answer["sessions"] = peer.sessions.dump(time.monotonic(), time.time())
    if "ephemerals" in wanted:
        owners = {s: sorted(tree.ephemerals(s)) for s in tree.sessions}
        answer["ephemerals"] = {s: paths for s, paths in owners.items() if paths}
    if "digests" in wanted:
        answer["digests"] = list(peer.digests)
    if "metrics" in wanted:
        answer["metrics"] = peer.metrics.dump()
    return answer
