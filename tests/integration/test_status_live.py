"""`zkd status` of running servers: zkd's, Apache ZooKeeper's, and one that is not there."""

from __future__ import annotations

import json

import pytest

from tests.apache import ApacheServer, free_port
from tests.apache import apache_zookeeper as apache_zookeeper
from zkd import cli
from zkd.testing import server as zkd_server


def test_a_zkd_server_shows_its_processes(capsys: pytest.CaptureFixture[str]) -> None:
    with zkd_server() as server:
        server.client().create("/a", b"12345")
        assert cli.main(["status", "-s", server.hosts, "--json"]) == 0
        (told,) = json.loads(capsys.readouterr().out)["servers"]
        assert cli.main(["status", "-s", server.hosts]) == 0
        table = capsys.readouterr().out
    assert (told["server"], told["serving"], told["error"]) == (server.hosts, True, None)
    assert told["mode"] == "standalone"
    assert told["version"].startswith("3.9.")
    assert told["sessions"] == 1
    assert told["node_count"] == 6
    assert told["data_dir"] == str(server.data_dir)
    assert {"frontend 1", "peer", "storage"} <= set(told["processes"])
    assert all(values["resident_bytes"] > 0 for values in told["processes"].values())
    assert "standalone" in table
    assert "frontend 1" in table


def test_apaches_server_and_one_that_is_not_there(
    apache_zookeeper: ApacheServer, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = f"{apache_zookeeper.hosts},127.0.0.1:{free_port()}"
    assert cli.main(["status", "-s", servers, "--json"]) == 1
    up, down = json.loads(capsys.readouterr().out)["servers"]
    assert (up["serving"], up["mode"]) == (True, "standalone")
    assert (down["serving"], down["error"]) == (False, "Connection refused")


def test_what_is_not_allowed_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with zkd_server({"4lw.commands.whitelist": "srvr"}) as server:
        assert cli.main(["status", "-s", server.hosts, "--json"]) == 0
        (told,) = json.loads(capsys.readouterr().out)["servers"]
    assert told["mode"] == "standalone"
    assert "sessions" not in told
    assert told["processes"] == {}
