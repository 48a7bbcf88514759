"""Local sessions: their life on one server, and when they become the ensemble's."""

from __future__ import annotations

import pytest

from tests.conformance import wire
from zkd.jute.protocol import Op
from zkd.zab.local_sessions import LocalSessions, Verdict, makes_ephemeral

TICK = 100
EPHEMERAL = wire.create("/e", b"", wire.OPEN, 1)
PLAIN = wire.create("/p", b"", wire.OPEN, 0)


@pytest.mark.parametrize(
    ("op", "body", "expected"),
    [
        (Op.CREATE, PLAIN, False),
        (Op.CREATE, EPHEMERAL, True),
        (Op.CREATE2, wire.create("/e-", b"x", wire.OPEN, 3), True),
        (Op.CREATE2, wire.create("/s-", b"x", wire.OPEN, 2), False),
        (Op.CREATE_CONTAINER, wire.create("/c", b"", wire.OPEN, 4), False),
        (Op.CREATE_TTL, wire.create_ttl("/t", b"", wire.OPEN, 5, 1000), False),
        (Op.MULTI, wire.multi([(Op.CREATE, PLAIN), (Op.CREATE2, EPHEMERAL)]), True),
        (Op.MULTI, wire.multi([(Op.CREATE, PLAIN), (Op.DELETE, wire.versioned("/e", 1))]), False),
        (Op.DELETE, wire.versioned("/e", 1), False),
        (Op.CREATE, EPHEMERAL[:-6], False),
        (Op.MULTI, wire.multi([(Op.CREATE, EPHEMERAL)])[:20], False),
    ],
)
def test_which_requests_need_a_session_of_the_ensemble(
    op: int, body: bytes, expected: bool
) -> None:
    assert makes_ephemeral(op, body) is expected


def test_an_ephemeral_upgrades_once_or_is_refused() -> None:
    for allowed, verdict in ((True, Verdict.UPGRADE), (False, Verdict.REFUSE)):
        local = LocalSessions(TICK, upgrading=allowed)
        local.create(7, 1000, 0)
        assert local.judge(7, Op.CREATE, PLAIN) is Verdict.PASS
        assert local.judge(8, Op.CREATE, EPHEMERAL) is Verdict.PASS, "not a local one"
        assert local.judge(7, Op.CREATE, EPHEMERAL) is verdict
    local = LocalSessions(TICK, upgrading=True)
    local.create(7, 1000, 0)
    assert local.upgrade(7) == 1000
    assert 7 not in local
    assert local.is_upgrading(7)
    assert local.judge(7, Op.CREATE, EPHEMERAL) is Verdict.PASS
    assert local.expired(10_000) == []
    local.committed(7)
    assert not local.is_upgrading(7)
    with pytest.raises(KeyError):
        local.upgrade(7)


def test_a_local_session_expires_by_silence_here() -> None:
    local = LocalSessions(TICK, upgrading=False)
    local.create(1, 300, 0)
    local.create(2, 300, 0)
    assert local.touch(2, 250)
    assert not local.touch(3, 250)
    assert local.expired(450) == [1]
    assert (1 in local, 2 in local, len(local)) == (False, True, 1)
    local.close(2)
    assert local.expired(2000) == []


def test_a_session_that_was_committed_elsewhere_is_local_no_more() -> None:
    """It moved here while another server was upgrading it (LearnerSessionTracker.commitSession)."""
    local = LocalSessions(TICK, upgrading=True)
    local.create(5, 300, 0)
    local.committed(5)
    assert 5 not in local
