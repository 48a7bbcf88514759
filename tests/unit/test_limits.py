"""Limits and throttles, compared with what Apache ZooKeeper's classes do."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkd.config import Config
from zkd.server.limits import (
    ConnectionCounter,
    ConnectionThrottle,
    LargeRequestBudget,
    OutstandingLimit,
    RequestThrottle,
    SessionKind,
    Verdict,
    Weights,
)

OFF = Config()


def never() -> float:
    return 0.999_999


def always() -> float:
    return 0.0


def bucket(now_ms: int = 0, **settings: float) -> ConnectionThrottle:
    told = {f"connection_throttle_{name}": value for name, value in settings.items()}
    return ConnectionThrottle(replace(OFF, **told), now_ms, never)  # type: ignore[arg-type]


# -- connection throttle (BlueThrottle.java) -----------------------------------------------------


def test_a_throttle_without_tokens_admits_everybody() -> None:
    throttle = bucket()
    assert all(throttle.admits(SessionKind.GLOBAL, 0) for _ in range(1000))


def test_the_bucket_empties_and_fills_with_time() -> None:
    throttle = bucket(tokens=2, fill_time=10, fill_count=1)
    assert [throttle.admits(SessionKind.GLOBAL, 0) for _ in range(3)] == [True, True, False]
    assert throttle.deficit == 2
    assert not throttle.admits(SessionKind.GLOBAL, 10), "only more than the fill time fills"
    assert throttle.admits(SessionKind.GLOBAL, 11)
    assert not throttle.admits(SessionKind.GLOBAL, 11)
    assert throttle.admits(SessionKind.GLOBAL, 1000)
    assert throttle.tokens == 1, "never more than the bucket holds"


def test_a_filling_counts_the_whole_time_that_passed() -> None:
    """refill = diff * fillCount / fillTime, rounded down."""
    throttle = bucket(tokens=100, fill_time=10, fill_count=3)
    while throttle.admits(SessionKind.GLOBAL, 0):
        pass
    throttle.admits(SessionKind.GLOBAL, 25)
    assert throttle.tokens == 25 * 3 // 10 - 1


def test_weights_multiply_the_bucket() -> None:
    throttle = bucket(tokens=2, fill_count=1, fill_time=1000, weight_enabled=True)
    assert throttle.max_tokens == 6
    kinds = (SessionKind.GLOBAL, SessionKind.RENEW, SessionKind.LOCAL)
    assert [throttle.need(kind) for kind in kinds] == [3, 2, 1]
    assert [throttle.admits(kind, 0) for kind in kinds] == [True, True, True]
    assert not throttle.admits(SessionKind.LOCAL, 0)
    throttle.admits(SessionKind.LOCAL, 1001)
    assert throttle.tokens == 3 - 1


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ((1, 2, 3), (1, 2, 3)),
        ((0, 0, 0), (1, 2, 3)),
        ((5, 2, 3), (5, 5, 5)),
        ((-1, 1, 1), (1, 1, 1)),
        ((2, 0, 7), (2, 2, 7)),
        ((9, 0, 0), (9, 2, 3)),
    ],
)
def test_invalid_weights_are_replaced_as_the_reference_does(
    told: tuple[int, int, int], taken: tuple[int, int, int]
) -> None:
    """Local, renew, global. A weight that is not positive becomes its default, unraised."""
    settings = replace(
        OFF,
        connection_throttle_local_session_weight=told[0],
        connection_throttle_renew_session_weight=told[1],
        connection_throttle_global_session_weight=told[2],
    )
    weights = Weights.of(settings)
    assert (weights.local, weights.renew, weights.global_) == taken


def test_an_empty_bucket_raises_the_drop_chance_and_a_full_one_lowers_it() -> None:
    throttle = bucket(
        tokens=1, fill_time=100, fill_count=1, freeze_time=10, drop_increase=0.5, drop_decrease=0.2
    )
    assert throttle.admits(SessionKind.GLOBAL, 0)
    assert throttle.drop_chance == 0
    throttle.admits(SessionKind.GLOBAL, 11)
    assert throttle.drop_chance == 0.5
    throttle.admits(SessionKind.GLOBAL, 21)
    assert throttle.drop_chance == 0.5, "frozen until more than the freeze time has passed"
    throttle.admits(SessionKind.GLOBAL, 22)
    assert throttle.drop_chance == 1.0
    throttle.admits(SessionKind.GLOBAL, 500)
    assert throttle.drop_chance == pytest.approx(0.8)


def test_random_drops_come_before_the_bucket_and_take_no_token() -> None:
    told = replace(OFF, connection_throttle_tokens=5, connection_throttle_freeze_time=1000)
    throttle = ConnectionThrottle(told, 0, always)
    assert throttle.admits(SessionKind.GLOBAL, 0), "a chance of 0 drops nobody"
    throttle.drop_chance = 0.1
    assert not throttle.admits(SessionKind.GLOBAL, 0)
    assert throttle.tokens == 4


def test_the_decrease_ratio_lets_the_chance_fall_before_the_bucket_is_full() -> None:
    for ratio, expected in ((0.0, 0.4), (0.5, 0.4 - 0.002)):
        throttle = bucket(tokens=4, fill_time=10**6, freeze_time=0, decrease_ratio=ratio)
        throttle.admits(SessionKind.GLOBAL, 0)
        throttle.admits(SessionKind.GLOBAL, 0)
        throttle.drop_chance = 0.4
        throttle.admits(SessionKind.GLOBAL, 1)
        assert throttle.drop_chance == pytest.approx(expected)


def test_new_settings_keep_what_is_missing() -> None:
    throttle = bucket(tokens=5, fill_time=1000)
    throttle.admits(SessionKind.GLOBAL, 0)
    throttle.configure(replace(OFF, connection_throttle_tokens=10))
    assert (throttle.max_tokens, throttle.tokens) == (10, 9)


def test_front_ends_share_the_bucket() -> None:
    told = replace(OFF, connection_throttle_tokens=9, connection_throttle_fill_time=10)
    throttle = ConnectionThrottle(told, 0, never, share=2)
    assert throttle.max_tokens == 5
    while throttle.admits(SessionKind.GLOBAL, 0):
        pass
    throttle.admits(SessionKind.GLOBAL, 40)
    assert throttle.tokens == 2 - 1


@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from(SessionKind)), max_size=60),
    st.integers(1, 20),
    st.integers(0),
)
def test_a_throttle_stays_within_its_bounds(
    steps: list[tuple[int, SessionKind]], tokens: int, seed: int
) -> None:
    told = replace(
        OFF,
        connection_throttle_tokens=tokens,
        connection_throttle_fill_time=7,
        connection_throttle_freeze_time=5,
        connection_throttle_drop_increase=0.3,
        connection_throttle_weight_enabled=bool(seed % 2),
    )
    throttle = ConnectionThrottle(told, 0, random.Random(seed).random)
    now = 0
    for passed, kind in steps:
        now += passed
        throttle.admits(kind, now)
        assert 0 <= throttle.tokens <= throttle.max_tokens
        assert 0 <= throttle.drop_chance <= 1


# -- requests (RequestThrottler.java, Request.java) ----------------------------------------------


def throttle(**settings: float) -> RequestThrottle:
    return RequestThrottle(replace(OFF, **settings))  # type: ignore[arg-type]


def test_off_everything_passes() -> None:
    off = throttle()
    assert not off.on
    assert off.verdict(10**6, 10**6, stale=True, throttlable=True) is Verdict.PASS


@pytest.mark.parametrize(
    ("in_process", "stale", "verdict"),
    [
        (9, False, Verdict.PASS),
        (10, False, Verdict.STALL),
        (9, True, Verdict.DROP),
        (10, True, Verdict.DROP),
    ],
)
def test_requests_are_stalled_and_stale_ones_dropped(
    in_process: int, stale: bool, verdict: Verdict
) -> None:
    on = throttle(request_throttle_max_requests=10)
    assert on.on
    assert on.verdict(in_process, 0, stale=stale, throttlable=True) is verdict


def test_stale_requests_stay_if_dropping_is_off() -> None:
    on = throttle(request_throttle_max_requests=10, request_throttle_drop_stale=False)
    assert on.verdict(10, 0, stale=True, throttlable=True) is Verdict.STALL
    assert on.verdict(9, 0, stale=True, throttlable=True) is Verdict.PASS


@pytest.mark.parametrize(
    ("waited_ms", "throttlable", "verdict"),
    [
        (50, True, Verdict.PASS),
        (51, True, Verdict.REFUSE),
        (51, False, Verdict.PASS),
    ],
)
def test_a_request_that_waited_too_long_is_refused(
    waited_ms: int, throttlable: bool, verdict: Verdict
) -> None:
    on = throttle(throttled_op_wait_time=50)
    assert on.on
    assert on.verdict(0, waited_ms, stale=False, throttlable=throttlable) is verdict


def test_a_request_is_refused_only_after_it_was_let_through() -> None:
    on = throttle(throttled_op_wait_time=50, request_throttle_max_requests=1)
    assert on.verdict(1, 51, stale=False, throttlable=True) is Verdict.STALL
    assert on.verdict(0, 51, stale=False, throttlable=True) is Verdict.REFUSE


@pytest.mark.parametrize(
    ("by_connection", "by_latency", "closed", "age", "closes", "stale"),
    [
        (True, False, True, 0, False, True),
        (True, False, True, 0, True, False),
        (False, False, True, 0, False, False),
        (False, True, False, 4001, False, True),
        (False, True, False, 4000, False, False),
        (False, True, False, 4001, True, False),
        (True, False, False, 4001, False, False),
    ],
)
def test_what_is_stale(
    by_connection: bool, by_latency: bool, closed: bool, age: int, closes: bool, stale: bool
) -> None:
    on = throttle(
        request_stale_connection_check=by_connection, request_stale_latency_check=by_latency
    )
    found = on.stale(closed=closed, closes_session=closes, age_ms=age, session_timeout_ms=4000)
    assert found is stale


# -- large requests ------------------------------------------------------------------------------


def budget(threshold: int, most: int) -> LargeRequestBudget:
    return LargeRequestBudget(
        replace(OFF, large_request_threshold=threshold, large_request_max_bytes=most)
    )


def test_large_requests_are_not_counted_by_default() -> None:
    off = LargeRequestBudget(OFF)
    assert off.could_admit(1 << 30)
    assert off.admit(1 << 30) == 0
    assert off.in_flight == 0


def test_large_requests_share_a_budget() -> None:
    large = budget(100, 1000)
    assert large.admit(100) == 0, "not above the threshold"
    assert large.admit(600) == 600
    assert large.admit(400) == 400
    assert not large.could_admit(101)
    assert large.admit(101) == -1
    assert large.admit(50) == 0
    assert large.rejected == 2
    large.finish(600)
    assert large.in_flight == 400
    assert large.could_admit(600)
    assert not large.could_admit(500, others=200), "other front-ends count"
    assert large.admit(500, others=200) == -1


# -- connections ---------------------------------------------------------------------------------


def counter(per_address: int = 2, total: int = 0) -> ConnectionCounter:
    return ConnectionCounter(replace(OFF, max_client_cnxns=per_address, max_cnxns=total))


def test_connections_of_one_address_are_limited() -> None:
    connections = counter()
    assert connections.admit("a") == connections.admit("a") == ""
    assert "Too many connections from /a - max is 2" in connections.admit("a")
    assert connections.admit("b") == ""
    connections.remove("a")
    assert connections.admit("a") == ""
    assert connections.total == 3


def test_connections_in_all_are_limited() -> None:
    connections = counter(0, 3)
    assert [connections.admit("a") for _ in range(3)] == ["", "", ""]
    assert connections.admit("b") == "Too many connections max allowed is 3"


def test_zero_is_without_limit_and_a_negative_number_too() -> None:
    for limit in (0, -1):
        connections = counter(limit, 0)
        assert all(connections.admit("a") == "" for _ in range(100))


def test_connections_of_other_front_ends_count() -> None:
    connections = counter(3, 5)
    connections.add("a")
    connections.set_others({"a": 2, "b": 1})
    assert connections.count("a") == 3
    assert "from /a" in connections.refusal("a")
    assert connections.refusal("b") == ""
    connections.set_others({"b": 1}, total=4)
    assert "max allowed is 5" in connections.refusal("c")
    connections.set_others({})
    assert connections.refusal("a") == ""


def test_addresses_without_connections_take_no_memory() -> None:
    connections = counter(0)
    for number in range(100):
        connections.add(str(number))
        connections.remove(str(number))
    assert dict(connections.own()) == {}
    assert connections.total == 0
    with pytest.raises(KeyError):
        connections.remove("nobody")


# -- back-pressure -------------------------------------------------------------------------------


def test_reading_stops_above_the_limit_at_busy_connections_only() -> None:
    limit = OutstandingLimit(replace(OFF, global_outstanding_limit=10))
    assert not limit.exceeded(10)
    assert limit.exceeded(11)
    assert not limit.stops(10, 5)
    assert limit.stops(11, 1)
    assert not limit.stops(11, 0)


@pytest.mark.parametrize(("voters", "limit"), [(1, 1000), (2, 1000), (3, 500), (5, 250)])
def test_an_ensemble_divides_the_limit(voters: int, limit: int) -> None:
    assert OutstandingLimit(OFF, voters).limit == limit
