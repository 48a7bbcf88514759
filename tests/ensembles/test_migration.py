"""Three servers of one kind become three of the other, one at a time, under load; and back.

Nobody notices but by reconnecting: no session ends, no write is lost, and the tree is the same at
the end, node by node and Stat by Stat.
"""

from __future__ import annotations

import asyncio

from tests.ensembles.load import EnsembleLoad, clients
from tests.ensembles.manager import Ensemble, ensemble
from tests.ensembles.scenes import below, cases, need, same_trees
from tests.ensembles.trees import furnish, tree_of

TOP = "/furnished"


async def move_to(members: Ensemble, load: EnsembleLoad, kinds: str, *, keep: bool) -> None:
    """Followers first, the leader last: clients see one election."""
    leader = await members.leader()
    for sid in sorted(members.places, key=lambda sid: (sid == leader, sid)):
        load.note(f"{members.kinds[sid]} to {kinds[sid - 1]} as {sid}")
        await members.replace(sid, kinds[sid - 1], keep=keep)
        await load.served()


@cases("AAA-AAA", "AAA-ZZZ")
def test_servers_are_replaced_one_at_a_time_and_back(kinds: str) -> None:
    """Back on the folders they had: those are old, and are brought up to date."""
    before, after = kinds.split("-")
    need(kinds)

    async def work() -> None:
        async with ensemble(before) as members:
            await members.start_led_by(3)
            furnish(members.address(1), TOP)
            written = below(await tree_of(members.address(2)), TOP)
            async with clients(members) as load:
                await move_to(members, load, after, keep=False)
                await load.served()
                furnish(members.address(2), "/between")
                await move_to(members, load, before, keep=after != before)
                await load.come_to_rest()
                tree = await same_trees(members)
                assert below(tree, TOP) == written
                assert len(below(tree, "/between")) == len(written)

    asyncio.run(work())
