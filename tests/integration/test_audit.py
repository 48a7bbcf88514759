"""The audit log of a real server, beside that of Apache ZooKeeper.

Both servers get the same requests, good and refused ones; their lines are the same, apart from
session ids, and from the secrets in ACLs, which zkd leaves out.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.security import make_acl, make_digest_acl

from tests import apache
from tests.chaos import wire
from tests.integration.plugged import PluginFolder, until
from tests.integration.plugged import plugins as plugins
from zkd.testing import server as zkd_server
from zkd.testing.throwaway import Server

AUDIT = {"audit.enable": "true"}
ENDED = "ephemeralZNodeDeletionOnSessionCloseOrExpire"
LOGGER = "org.apache.zookeeper.audit"
PREFIX = re.compile(r".*?(INFO|ERROR) \S*audit\.Slf4jAuditLogger(?: -|:) ")


def lines(text: str) -> list[str]:
    """The audit lines of a log: level and fields, sessions numbered, secrets taken out."""
    found = []
    sessions: dict[str, str] = {}
    for line in text.splitlines():
        if match := PREFIX.match(line):
            fields = line[match.end() :]
            for session in re.findall(r"session=(0x[0-9a-f]+)", fields):
                sessions.setdefault(session, f"S{len(sessions) + 1}")
                fields = fields.replace(session, sessions[session])
            found.append(match[1] + "\t" + re.sub(r":[A-Za-z0-9+/]{27}=:", ":x:", fields))
    return found


def zkd_lines(server: Server) -> list[str]:
    path = server.data_dir / "zookeeper_audit.log"
    return lines(path.read_text()) if path.exists() else []


def refused(request: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(KazooException):
        request(*arguments)


def busy_client(hosts: str) -> None:
    """Requests of each audited kind, successful and refused."""
    client = KazooClient(hosts)
    client.start()
    client.create("/a", b"x")
    client.create("/a/e", b"1", ephemeral=True)
    client.create("/a/s-", b"", sequence=True)
    client.create("/a/es-", b"", sequence=True, ephemeral=True)
    client.set("/a", b"yy")
    client.get("/a")
    refused(client.create, "/a")
    refused(client.create, "/no/parent")
    refused(client.set, "/none", b"")
    refused(client.delete, "/a")
    refused(client.set, "/a", b"", 17)
    owner = make_digest_acl("u", "p", all=True)
    client.set_acls("/a", [owner, make_acl("ip", "127.0.0.1", all=True)])
    client.add_auth("digest", "u:p")
    client.set("/a", b"2")
    good = client.transaction()
    good.create("/t", b"")
    good.set_data("/t", b"2")
    good.check("/t", 1)
    good.delete("/t")
    assert not any(isinstance(result, Exception) for result in good.commit())
    bad = client.transaction()
    bad.create("/t", b"")
    bad.create("/t", b"")
    bad.commit()
    client.create("/private", acl=[make_digest_acl("x", "y", all=True)])
    refused(client.set, "/private", b"")
    refused(client.create, "/private/x")
    refused(client.set_acls, "/private", [owner])
    client.delete("/a/e")
    client.create("/a/e2", ephemeral=True)
    client.stop()
    client.close()


def test_the_lines_are_those_of_apache(tmp_path: Path) -> None:
    if apache.missing():
        pytest.skip(str(apache.missing()))
    flags = (
        "-Dzookeeper.audit.enable=true",
        f"-Dorg.slf4j.simpleLogger.log.{LOGGER}=info",
        "-Dorg.slf4j.simpleLogger.showThreadName=false",
    )
    with apache.start(tmp_path, jvm_flags=flags) as theirs:
        busy_client(theirs.hosts)
    with zkd_server(AUDIT) as ours:
        busy_client(ours.hosts)
        ours.stop()
        assert zkd_lines(ours) == lines((tmp_path / "log").read_text())


def test_each_write_is_told_once_by_several_front_ends() -> None:
    """Also the ephemerals of sessions that clients close, and that expire."""
    with zkd_server(AUDIT, frontends=2, tickTime=100, minSessionTimeout=200) as server:
        clients = [server.client(timeout=5.0) for _ in range(4)]
        for number, client in enumerate(clients):
            client.create(f"/n{number}", ephemeral=True)
        silent = session(server, timeout_ms=400)
        silent.sendall(wire.request(1, wire.CREATE, wire.create("/quiet", "", wire.EPHEMERAL)))
        for client in clients[:2]:
            client.stop()
        until(lambda: len(paths(server, ENDED)) == 3)
        silent.close()
        assert paths(server, ENDED) == ["/n0", "/n1", "/quiet"]
        assert paths(server, "create") == ["/n0", "/n1", "/n2", "/n3", "/quiet"]


def test_a_client_that_has_gone_before_the_answer_is_told_of() -> None:
    """Storage is stopped meanwhile, so that no answer can overtake the client's end."""
    with zkd_server(AUDIT) as server:
        hasty = session(server, timeout_ms=5000)
        storage = server.pids()["storage"]
        os.kill(storage, signal.SIGSTOP)
        try:
            for n in range(5):
                create = wire.create(f"/hasty{n}", "", wire.PERSISTENT)
                hasty.sendall(wire.request(n, wire.CREATE, create))
            until(lambda: "Outstanding: 5\n" in apache.four_letters(server.port, "srvr"))
            hasty.close()
            until(lambda: "Connections: 1\n" in apache.four_letters(server.port, "srvr"))
        finally:
            os.kill(storage, signal.SIGCONT)
        until(lambda: paths(server, "create") == [f"/hasty{n}" for n in range(5)])


