"""Sessions: expiry in buckets, time given back, owners, ids, passwords.

Source: `SessionTrackerImpl.java`, `ExpiryQueue.java`; spec txn-and-storage-formats section 12.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from zkd.jute.protocol import Err
from zkd.zab.sessions import (
    NO_PASSWORD,
    SessionTracker,
    check_password,
    clamp_timeout,
    first_session_id,
    next_session_id,
    password_of,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "session-passwords.json"
TICK = 2000


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text()), ids=lambda v: v["sessionId"])
def test_passwords_are_apaches(vector: dict[str, str]) -> None:
    session = signed(int(vector["sessionId"], 16))
    assert password_of(session).hex() == vector["password"]
    assert check_password(session, bytes.fromhex(vector["password"]))
    assert not check_password(session, NO_PASSWORD)


def test_passwords_with_a_key_cannot_be_computed_without() -> None:
    assert len(password_of(-5, b"key")) == 16
    assert len({password_of(-5), password_of(-5, b"key"), password_of(-5, b"other")}) == 3
    assert password_of(-5, b"key") != password_of(5, b"key")
    assert check_password(7, password_of(7, b"key"), b"key")
    assert not check_password(7, password_of(7), b"key")
    assert not check_password(7, None)
    assert not check_password(7, b"")
    assert not check_password(0, password_of(0))


@pytest.mark.parametrize(
    ("server", "now_ms", "first"),
    [
        (1, 0, 0x0100000000000000),
        (1, 1, 0x0100000000010000),
        (1, 0xFF4750, 0x0100_0000_FF47_5000_00 >> 8),
        (3, 1 << 40, 0x0300000000000000),
        (254, 5, signed(0xFE00000000050000)),
        (128, 0, signed(0x8000000000000001)),
        (0, 0, 1),
    ],
)
def test_the_first_id_holds_server_and_clock(server: int, now_ms: int, first: int) -> None:
    if now_ms == 0xFF4750:
        first = (1 << 56) | (now_ms << 16)
    assert first_session_id(server, now_ms) == first


def test_ids_go_on_by_one_and_leave_out_the_mark_of_containers() -> None:
    assert next_session_id(7) == 8
    assert next_session_id(-1) == 1
    assert next_session_id((1 << 63) - 1) == -(1 << 63) + 1


def test_timeouts_are_clamped() -> None:
    assert [clamp_timeout(one, 4000, 40000) for one in (-1, 4000, 5000, 50000)] == [
        4000,
        4000,
        5000,
        40000,
    ]


@pytest.mark.parametrize(
    ("timeout_ms", "now_ms", "expires_ms"),
    [(4000, 0, 6000), (4000, 1999, 6000), (4000, 2000, 8000), (4001, 1999, 8000)],
)
def test_expiry_is_the_next_multiple_of_the_tick(
    timeout_ms: int, now_ms: int, expires_ms: int
) -> None:
    tracker = SessionTracker(TICK, now_ms=now_ms)
    tracker.create(5, timeout_ms, now_ms)
    assert tracker.dump() == [(5, timeout_ms, expires_ms)]
    assert tracker.expire(expires_ms - 1) == []
    assert tracker.expire(expires_ms) == [5]
    assert tracker.expire(expires_ms + 10 * TICK) == []


def test_a_touch_moves_the_session() -> None:
    tracker = SessionTracker(TICK)
    tracker.create(1, 4000, 0)
    tracker.create(2, 4000, 0)
    assert tracker.touch(1, 5000)
    assert tracker.buckets() == [(6000, [2]), (10000, [1])]
    assert tracker.expire(6000) == [2]
    assert not tracker.touch(2, 6001)
    assert tracker.expire(9999) == []
    assert tracker.expire(10000) == [1]


def test_touches_out_of_order_do_not_shorten_a_life() -> None:
    tracker = SessionTracker(TICK)
    tracker.create(1, 4000, 0)
    tracker.touch(1, 5000)
    tracker.touch(1, 3000)
    assert tracker.dump() == [(1, 4000, 10000)]


def test_expired_sessions_close_and_a_closed_one_is_unknown() -> None:
    tracker = SessionTracker(TICK)
    tracker.create(1, 4000, 0)
    assert tracker.expire(60_000) == [1]
    assert tracker.timeout_of(1) == 4000
    assert tracker.check(1, "me") == Err.SESSION_EXPIRED
    tracker.close(1)
    assert 1 not in tracker
    assert tracker.check(1, "me") == Err.UNKNOWN_SESSION
    assert tracker.check(1, "me", global_=True) == Err.SESSION_EXPIRED
    assert not tracker.touch(1, 60_000)
    assert tracker.expire(90_000) == []


def test_an_expired_session_can_begin_anew() -> None:
    tracker = SessionTracker(TICK)
    tracker.create(1, 4000, 0)
    assert tracker.expire(6000) == [1]
    tracker.create(1, 4000, 6000)
    assert tracker.touch(1, 6100)
    assert tracker.expire(11_999) == []
    assert tracker.expire(12_000) == [1]


def test_another_timeout_counts_from_now_on() -> None:
    tracker = SessionTracker(TICK)
    tracker.create(1, 40_000, 0)
    tracker.create(1, 4000, 100)
    assert tracker.expire(6000) == [1]
    tracker.create(1, 40_000, 6000)
    assert tracker.expire(47_000) == []
    assert tracker.expire(48_000) == [1]


def test_stalled_time_counts_for_nobody() -> None:
    tracker = SessionTracker(TICK)
    tracker.create(1, 4000, 0)
    tracker.give_back(7000)
    assert tracker.dump() == [(1, 4000, 13_000)]
    assert tracker.expire(12_999) == []
    tracker.touch(1, 12_999)
    assert tracker.dump() == [(1, 4000, 17_000)]
    assert tracker.next_expiry_ms() <= 17_000
    assert tracker.expire(16_999) == []
    assert tracker.expire(17_000) == [1]


def test_a_tracker_begins_with_full_times() -> None:
    tracker = SessionTracker(TICK, {1: 4000, 2: 10_000}, now_ms=100_000)
    assert tracker.dump() == [(1, 4000, 106_000), (2, 10_000, 112_000)]
    assert sorted(tracker) == [1, 2]
    assert len(tracker) == 2


def test_one_owner_at_a_time() -> None:
    tracker = SessionTracker(TICK)
    tracker.create(1, 4000, 0)
    assert tracker.check(1, "first") == 0
    assert tracker.check(1, "second") == Err.SESSION_MOVED
    assert tracker.set_owner(1, "second")
    assert tracker.check(1, "first") == Err.SESSION_MOVED
    assert tracker.check(1, "second") == 0
    tracker.set_closing(1)
    assert not tracker.set_owner(1, "third")
    assert not tracker.set_owner(9, "third")
    assert tracker.check(1, "second") == Err.SESSION_EXPIRED


@pytest.mark.parametrize("seed", range(5))
def test_random_lives_agree_with_the_rule(seed: int) -> None:
    """A session expires at the first multiple of the tick after its last touch and timeout."""
    pick = random.Random(seed)
    tracker = SessionTracker(TICK)
    due: dict[int, int] = {}
    timeouts: dict[int, int] = {}
    back = now_ms = 0
    for number in range(3000):
        now_ms += pick.randint(0, 400)
        choice = pick.random()
        if choice < 0.1:
            timeouts[number] = pick.randint(1, 20_000)
            tracker.create(number, timeouts[number], now_ms)
            due[number] = now_ms
        elif choice < 0.6 and due:
            session = pick.choice(list(due))
            assert tracker.touch(session, now_ms)
            due[session] = now_ms
        elif choice < 0.62 and due:
            session = pick.choice(list(due))
            tracker.close(session)
            del due[session]
        elif choice < 0.64:
            stall = pick.randint(0, 3000)
            now_ms += stall
            back += stall
            due = {session: heard + stall for session, heard in due.items()}
            tracker.give_back(stall)
        else:
            own = now_ms - back
            over = {
                session
                for session, heard in due.items()
                if ((heard - back + timeouts[session]) // TICK + 1) * TICK <= own
            }
            assert set(tracker.expire(now_ms)) == over
            for session in over:
                tracker.close(session)
                del due[session]
    assert set(tracker) == set(due)
