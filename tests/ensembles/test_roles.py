"""zkd in every role beside Apache ZooKeeper: under load each member is restarted and killed.

The greatest id leads at the start; so "AAZ" is zkd leading two Apache followers. A letter in lower
case is an observer.
"""

from __future__ import annotations

import asyncio

from tests.ensembles.load import clients
from tests.ensembles.manager import ensemble
from tests.ensembles.scenes import cases, need, same_trees
from tests.ensembles.trees import furnish

MIXED = ("AAAz", "ZAA", "AAZ", "ZZA", "AZZ", "ZZZ", "ZZZa")


@cases("AAA", "AAAa", *MIXED, slow=("ZZA", "AZZ", "ZZZa"))
def test_restarts_and_kills_of_every_member_lose_nothing(kinds: str) -> None:
    need(kinds.upper())
    observers = [sid for sid, kind in enumerate(kinds, 1) if kind.islower()]
    leader = max(sid for sid, kind in enumerate(kinds, 1) if kind.isupper())

    async def work() -> None:
        async with ensemble(kinds.upper(), observers=observers) as members:
            await members.start_led_by(leader)
            for sid in observers:
                assert await members.mode(sid) == "observer"
            furnish(members.address(1), "/furnished")
            async with clients(members) as load:
                for sid in members.places:
                    load.note(f"restart {sid}")
                    await members.stop(sid)
                    await load.served()
                    await members.start(sid)
                    await members.caught_up()
                    await load.served()
                    load.note(f"kill {sid}")
                    members.kill(sid)
                    await load.served()
                    await members.start(sid)
                    await members.caught_up()
                await load.served()
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())


@cases("AAA", "AAZ", "ZZA", "ZZZ", slow=("AAZ", "ZZA"))
def test_a_stopped_leader_that_goes_on_has_lost_its_place_and_catches_up(kinds: str) -> None:
    """SIGSTOP for longer than syncLimit: the others elect another, which it must then follow."""
    need(kinds)

    async def work() -> None:
        async with ensemble(kinds, settings={"syncLimit": "4", "tickTime": "400"}) as members:
            await members.start_led_by(3)
            async with clients(members) as load:
                await load.served()
                load.note("stop the leader")
                members.freeze(3)
                assert await members.leader(1, 2) in (1, 2)
                await load.served()
                load.note("continue")
                members.thaw(3)
                await members.mode_is(3, "follower")
                await load.served()
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())


@cases("AAA", "ZAA", "AAZ", "ZZZ", slow=("AAZ", "ZZZ"))
def test_the_longer_history_leads_whatever_the_ids_are(kinds: str) -> None:
    """Member 3 was away; when only it and 1 are there, 1 leads, and 3 gets what it missed."""
    need(kinds)

    async def work() -> None:
        async with ensemble(kinds) as members:
            await members.start_led_by(3)
            async with clients(members) as load:
                load.note("kill 3, then all")
                members.kill(3)
                await load.served()
                load.stay_away()
                members.kill(1, 2)
                await members.start(1, 3)
                assert await members.leader() == 1
                load.come_back()
                await load.served()
                await members.start(2)
                await members.caught_up()
                await load.served()
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())


@cases("AAAa", "AAAz", "AAZa", "ZZZa", "ZZZz", slow=("AAZa", "ZZZa", "ZZZz"))
def test_an_observer_is_in_no_quorum(kinds: str) -> None:
    """One voter of three and the observer serve nobody; with a second voter they do again."""
    need(kinds.upper())

    async def work() -> None:
        async with ensemble(kinds.upper(), observers=[4]) as members:
            await members.start_led_by(3)
            async with clients(members) as load:
                await load.served()
                load.note("kill 1 and 2")
                members.kill(1, 2)
                await members.mode_is(3, "")
                await members.mode_is(4, "")
                await members.start(1)
                await members.mode_is(4, "observer")
                await load.served()
                await members.start(2)
                await members.caught_up()
                await load.served()
                await load.come_to_rest()
                await same_trees(members)

    asyncio.run(work())
