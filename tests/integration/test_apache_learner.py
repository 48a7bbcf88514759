"""What an Apache learner bears between NEWLEADER and UPTODATE, shown by a scripted leader."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from tests import apache
from tests.integration.test_apache_peers import Script, members
from zkd.jute import election, quorum, txn
from zkd.jute import records as rec
from zkd.jute.protocol import Op
from zkd.jute.quorum import Kind, encode
from zkd.jute.txn import TxnHeader
from zkd.server.quorum.learner_net import LearnerListener, LinkSettings
from zkd.server.quorum.link import Link

pytestmark = pytest.mark.apache

ME, EPOCH = 9, 1
FIRST = EPOCH << 32 | 1


@pytest.fixture(autouse=True)
def _apache_is_there() -> None:
    if reason := apache.missing():
        pytest.skip(reason)


def proposal() -> bytes:
    record = rec.CreateTxn("/n", b"x", (rec.ACL(31, rec.Id("world", "anyone")),), False, 1)
    return encode(Kind.PROPOSAL, FIRST, txn.encode(TxnHeader(0, 0, FIRST, 1, Op.CREATE), record))


async def introduced(script: Script) -> Link:
    """Be elected by the follower, and bring it as far as an empty DIFF."""
    script.listener = LearnerListener(asyncio.get_running_loop(), LinkSettings(), script)
    await script.listener.start(script.quorum_port(ME))

    def adopted() -> bool:
        script.vote(election.LOOKING, ME, 0, 0)
        return any(vote.leader == ME for vote in script.votes.values())

    await script.until(adopted)
    await script.until(lambda: script.learners)
    (link,) = script.learners
    await script.next(Kind.FOLLOWER_INFO)
    link.send(encode(Kind.LEADER_INFO, EPOCH << 32, struct.pack(">i", quorum.PROTOCOL_VERSION)))
    await script.next(Kind.ACK_EPOCH)
    link.send(encode(Kind.DIFF, 0))
    return link


async def lead(script: Script, follower: apache.ApacheServer) -> None:
    link = await introduced(script)
    link.send(encode(Kind.NEW_LEADER, EPOCH << 32, script.membership.text().encode()))
    link.send(proposal())
    assert (await script.next(Kind.ACK))[1] == EPOCH << 32
    link.send(encode(Kind.COMMIT, FIRST))
    link.send(encode(Kind.UP_TO_DATE, -1))

    def applied() -> bool:
        link.send(encode(Kind.PING, EPOCH << 32))
        with suppress(OSError):
            return f"Zxid: 0x{FIRST:x}" in apache.four_letters(follower.port, "srvr", 1.0)
        return False

    await script.until(applied)
    acks = {(await script.next(Kind.ACK))[1] for _ in range(2)}
    assert acks == {EPOCH << 32, FIRST}


def test_a_proposal_behind_newleader_may_be_committed_before_uptodate(tmp_path: Path) -> None:
    """The order in which zkd leads. With the proposal before NEWLEADER, as Apache's own leader
    sends what is under way, 3.8.0 fails over this COMMIT with a NullPointerException."""
    lines = members({1: "participant", 2: "participant", ME: "participant"})
    with apache.start_members(tmp_path, lines, [1], ready=False) as servers:

        async def work() -> None:
            async with Script(ME, lines) as script:
                await lead(script, servers[1])

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())
    assert "NullPointerException" not in (tmp_path / "1" / "log").read_text()
