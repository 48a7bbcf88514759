"""zkd and Apache ZooKeeper in one ensemble: each leads the other, is killed, and comes back."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests import apache
from tests.conformance import wire
from tests.ensemble import Writer, seen, until
from tests.mixed import APACHE, ZKD, Mixed
from zkd.jute.protocol import Err

pytestmark = pytest.mark.apache


@pytest.fixture(autouse=True)
def _apache_is_there() -> None:
    reason = apache.missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(name="mixed")
def _mixed() -> Iterator[Mixed]:
    with Mixed(3) as mixed:
        yield mixed


def led_by(mixed: Mixed, kinds: dict[int, str], first: tuple[int, int]) -> int:
    """Start the members; the later of the first two leads, since its number is greater."""
    for sid in first:
        mixed.start(sid, kinds[sid])
    mixed.serves(*first)
    for sid in set(kinds) - set(first):
        mixed.start(sid, kinds[sid])
        mixed.serves(sid)
    leader = max(first)
    assert mixed.mode(leader) == "leader"
    return leader


def assert_equal_everywhere(mixed: Mixed, written: set[str]) -> None:
    trees = {}
    for sid in mixed.lines:
        mixed.serves(sid)
        trees[sid] = seen(mixed.client(sid))
        if mixed.kinds[sid] == ZKD:
            assert mixed.told(sid, "mntr").get("zk_digest_mismatches_count", "0") == "0"
    one = trees.pop(1)
    assert written <= set(one["/w"][2])
    for tree in trees.values():
        assert tree == one


ZKD_FOLLOWS = {1: APACHE, 2: APACHE, 3: ZKD}, (1, 2)
ZKD_LEADS = {1: APACHE, 2: APACHE, 3: ZKD}, (1, 3)
ZKD_HAS_TWO = {1: ZKD, 2: ZKD, 3: APACHE}, (1, 3)


@pytest.mark.parametrize("who", [ZKD_FOLLOWS, ZKD_LEADS, ZKD_HAS_TWO])
def test_any_member_is_killed_under_load_and_comes_back(
    mixed: Mixed, who: tuple[dict[int, str], tuple[int, int]]
) -> None:
    """By DIFF, in both directions."""
    kinds, first = who
    led_by(mixed, kinds, first)
    writer = Writer(mixed.client())
    for sid in (3, 1, 2):
        writer.more()
        mixed.kill(sid)
        writer.more()
        mixed.start(sid, kinds[sid])
        mixed.serves(sid)
    assert_equal_everywhere(mixed, writer.stop())


@pytest.mark.parametrize("who", [ZKD_FOLLOWS, ZKD_LEADS])
def test_a_member_without_data_gets_a_snapshot(
    mixed: Mixed, who: tuple[dict[int, str], tuple[int, int]]
) -> None:
    """zkd of Apache ZooKeeper's, or Apache ZooKeeper of zkd's."""
    kinds, first = who
    led_by(mixed, kinds, first)
    client = mixed.client()
    for name in ("eph", "big"):
        client.create(f"/{name}")
    client.create("/eph/mine", b"", ephemeral=True)
    client.create("/big/node", b"x" * 500_000)
    writer = Writer(client)
    writer.more(200)
    sid = 3 if who is ZKD_FOLLOWS else 1
    mixed.kill(sid)
    mixed.forget(sid)
    mixed.start(sid, kinds[sid])
    mixed.serves(sid)
    writer.more()
    assert_equal_everywhere(mixed, writer.stop())


@pytest.mark.parametrize("leads", [ZKD, APACHE])
def test_what_nobody_else_has_is_truncated(mixed: Mixed, leads: str) -> None:
    """A leader logs what no other hears of, and comes back to those who have gone on."""
    others = APACHE if leads == ZKD else ZKD
    kinds = {1: others, 2: others, 3: leads}
    led_by(mixed, kinds, (1, 3))
    client = mixed.client(3)
    client.create("/before")
    for sid in (1, 2):
        mixed.kill(sid, signal.SIGSTOP)
    lost = [client.create_async(f"/lost-{i}") for i in range(5)]
    log = mixed.log_of(3)
    until(lambda: b"/lost-4" in b"".join(path.read_bytes() for path in log()))
    for sid in (3, 1, 2):
        mixed.kill(sid)
    for sid in (1, 2):
        mixed.start(sid, kinds[sid])
    mixed.serves(1, 2)
    mixed.client(1, 2).create("/after")
    mixed.start(3, leads)
    mixed.serves(3)
    assert not any(each.ready() and each.exception is None for each in lost)
    back = mixed.client(3)
    assert sorted(back.get_children("/")) == ["after", "before", "zookeeper"]
    back.create("/w")
    assert_equal_everywhere(mixed, set())


def test_a_request_that_the_leader_cannot_read_is_answered_in_its_turn(mixed: Mixed) -> None:
    """Apache ZooKeeper proposes nothing for it, and says nothing."""
    led_by(mixed, *ZKD_FOLLOWS)
    client = wire.Client(mixed.ports[3])
    good = wire.create("/good", b"", wire.OPEN, 0)
    client.send(
        wire.request(50, wire.CREATE, b"\x7f\xff\xff\xff"),
        wire.request(51, 9, wire.text("/")),
        wire.request(52, wire.CREATE, b"\x7f\xff\xff\xff"),
        wire.request(53, wire.CREATE, good),
    )
    answers = []
    for _ in range(4):
        reply = client.receive()
        assert reply is not None
        answers.append((int.from_bytes(reply[:4]), int.from_bytes(reply[12:16], signed=True)))
    bad = Err.MARSHALLING_ERROR
    assert answers == [(50, bad), (51, 0), (52, bad), (53, 0)]
    client.close()
