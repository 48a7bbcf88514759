"""Which containers and TTL nodes go, when, and how fast (spec client-protocol section 8.1)."""

from __future__ import annotations

import pytest
from tree_support import TTL_OWNER, Server, raw_stat

from zkd.jute.codec import string
from zkd.jute.protocol import Op
from zkd.tree.containers import ContainerManager, ContainerSettings, is_candidate
from zkd.tree.settings import TreeSettings

EXTENDED = TreeSettings(extended_types_enabled=True)
NOW = 1_000_000
CONTAINER = -(1 << 63)


@pytest.mark.parametrize(
    ("fields", "never_used_ms", "due"),
    [
        ({"owner": 0, "cversion": 5}, 0, False),
        ({"owner": 7, "cversion": 5}, 0, False),
        ({"owner": CONTAINER, "cversion": 1}, 0, True),
        ({"owner": CONTAINER, "cversion": 1, "children": 1}, 0, False),
        ({"owner": CONTAINER, "cversion": 0}, 0, False),
        ({"owner": CONTAINER, "cversion": 0, "mtime": NOW - 500}, 500, False),
        ({"owner": CONTAINER, "cversion": 0, "mtime": NOW - 501}, 500, True),
        ({"owner": TTL_OWNER | 500, "mtime": NOW - 500}, 0, False),
        ({"owner": TTL_OWNER | 500, "mtime": NOW - 501}, 0, True),
        ({"owner": TTL_OWNER | 500, "mtime": NOW - 501, "children": 1}, 0, False),
    ],
)
def test_candidates(fields: dict[str, int], never_used_ms: int, due: bool) -> None:
    containers = ContainerSettings(max_never_used_interval_ms=never_used_ms)
    assert is_candidate(raw_stat(**fields), NOW, containers, EXTENDED) == due


def test_ttl_owners_are_sessions_without_extended_types() -> None:
    stat = raw_stat(owner=TTL_OWNER | 5, mtime=0)
    assert not is_candidate(stat, NOW, ContainerSettings(), TreeSettings())
    emulated = TreeSettings(extended_types_enabled=True, emulate_353=True)
    old = raw_stat(owner=-(1 << 63) | 5, mtime=0)
    assert is_candidate(old, NOW, ContainerSettings(), emulated)
    assert not is_candidate(old, NOW, ContainerSettings(), EXTENDED)


def server_with_containers(count: int) -> Server:
    server = Server(EXTENDED)
    for number in range(count):
        server.create(f"/c{number:04d}", op=Op.CREATE_CONTAINER, flags=4)
        server.create(f"/c{number:04d}/x")
        server.delete(f"/c{number:04d}/x")
    return server


def test_deletions_are_paced_evenly_and_by_interval() -> None:
    server = server_with_containers(30)
    manager = ContainerManager(ContainerSettings(1000, 600), EXTENDED, 0)
    assert manager.due(server.state, 999, NOW) == []
    gone: list[str] = []
    for now_ms in range(1000, 4001, 50):
        for path in manager.due(server.state, now_ms, NOW):
            assert server.ask(Op.DELETE_CONTAINER, string(path), session=0)[0] == 0
            gone.append(path)
        assert len(gone) <= (now_ms - 1000) // 100 + 1
    assert sorted(gone) == [f"/c{number:04d}" for number in range(30)]
    assert manager.due(server.state, 9000, NOW) == []


def test_what_got_a_child_meanwhile_stays() -> None:
    server = server_with_containers(3)
    manager = ContainerManager(ContainerSettings(1000, 600), EXTENDED, 0)
    first = manager.due(server.state, 1000, NOW)
    assert len(first) == 1
    for number in range(3):
        server.create(f"/c{number:04d}/x")
    assert manager.due(server.state, 5000, NOW) == []


def test_a_long_list_is_looked_at_in_slices() -> None:
    server = Server(EXTENDED)
    for number in range(1200):
        server.create(f"/c{number:04d}", op=Op.CREATE_CONTAINER, flags=4)
    server.create("/c1199/x")
    server.delete("/c1199/x")
    manager = ContainerManager(ContainerSettings(1000), EXTENDED, 0)
    calls = [manager.due(server.state, 1000 + number, NOW) for number in range(4)]
    assert calls == [[], [], ["/c1199"], []]
