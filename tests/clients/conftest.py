"""The servers that foreign clients are pointed at.

By default zkd; CLIENT_TESTS_SERVERS=apache,zkd runs every test against both, which shows that a
test expects what Apache ZooKeeper does.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient

from tests.clients.crowd import WITHIN_S, Connect
from tests.conformance import servers
from tests.conformance.servers import Server

KINDS = os.environ.get("CLIENT_TESTS_SERVERS", "zkd").split(",")
# Ticks short enough for sessions to expire within a test.
SETTINGS = {"tickTime": "500", "znode.container.checkIntervalMs": "500"}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for a module's tests, which keep to paths of their own."""
    if reason := servers.missing(request.param):
        pytest.skip(reason)
    with servers.running(request.param, SETTINGS) as running:
        yield running


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Makes started clients, each with a session of its own; they are stopped at the end."""
    made: list[KazooClient] = []

    def make(timeout_s: float = 5.0) -> KazooClient:
        client = KazooClient(server.hosts, timeout=timeout_s)
        client.start(WITHIN_S)
        made.append(client)
        return client

    yield make
    for client in made:
        client.stop()
        client.close()


@pytest.fixture
def path() -> str:
    """A node that nobody else uses; it does not exist."""
    return f"/test-{uuid.uuid4().hex}"
