"""Random faults one after the other on one ensemble, in network namespaces, under load.

ZKD_STORM_FAULTS (default 15) is how many; ZKD_STORM_SEED the first seed. After each fault the
network is whole, every member serves and is in step, and every client has written.

There is no case of Apache ZooKeeper: of two seeds its 3.8.0 held one, and had lost transactions at
one follower with the other (as ZOOKEEPER-4785 has it, in a DIFF of a server that goes on running).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator

import pytest

from tests.ensembles.load import clients
from tests.ensembles.manager import Ensemble, ensemble
from tests.ensembles.network import Network, missing
from tests.ensembles.scenes import cases, need, same_trees

FAULTS = int(os.environ.get("ZKD_STORM_FAULTS", "15"))
SEED = int(os.environ.get("ZKD_STORM_SEED", "1"))
SETTINGS = {"tickTime": "200", "syncLimit": "5", "maxSessionTimeout": "20000"}
LASTS_S = (0.0, 2.5)
KINDS = ("kill", "kill two", "stop", "freeze", "part", "unplug", "deafen", "mute")


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := missing():
        pytest.skip(reason)
    with Network(3) as network:
        yield network


async def strike(members: Ensemble, network: Network, kind: str, rng: random.Random) -> str:
    """Do one fault and undo it; what was done."""
    sids = rng.sample(sorted(members.places), 2 if kind == "kill two" else 1)
    lasts_s = rng.uniform(*LASTS_S)
    (sid, *_) = sids
    if kind in ("kill", "kill two"):
        members.kill(*sids)
    elif kind == "stop":
        await members.stop(sid)
    elif kind == "freeze":
        members.freeze(sid)
    elif kind == "part":
        network.part([sid])
    else:
        getattr(network, kind)(sid)
    await asyncio.sleep(lasts_s)  # how long the fault is there
    if kind in ("kill", "kill two", "stop"):
        await members.start(*sids)
    elif kind == "freeze":
        members.thaw(sid)
    network.heal()
    return f"{kind} {sids} for {lasts_s:.1f} s"


@cases("ZZZ", slow=("ZZZ",))
def test_a_storm_of_faults_breaks_no_promise(network: Network, kinds: str) -> None:
    need(kinds)
    rng = random.Random(SEED)

    async def work() -> None:
        async with ensemble(kinds, settings=SETTINGS, hosts=network) as members:
            await members.start_led_by(3)
            async with clients(members, seed=SEED) as load:
                for number in range(FAULTS):
                    kind = rng.choice(KINDS)
                    load.note(f"{number}: {kind}")
                    load.note(f"{number} is over: {await strike(members, network, kind, rng)}")
                    await members.serving()
                    await load.served()
                    await members.caught_up()
                await load.come_to_rest()
                await same_trees(members)

    with network.inside():
        asyncio.run(work())
