"""A member comes back by DIFF, by TRUNC, by SNAP, in both directions, under load.

Which way it was is read from the logs, so that a test cannot pass by another one. Ways are chosen
as Apache ZooKeeper's LearnerHandler does: a long committed log makes it a DIFF; a short one without
the transactions on disk a SNAP; transactions that only the old leader has logged a TRUNC.
"""

from __future__ import annotations

import asyncio

from tests.ensembles.load import EnsembleLoad, clients
from tests.ensembles.manager import Ensemble, ensemble
from tests.ensembles.scenes import DIFF, SNAP, TRUNC, Rejoin, cases, need, same_trees
from tests.ensembles.trees import furnish

LONG = {"commitLogCount": "1000000"}
SHORT = {"commitLogCount": "500", "snapshotSizeFactor": "-1"}
BEHIND = 700
"""Transactions; more than the least of commitLogCount."""
WITHIN_S = 60.0


async def until_ahead(members: Ensemble, load: EnsembleLoad, sid: int, count: int) -> None:
    """Wait until the load has made this many transactions more."""
    begin = await members.zxid(sid)
    async with asyncio.timeout(WITHIN_S):
        while await members.zxid(sid) < begin + count:
            await load.served()


@cases("AAA", "ZAA", "AAZ", "ZAZ", "ZZZ")
def test_a_member_that_was_killed_comes_back_by_diff(kinds: str) -> None:
    need(kinds)

    async def work() -> None:
        async with ensemble(kinds, settings=LONG) as members:
            await members.start_led_by(3)
            furnish(members.address(1), "/furnished")
            async with clients(members) as load:
                load.note("kill 1")
                members.kill(1)
                await until_ahead(members, load, 3, 50)
                rejoin = Rejoin(members, 1, 3)
                await members.start(1)
                assert rejoin.first == DIFF
                await load.served()
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())


@cases("AAA", "ZAA", "AAZ", "ZAZ", "ZZZ", slow=("ZAZ",))
def test_a_member_that_is_too_far_behind_comes_back_by_snap(kinds: str) -> None:
    need(kinds)

    async def work() -> None:
        async with ensemble(kinds, settings=SHORT) as members:
            await members.start_led_by(3)
            furnish(members.address(1), "/furnished")
            async with clients(members) as load:
                load.note("kill 1")
                members.kill(1)
                await until_ahead(members, load, 3, BEHIND)
                rejoin = Rejoin(members, 1, 3)
                await members.start(1)
                assert rejoin.first == SNAP
                await load.served()
                load.note("kill 1 again, lose its disk")
                members.kill(1)
                await load.served()
                rejoin = Rejoin(members, 1, 3)
                await members.replace(1, kinds[0])
                assert rejoin.first == SNAP
                await load.served()
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())


@cases("AAA", "AAZ", "ZZA", "AZZ", "ZZZ", slow=("AZZ",))
def test_an_old_leader_drops_by_trunc_what_it_alone_has_logged(kinds: str) -> None:
    """Its followers die at once: what clients still sent it is in its log, acknowledged to nobody.

    The others elect one of them, and it must lose that. They may have no transaction of the new
    epoch by then (with one, Apache ZooKeeper sends a SNAP: a TRUNC never crosses an epoch).
    """
    need(kinds)

    async def work() -> None:
        async with ensemble(kinds, settings=LONG) as members:
            await members.start_led_by(3)
            furnish(members.address(1), "/furnished")
            async with clients(members) as load:
                await load.served()
                load.note("kill 1 and 2, then 3")
                load.stay_away()
                members.kill(1, 2)
                await members.mode_is(3, "")
                members.kill(3)
                await members.start(1, 2)
                leader = await members.leader()
                rejoin = Rejoin(members, 3, leader)
                await members.start(3)
                assert rejoin.first == TRUNC
                load.come_back()
                await load.served()
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())
