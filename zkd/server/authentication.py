"""Running an auth provider off the loop, with a time limit; only its own client waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zkd.bus.messages import IDENTITIES
from zkd.jute.protocol import Err
from zkd.plugins.api import AuthFailed, Disconnect, Origin
from zkd.server import connection, replies

if TYPE_CHECKING:
    from zkd.plugins.api import Identity
    from zkd.server.connection import Connection


def start(conn: Connection, xid: int, scheme: str, data: bytes) -> None:
    """An auth packet has come: ask its provider; what the client sends meanwhile waits."""
    conn.hold()
    fe = conn.fe
    task = fe.loop.create_task(_authenticate(conn, xid, scheme, data))
    fe.tasks.add(task)
    task.add_done_callback(fe.tasks.discard)


async def _authenticate(conn: Connection, xid: int, scheme: str, data: bytes) -> None:
    fe = conn.fe
    origin = Origin(conn.address[0], conn.address[1])
    work = fe.loop.run_in_executor(None, fe.registry.authenticate, scheme, data, origin)
    try:
        found = await asyncio.wait_for(asyncio.shield(work), fe.config.auth_timeout / 1000)
    except TimeoutError:
        fe.registry.count_late(scheme)
        _failed(conn, xid, scheme, "the provider took too long")
    except AuthFailed as e:
        _failed(conn, xid, scheme, str(e))
    except Disconnect:
        conn.refuse("auth.disconnect", scheme=scheme)
    else:
        _succeeded(conn, xid, found)


def _succeeded(conn: Connection, xid: int, found: tuple[Identity, ...]) -> None:
    if conn.state != connection.HELD:
        return
    conn.identities += tuple(i for i in found if i not in conn.identities)
    conn.fe.ask(conn, 0, IDENTITIES, conn.identities)
    conn.sent += 1
    conn.out.append(replies.header(0, xid, 0, 0))
    conn.go_on()
    conn.flush()


def _failed(conn: Connection, xid: int, scheme: str, why: str) -> None:
    fe = conn.fe
    fe.log.warning("auth.failed", client=conn.peer, scheme=scheme, reason=why)
    fe.metrics.auth_failed.value += 1
    fe.metrics.auth_failed_by.add(scheme if scheme in fe.registry.schemes else "unknown")
    if conn.state == connection.HELD:
        conn.out.append(replies.header(0, xid, 0, Err.AUTH_FAILED))
        conn.flush()
        conn.close("authentication failed")