def test_the_start_is_told_once_and_not_at_a_restart_of_the_front_end() -> None:
    with zkd_server(AUDIT) as server:
        until(lambda: any("serverStart" in line for line in zkd_lines(server)))  # written by then
        server.kill("frontend 1")
        client = server.client()
        client.create("/after")
        server.stop()
        operations = re.findall(r"operation=(\w+)", " ".join(zkd_lines(server)))
        assert operations == ["serverStart", "create", "serverStop"]


@pytest.mark.zookeeper
def test_without_audit_nothing_is_written(zookeeper: Server) -> None:
    zookeeper.client().create("/a")
    zookeeper.stop()
    assert zkd_lines(zookeeper) == []


def test_a_sink_that_blocks_and_one_that_raises_hold_up_nobody(plugins: PluginFolder) -> None:
    plugins.add(
        "audit.bad",
        """
        import threading
        from zkd.plugins.api import AuditSink, hookimpl

        class Blocks(AuditSink):
            name = "blocks"
            def write(self, event):
                threading.Event().wait()

        class Raises(AuditSink):
            name = "raises"
            def write(self, event):
                raise RuntimeError("the disk of the auditors is full")

        @hookimpl
        def zkd_audit_sinks(config):
            return [Blocks(), Raises()]
        """,
    )
    with zkd_server({**AUDIT, "audit.impl.class": "plugin:bad"}) as server:
        client = server.client()
        for number in range(20):
            client.create(f"/n{number}")
        until(lambda: "raised in write" in server.log.read_text())
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3
        told = server.log.read_text()
        assert "plugin audit.bad (acme-audit-bad 1.0) raised in write" in told
        assert "the disk of the auditors is full" in told
        assert "sink blocks did not end" in told


def test_a_sink_that_is_missing_is_said_and_clients_are_served() -> None:
    with zkd_server({**AUDIT, "audit.impl.class": "plugin:nowhere"}) as server:
        server.client().create("/a")
        assert "audit.off" in server.log.read_text()
        assert "audit.nowhere" in server.log.read_text()


# -- the wire --------------------------------------------------------------------------------------


def session(server: Server, timeout_ms: int) -> socket.socket:
    """A connection with a session of its own that says nothing by itself."""
    connection = socket.create_connection((server.host, server.port), 10.0)
    connection.sendall(wire.connect_request(0, timeout_ms, 0, bytes(16)))
    length = struct.unpack(">i", received(connection, 4))[0]
    wire.connect_response(received(connection, length))
    return connection


def received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, "the server has closed the connection"
        data += part
    return data


def paths(server: Server, operation: str) -> list[str]:
    """The znodes of the lines of one operation, sorted."""
    pattern = rf"operation={operation}\tznode=(\S+)"
    return sorted(re.findall(pattern, "\n".join(zkd_lines(server))))
