"""The load and the comparison of trees find out servers that are no ensemble."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.load import Shape
from tests.ensembles.load import clients
from tests.ensembles.manager import Ensemble
from tests.ensembles.trees import differences, furnish, tree_of


class Strangers(Ensemble):
    """Servers that know nothing of each other."""

    def membership(self) -> dict[str, str]:
        return {}


def test_servers_that_know_nothing_of_each_other_are_found_out(tmp_path: Path) -> None:
    async def work() -> None:
        servers = Strangers(tmp_path, "ZZ")
        try:
            await servers.start()
            furnish(servers.address(1), "/only")
            one, other = [await tree_of(servers.address(sid)) for sid in (1, 2)]
            assert any(line.startswith("/only") for line in differences(one, other))
            async with clients(servers, shape=Shape(clients=2, timeout_ms=4000)) as load:
                for client in load.clients:
                    client.drop()
                await load.served()
        finally:
            await servers.close()

    with pytest.raises(AssertionError, match="violations") as found:
        asyncio.run(work())
    assert "sessions" in str(found.value)
