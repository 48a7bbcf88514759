"""How long the peer's validation takes: microseconds for each request on a warm state.

    python tests/bench/prepare_speed.py [requests]

One core, no I/O: the tree below is a dict. CPU time, the best of several rounds.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

from zkd.jute.codec import buffer, int_, string
from zkd.jute.messages import encode_multi
from zkd.jute.protocol import Op
from zkd.jute.records import WORLD_ALL, CreateRequest, SetDataRequest
from zkd.tree.prepare import Prepared, Preparer
from zkd.tree.settings import TreeSettings
from zkd.tree.stat import STAT
from zkd.tree.state import TreeState

ROUNDS = 7
IDENTITIES = (("ip", "127.0.0.1"),)


class DictBase:
    """A tree on no disk at all."""

    def __init__(self, nodes: dict[str, tuple[bytes | None, bytes, bytes | None]]) -> None:
        self.nodes = nodes
        self.zxid = 1
        self.digest = 0
        self.node_count = len(nodes)
        self.data_bytes = 0
        self.node = nodes.get

    def last_child(self, path: str) -> str:
        return ""

    def ephemerals(self, owner: int) -> list[str]:
        return []

    def sessions(self) -> dict[int, int]:
        return {}

    def specials(self) -> list[tuple[str, int]]:
        return []

    def quotas(self) -> list[tuple[str, bytes | None]]:
        return []

    def usage(self, path: str) -> tuple[int, int]:
        return 0, 0


class Registry:
    """Knows no scheme."""

    def is_valid(self, scheme: str, id_: str) -> bool:
        return False

    def matches(self, identities: object, scheme: str, id_: str) -> bool:
        return False

    def is_authenticated(self, scheme: str) -> bool:
        return False


def state_with(children: int) -> Preparer:
    """A state over /, /bench and `children` nodes below it."""
    stat = STAT.pack(1, 1, 1, 1, 0, children, 0, 0, 0, children, 1)
    leaf = STAT.pack(1, 1, 1, 1, 0, 0, 0, 0, 100, 0, 1)
    nodes: dict[str, tuple[bytes | None, bytes, bytes | None]] = {
        "/": (b"", STAT.pack(0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1), None),
        "/bench": (b"", stat, None),
    }
    for i in range(children):
        nodes[f"/bench/node-{i:08d}"] = (b"x" * 100, leaf, None)
    settings = TreeSettings()
    return Preparer(
        TreeState(DictBase(nodes), cache_bytes=1 << 30, settings=settings), settings, Registry()
    )


def measure(name: str, bodies: list[tuple[int, bytes]], fresh: Callable[[], Preparer]) -> float:
    """Best time of a request in microseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        preparer = fresh()
        prepare = preparer.prepare
        gc.collect()
        gc.disable()
        zxid = 2
        start = time.process_time()
        for op, body in bodies:
            zxid += 1
            prepare(op, body, 0x100000000000001, zxid, IDENTITIES, zxid, 1_700_000_000_000)
        spent = time.process_time() - start
        gc.enable()
        answer: Prepared = prepare(*bodies[0], 1, 1, IDENTITIES, zxid + 1, 1)
        assert answer[1], name
        best = min(best, spent / len(bodies))
    print(f"{name:34} {best * 1e6:6.2f} us")
    return best


def warm(children: int, paths: list[str]) -> Callable[[], Preparer]:
    """States whose cache knows `paths` already."""

    def fresh() -> Preparer:
        preparer = state_with(children)
        for path in paths:
            preparer.state.get(path)
        return preparer

    return fresh


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    data = b"d" * 100
    hundred = [f"/bench/node-{i:08d}" for i in range(100)]
    spread = [f"/bench/node-{i:08d}" for i in range(count)]
    new = [f"/bench/new-{i:08d}" for i in range(count)]

    def set_data(path: str) -> tuple[int, bytes]:
        return Op.SET_DATA, string(path) + buffer(data) + int_(-1)

    def create(path: str, op: int = Op.CREATE, flags: int = 0) -> tuple[int, bytes]:
        return op, CreateRequest(path, data, WORLD_ALL, flags).encode()

    measure(
        "setData, 100 nodes",
        [set_data(hundred[i % 100]) for i in range(count)],
        warm(100, ["/bench", *hundred]),
    )
    measure(
        "setData, each another node",
        [set_data(path) for path in spread],
        warm(count, ["/bench", *spread]),
    )
    measure("create, absent node known", [create(path) for path in new], warm(1, ["/bench", *new]))
    measure(
        "create, absent node asked of base", [create(path) for path in new], warm(1, ["/bench"])
    )
    measure(
        "create2 ephemeral sequential",
        [create("/bench/s-", Op.CREATE2, 3)] * count,
        warm(1, ["/bench"]),
    )
    measure(
        "delete",
        [(Op.DELETE, string(path) + int_(-1)) for path in spread],
        warm(count, ["/bench", *spread]),
    )
    measure("refused: NODEEXISTS", [create(hundred[0])] * count, warm(100, ["/bench", *hundred]))
    multi = encode_multi([(Op.SET_DATA, SetDataRequest(path, data, -1)) for path in hundred[:10]])
    measure("multi of 10 setData", [(Op.MULTI, multi)] * (count // 10), warm(100, hundred))


if __name__ == "__main__":
    main()
