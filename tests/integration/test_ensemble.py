"""Three zkd servers are one service: through all processes, with real clients."""

from __future__ import annotations

from tests.ensemble import Ensemble


def test_what_one_server_writes_is_read_from_all() -> None:
    with Ensemble(3) as ensemble:
        clients = {sid: ensemble.client(sid) for sid in ensemble.servers}
        for sid, client in clients.items():
            client.create(f"/n{sid}", b"%d" % sid)
        for client in clients.values():
            client.sync("/")
            for sid in ensemble.servers:
                assert client.get(f"/n{sid}")[0] == b"%d" % sid


def test_the_loss_of_the_leader_loses_no_write() -> None:
    with Ensemble(3) as ensemble:
        leader = ensemble.leader()
        client = ensemble.client()
        for i in range(20):
            client.create(f"/n{i}")
        ensemble.kill(leader)
        assert ensemble.leader() != leader
        survivor = ensemble.client(*(sid for sid in ensemble.servers if sid != leader))
        assert sorted(survivor.get_children("/")) == sorted(
            ["zookeeper", *(f"n{i}" for i in range(20))]
        )
        survivor.create("/after")
        ensemble.servers[leader].start()
        ensemble.all_serve()
        back = ensemble.client(leader)
        back.sync("/")
        assert back.exists("/after")
