"""Real processes over real networks: cables pulled, networks parted, frames delayed.

tickTime is 200 ms, syncLimit 5: a server that hears nothing has 1 s.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.chaos.client import Client
from tests.chaos.history import History
from tests.ensembles.load import EnsembleLoad, clients
from tests.ensembles.manager import Ensemble, ensemble
from tests.ensembles.network import Network, missing
from tests.ensembles.scenes import cases, need, same_trees

SETTINGS = {"tickTime": "200", "syncLimit": "5", "maxSessionTimeout": "10000"}
SYNC_LIMIT_S = 1.0
MIXED = ("AAZ", "ZZA")
KINDS = ("AAA", *MIXED, "ZZZ")
SETTLED_MS = 10_000


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := missing():
        pytest.skip(reason)
    with Network(3) as network:
        yield network


def run(network: Network, kinds: str, work: Callable[[Ensemble], Awaitable[None]]) -> None:
    """Three members on the network, 3 leading; `work` is where their clients are."""
    need(kinds)

    async def whole() -> None:
        async with ensemble(kinds, settings=SETTINGS, hosts=network) as members:
            await members.start_led_by(3)
            await work(members)

    with network.inside():
        asyncio.run(whole())


async def end(load: EnsembleLoad, members: Ensemble) -> None:
    await load.served()
    await load.come_to_rest()
    await same_trees(members)


@cases(*KINDS, slow=("ZZA",))
def test_clients_write_again_within_a_second_of_the_leaders_death(
    network: Network, kinds: str
) -> None:
    """Of three leaders' deaths one may take longer (the machine is not ours alone), but not longer
    than nobody being told would."""

    async def work(members: Ensemble) -> None:
        took = []
        async with clients(members) as load:
            await load.served()
            for _ in range(3):
                leader = await members.leader()
                load.note(f"kill the leader, {leader}")
                members.kill(leader)
                took.append(await load.served())
                await members.start(leader)
                await members.caught_up()
            assert max(took) < 2 * SYNC_LIMIT_S
            assert statistics.median(took) < 1.0, took
            await end(load, members)

    run(network, kinds, work)


@cases(*KINDS, slow=MIXED)
def test_clients_write_again_when_the_leader_is_cut_off(network: Network, kinds: str) -> None:
    """Nobody is told: the others notice by what they do not hear. Twice syncLimit is the worst."""

    async def work(members: Ensemble) -> None:
        async with clients(members) as load:
            await load.served()
            load.note("unplug the leader")
            network.unplug(3)
            assert await load.served() < 2 * SYNC_LIMIT_S
            assert await members.leader(1, 2) in (1, 2)
            await members.mode_is(3, "")
            load.note("plug it in")
            network.heal()
            await members.mode_is(3, "follower")
            await members.caught_up()
            await end(load, members)

    run(network, kinds, work)


@cases(*KINDS, slow=MIXED)
@pytest.mark.parametrize("alone", [1, 3], ids=["follower", "leader"])
def test_a_minority_serves_no_write_and_catches_up_when_healed(
    network: Network, kinds: str, alone: int
) -> None:
    rest = [sid for sid in (1, 2, 3) if sid != alone]

    async def work(members: Ensemble) -> None:
        history = History()
        lone = Client(0, members.addresses(alone), history, SETTLED_MS)
        await lone.start()
        await lone.create("/alone", "before")
        async with clients(members, at=rest) as load:
            await load.served()
            load.note(f"part {alone} from {rest}")
            network.part([alone], rest)
            asked = asyncio.create_task(lone.set("/alone", "parted"))
            await members.mode_is(alone, "")
            await load.served()
            assert not asked.done() or not asked.result().answered
            load.note("heal")
            network.heal()
            await members.serving(alone)
            await members.caught_up()
            assert not (await asked).answered
            assert (await lone.set("/alone", "healed")).answered
            await end(load, members)
        await lone.close()

    run(network, kinds, work)


@cases(*KINDS, slow=KINDS)
@pytest.mark.parametrize("fault", ["deafen", "mute"])
def test_a_leader_that_is_heard_or_hears_one_way_only_is_replaced(
    network: Network, kinds: str, fault: str
) -> None:
    """Its followers may still hear its pings, or it theirs: neither is enough to lead."""

    async def work(members: Ensemble) -> None:
        async with clients(members) as load:
            await load.served()
            load.note(f"{fault} the leader")
            getattr(network, fault)(3)
            assert await members.leader(1, 2) in (1, 2)
            await load.served()
            assert await members.mode(3) == ""
            load.note("heal")
            network.heal()
            await members.mode_is(3, "follower")
            await members.caught_up()
            await end(load, members)

    run(network, kinds, work)


@cases(*KINDS, slow=MIXED)
def test_a_far_follower_slows_nobody_else_and_stays_in_step(network: Network, kinds: str) -> None:
    far_ms = 40.0

    async def work(members: Ensemble) -> None:
        network.delay(1, far_ms)
        await members.serving(1)
        near = Client(0, members.addresses(3), History(), SETTLED_MS)
        far = Client(1, members.addresses(1), History(), SETTLED_MS)
        await near.start()
        await far.start()
        await near.create("/far", "")
        times = []
        for number in range(50):
            begin = time.monotonic()
            assert (await near.set("/far", str(number))).answered
            times.append(time.monotonic() - begin)
        assert statistics.median(times) < far_ms / 1000
        begin = time.monotonic()
        assert (await far.sync("/far")).answered
        assert time.monotonic() - begin > 2 * far_ms / 1000
        assert (await far.get("/far")).states[0].value == "49"
        await near.close()
        await far.close()
        await same_trees(members)

    run(network, kinds, work)
