"""The storage process of a member: the peer's orders, each answered when it is durable, and what is
found after SIGKILL in the middle of one."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.member.scripted import LIMIT_S, Member, Tree
from zkd.bus.messages import (
    COMMITTED,
    DURABLE,
    EPOCHS,
    IMPOSSIBLE,
    INSTALL,
    INSTALLED,
    JOIN,
    SAVED,
    TRUNCATE,
    TRUNCATED,
    TXNS,
    decode,
)
from zkd.bus.sockets import Inbox

SNAP = 7 << 32 | 5


@pytest.fixture(name="member")
def _member() -> Iterator[Member]:
    with Member() as member:
        yield member


@pytest.fixture(name="tree")
def _tree(member: Member) -> Iterator[Tree]:
    """Ten transactions are durable, none is committed."""
    member.start("storage")
    assert member.open() == (0, 1, 0, 0, "", 0)
    base = member.read_tree()
    tree = Tree(base)
    append(member, tree.creates(0, 10))
    yield tree
    base.close()


def append(member: Member, txns: list[Any]) -> None:
    member.order(TXNS, member.seq, txns)
    member.seq += 1
    member.expect(DURABLE, where=lambda message: message[3] == txns[-1][0])


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # between two looks, not instead of one


def test_each_batch_is_told_and_nothing_is_committed_by_it(member: Member, tree: Tree) -> None:
    for i in range(10, 13):
        append(member, [tree.create(f"/n{i}")])
    member.order(COMMITTED, 11)
    eventually(lambda: member.tree_zxid() == 11)
    assert member.has("/n10", "/n11") == [True, False]


def test_a_restarted_peer_finds_what_is_not_committed(member: Member, tree: Tree) -> None:
    member.order(COMMITTED, 4)
    eventually(lambda: member.tree_zxid() == 4)
    member.new_peer()
    assert member.open() == (10, 1, 0, 0, "", 4)
    member.order(COMMITTED, 10)
    eventually(lambda: member.tree_zxid() == 10)


def test_restarted_storage_commits_the_rows_that_it_finds(member: Member, tree: Tree) -> None:
    member.order(COMMITTED, 4)
    eventually(lambda: member.tree_zxid() == 4)
    member.processes["storage"].kill()
    member.start("storage")
    assert member.open() == (10, 1, 0, 0, "", 4)
    append(member, [tree.create("/later")])
    member.order(COMMITTED, 11)
    eventually(lambda: member.tree_zxid() == 11)
    assert member.has("/n3", "/n9", "/later") == [True, True, True]


def test_epochs_are_answered_behind_what_came_before(member: Member, tree: Tree) -> None:
    member.order(TXNS, member.seq, [tree.create("/x")])
    member.order(EPOCHS, 7, 6)
    assert member.expect(DURABLE, SAVED)[3] == 11
    assert member.expect(SAVED) == (SAVED, member.incarnation, 7, 6)
    assert member.open()[2:4] == (7, 6)


def test_truncation_ends_the_log_and_never_undoes(member: Member, tree: Tree) -> None:
    member.order(COMMITTED, 4)
    for zxid, answer in ((8, 8), (3, IMPOSSIBLE), (1 << 32, IMPOSSIBLE)):
        member.order(TRUNCATE, zxid)
        assert member.expect(TRUNCATED)[2] == answer
    member.order(COMMITTED, 8)
    eventually(lambda: member.tree_zxid() == 8)
    assert member.open()[0] == 8


def test_orders_of_an_older_incarnation_are_refused(member: Member, tree: Tree) -> None:
    old = member.incarnation
    member.open()
    member.send("storage", EPOCHS, old, 3, 3)
    member.send("storage", TRUNCATE, old, 2)
    member.send("storage", COMMITTED, old, 9)
    member.order(EPOCHS, 5, 5)
    assert member.expect(SAVED, TRUNCATED)[2:] == (5, 5)
    assert member.open()[0] == 10
    assert member.tree_zxid() == 0


def test_commit_observers_hear_of_what_is_committed_alone(member: Member, tree: Tree) -> None:
    life = member.next_life()
    admin = Inbox(member.context, member.runtime, "admin", life)
    try:
        member.send("storage", JOIN, "admin", life, [])
        heard = [durable_told(admin)]
        member.order(COMMITTED, 4)
        heard.append(durable_told(admin))
        assert heard == [0, 4]
    finally:
        admin.close()


def durable_told(inbox: Inbox) -> int:
    """The zxid of the next DURABLE."""
    deadline = time.monotonic() + LIMIT_S
    while not (frame := inbox.recv(0.1)):
        assert time.monotonic() < deadline
    kind, _, _, zxid, *_ = decode(frame)
    assert kind == DURABLE
    return int(zxid)


def rows_behind_the_snapshot(member: Member) -> list[tuple[int, bytes]]:
    """The snapshot is there; these follow it."""
    member.snapshot(SNAP, "/snapped")
    base = member.read_tree()
    tree = Tree(base)
    tree.zxid = SNAP
    rows = [(txn[0], txn[5]) for txn in tree.creates(100, 3)]
    base.close()
    return rows


def test_a_snapshot_takes_the_place_of_tree_log_and_epochs(member: Member, tree: Tree) -> None:
    rows = rows_behind_the_snapshot(member)
    member.order(INSTALL, SNAP, rows, 8, 8)
    assert member.expect(INSTALLED, DURABLE) == (INSTALLED, member.incarnation, SNAP, 2)
    assert member.expect(DURABLE)[3:5] == (SNAP + 3, SNAP)
    assert member.has("/snapped", "/n1", "/n100") == [True, False, False]
    member.order(COMMITTED, SNAP + 2)
    eventually(lambda: member.tree_zxid() == SNAP + 2)
    assert member.has("/snapped", "/n101", "/n102") == [True, True, False]
    assert member.open() == (SNAP + 3, 2, 8, 8, "", SNAP + 2)


def test_a_log_that_lost_its_end_says_so_until_a_snapshot_has_come(
    member: Member, tree: Tree
) -> None:
    member.processes["storage"].kill()
    with contextlib.closing(sqlite3.connect(member.data / "log.db")) as db:
        db.execute("DELETE FROM txn WHERE zxid > 7")
        db.commit()
    member.start("storage")
    durable, _, _, _, why, committed = member.open()
    assert (durable, committed) == (7, 0)
    assert "0xa was durable" in why
    member.order(INSTALL, SNAP, rows_behind_the_snapshot(member), 8, 8)
    member.expect(INSTALLED)
    assert member.open() == (SNAP + 3, 2, 8, 8, "", SNAP)


Order = Callable[[Member], tuple[Any, ...]]
ORDERS: dict[str, Order] = {
    "epochs": lambda member: (EPOCHS, 7, 6),
    "truncate": lambda member: (TRUNCATE, 8),
    "install": lambda member: (INSTALL, SNAP, rows_behind_the_snapshot(member), 8, 8),
    "commit": lambda member: (COMMITTED, 6),
}
OLD = (10, 0, 0)
"""durable, accepted and current epoch before the order."""


@pytest.mark.parametrize(
    ("order", "point", "after"),
    [
        ("epochs", "log.epoch", OLD),
        ("epochs", "member.before-saved", (10, 7, 6)),
        ("truncate", "log.truncate", OLD),
        ("truncate", "log.truncated", (8, 0, 0)),
        ("truncate", "member.before-truncated", (8, 0, 0)),
        ("install", "log.truncate", OLD),
        ("install", "generation.switched", (SNAP + 3, 8, 8)),
        ("install", "member.before-installed", (SNAP + 3, 8, 8)),
        ("commit", "member.before-commit", OLD),
    ],
)
def test_killed_in_an_order_it_is_done_or_not(
    member: Member, tree: Tree, order: str, point: str, after: tuple[int, int, int]
) -> None:
    """All of it or nothing; and whatever was found, the server can be brought on from there."""
    member.processes["storage"].kill()
    process = member.start("storage", f"{point}=kill")
    member.open()
    member.order(*ORDERS[order](member))
    process.killed()
    member.start("storage")
    durable, _generation, accepted, current, why, _committed = member.open()
    assert (durable, accepted, current) == after
    assert why == ""
    member.order(EPOCHS, 9, 9)
    assert member.expect(SAVED)[2:] == (9, 9)
    member.order(COMMITTED, durable)
    eventually(lambda: member.tree_zxid() == durable)
    assert member.has("/snapped")[0] == (durable > SNAP)
