"""The pytest plugin of zkd: the fixtures `zookeeper` and `zookeeper_ensemble`.

    def test_lock(zookeeper):
        client = zookeeper.client()

    @pytest.mark.zookeeper(tickTime=500)
    def test_expiry(zookeeper):
        ...

    def test_failover(zookeeper_ensemble):
        ensemble = zookeeper_ensemble(3, observers=1, tickTime=200)
        ...

It is loaded by entry point in every pytest run of an environment that has zkd, so it imports pytest
alone; the server and kazoo are imported when a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from zkd.testing import ensemble, server

if TYPE_CHECKING:
    from zkd.testing.members import Ensemble
    from zkd.testing.throwaway import Server


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "zookeeper(settings={}, **more): settings, as in zoo.cfg, for the fixture zookeeper",
    )


@pytest.fixture
def zookeeper(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A standalone ZooKeeper-compatible server of the test's own: host, port, hosts, client()."""
    marker = request.node.get_closest_marker("zookeeper")
    with server(*(marker.args if marker else ()), **(marker.kwargs if marker else {})) as running:
        yield running


@pytest.fixture
def zookeeper_ensemble() -> Iterator[Callable[..., Ensemble]]:
    """Makes ensembles of the test's own: zookeeper_ensemble(voters, observers=0, **settings)."""
    with ExitStack() as stack:

        def start(voters: int, /, observers: int = 0, **settings: object) -> Ensemble:
            return stack.enter_context(ensemble(voters, observers, settings))

        yield start
