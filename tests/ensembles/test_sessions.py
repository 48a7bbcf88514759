"""Sessions that move between members, of either kind."""

from __future__ import annotations

import asyncio

from tests.ensembles.load import clients
from tests.ensembles.manager import ensemble
from tests.ensembles.scenes import cases, need, same_trees

MOVES = 30


@cases("AAA", "AAAz", "AAZ", "ZZA", "ZZZ", slow=("AAAz", "ZZA", "ZZZ"))
def test_a_session_moves_with_its_ephemerals_and_watches(kinds: str) -> None:
    """All connections are cut again and again; each client comes back to the next member."""
    need(kinds.upper())
    observers = [sid for sid, kind in enumerate(kinds, 1) if kind.islower()]

    async def work() -> None:
        async with ensemble(kinds.upper(), observers=observers) as members:
            await members.start_led_by(3)
            async with clients(members) as load:
                moved = 0
                for _ in range(MOVES):
                    before = [client.at for client in load.clients]
                    for client in load.clients:
                        client.drop()
                    await load.served()
                    moved += sum(c.at != at for c, at in zip(load.clients, before, strict=True))
                assert moved > MOVES
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())
