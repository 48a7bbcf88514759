"""Throwaway servers, one or an ensemble of them, for other people's tests.

    import zkd.testing

    with zkd.testing.server(tickTime=500) as zookeeper:
        client = zookeeper.client()
        client.create("/a")

    with zkd.testing.ensemble(3, observers=1) as zookeeper:
        zookeeper.leader().stop()

With pytest nothing is to be imported: the fixtures `zookeeper` and `zookeeper_ensemble` are there
as soon as zkd is installed (see `zkd.testing.plugin`). This module is loaded in every such pytest
run, so it imports nothing until a server is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkd.testing.members import Ensemble
    from zkd.testing.throwaway import Server

__all__ = ["ensemble", "server"]


def server(
    settings: Mapping[str, object] | None = None, /, **more: object
) -> AbstractContextManager[Server]:
    """A standalone server on a free loopback port, with a temporary data folder.

    Settings are those of zoo.cfg, under their names there: by keyword, or in a dict if the name is
    no identifier ({"4lw.commands.whitelist": "srvr"}). Ready when the context is entered; stopped
    at its end, and nothing is left behind, also when this process is killed.

    The thread that enters the context must live as long as the server: the kernel counts the end of
    that thread as the end of the server's parent. Raises ServerFailed if the server does not start.
    """
    from zkd.testing.throwaway import Server

    return Server({**(settings or {}), **more})


def ensemble(
    voters: int, /, observers: int = 0, settings: Mapping[str, object] | None = None, **more: object
) -> AbstractContextManager[Ensemble]:
    """An ensemble of servers on free loopback ports, each with a temporary data folder.

    The voters have the ids 1 to `voters`, the observers those after them. All have these settings,
    given as to `server`, which also says what else holds. All serve when the context is entered.
    """
    from zkd.testing.members import Ensemble

    return Ensemble(voters, observers, {**(settings or {}), **more})
