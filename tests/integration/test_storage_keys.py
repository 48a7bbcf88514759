"""Keys of storage on a real server: group commit, when the tree is written, folders, recovery."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance import wire
from tests.integration.test_limits_live import answers, created, metric, sets
from tests.integration.test_processes import eventually, tree_zxid
from zkd import testing
from zkd.jute.protocol import Err
from zkd.testing.throwaway import Server, ServerFailed

ONE = {"frontends": "1"}


def commits(server: testing.Server) -> int:
    return int(metric(server, "cnt_fsynctime"))


def test_flush_delay_lets_writes_wait_for_each_other() -> None:
    """M114"""
    with testing.server({**ONE, "flushDelay": "100"}) as server:
        clients = [created(server, f"/c{i}") for i in range(8)]
        before = commits(server)
        began = time.monotonic()
        for i, client in enumerate(clients):
            client.send(*sets(f"/c{i}", 1))
        for client in clients:
            assert answers(client, 1) == [0]
        took_s = time.monotonic() - began
        assert 0.03 < took_s < 1.0, "flushDelay / 3 without another write"
        assert commits(server) - before <= 2
        for client in clients:
            client.close()


@pytest.mark.parametrize(("most", "least_commits"), [("1", 50), ("10", 5)])
def test_max_batch_size_bounds_one_commit(most: str, least_commits: int) -> None:
    with testing.server({**ONE, "maxBatchSize": most}) as server:
        client = created(server, "/n")
        before = commits(server)
        client.send(*sets("/n", 50))
        assert answers(client, 50) == [0] * 50
        assert commits(server) - before >= least_commits
        client.close()


@pytest.mark.parametrize(
    "settings", [{"snapCount": "20"}, {"snapSizeLimitInKb": "1024"}], ids=["count", "size"]
)
def test_the_tree_is_written_by_count_and_by_size(settings: Mapping[str, str]) -> None:
    """M118, with zkd's meaning: changes go to the tree's file long before the interval is over."""
    with testing.server({**ONE, "flush.interval": "1h", **settings}) as server:
        client = created(server, "/n")
        for i in range(30):
            body = wire.create(f"/n{i}", bytes(60_000), wire.OPEN, 0)
            assert client.call(wire.CREATE, body)[0] == 0
        eventually(lambda: tree_zxid(server) > 10, 5)
        client.close()


def test_log_and_tree_on_two_volumes(tmp_path: Path) -> None:
    """M116: each alone is of no use, and that is said."""
    log_dir = tmp_path / "log"
    with Server({**ONE, "dataLogDir": str(log_dir)}) as server:
        created(server, "/n").close()
        server.stop()
        assert (log_dir / "log.db").is_file()
        assert (server.data_dir / "tree-1.db").is_file()
        assert not (server.data_dir / "log.db").exists()
        server.start()
        client = wire.Client(server.port)
        assert client.call(wire.EXISTS, wire.watched("/n"))[0] == 0
        client.close()
        server.stop()
        shutil.move(log_dir, tmp_path / "elsewhere")
        with pytest.raises(ServerFailed, match=r"there is a tree .* but no log\.db"):
            server.start()
        shutil.rmtree(log_dir, ignore_errors=True)
        shutil.move(tmp_path / "elsewhere", log_dir)
        server.start()


@pytest.mark.parametrize("key", ["datadir.autocreate", "db.autocreate"])
def test_a_missing_folder_or_database_is_not_made_if_so_configured(
    tmp_path: Path, key: str
) -> None:
    """M131, M132"""
    data = tmp_path / "data"
    if key == "db.autocreate":
        data.mkdir()
    settings = {**ONE, key: "false", "dataDir": str(data)}
    with pytest.raises(ServerFailed, match=key), Server(settings):
        pass
    if key == "db.autocreate":
        (data / "initialize").touch()
    else:
        data.mkdir()
    with Server(settings) as server:
        created(server, "/n").close()


def test_recovery_tells_how_far_it_is(tmp_path: Path) -> None:
    """M124: in percent and with the time that it still takes."""
    with Server({**ONE, "flush.interval": "1h", "snapCount": "1000000"}) as server:
        client = created(server, "/n")
        done = 0
        while done < 6000:
            client.send(*sets("/n", 1000))
            assert answers(client, 1000) == [0] * 1000
            done += 1000
        client.drop()
        server.kill("supervisor")
        server.start()
        told = [x for x in server.log.read_text().splitlines() if "Recovering: " in x]
        assert told, "the supervisor passes it on to systemd as STATUS="
        assert any(" %, " in line and " s left" in line for line in told)
        client = wire.Client(server.port)
        assert client.call(wire.EXISTS, wire.watched("/n"))[0] == 0
        client.close()


def test_quotas_warn_when_soft_and_refuse_when_hard() -> None:
    """M192, M193"""
    with testing.server({**ONE, "enforceQuota": "true"}) as server:
        client = created(server, "/q")
        for path, data in (
            ("/zookeeper/quota/q", b""),
            ("/zookeeper/quota/q/zookeeper_limits", b"count=3,bytes=-1,byteHardLimit=40"),
            ("/zookeeper/quota/q/zookeeper_stats", b"count=0,bytes=0"),
        ):
            assert client.call(wire.CREATE, wire.create(path, data, wire.OPEN, 0))[0] == 0
        for i in range(4):
            body = wire.create(f"/q/n{i}", b"12345", wire.OPEN, 0)
            assert client.call(wire.CREATE, body)[0] == 0, "a soft limit refuses nothing"
        eventually(lambda: "quota.exceeded" in server.log.read_text())
        body = wire.create("/q/large", bytes(30), wire.OPEN, 0)
        assert client.call(wire.CREATE, body)[0] == Err.QUOTA_EXCEEDED
        assert client.call(wire.SET_DATA, wire.set_data("/q/n0", bytes(30), -1))[0] == -125
        err, reply = client.call(wire.GET_DATA, wire.watched("/zookeeper/quota/q/zookeeper_stats"))
        assert err == 0
        (size,) = struct.unpack_from(">i", reply)
        assert reply[4 : 4 + size] == b"count=5,bytes=20"
        client.close()
