"""Roles beyond voting, and members that stand still or cannot write."""

from __future__ import annotations

import signal

import pytest

from tests.apache import free_port
from tests.conformance import wire
from tests.ensemble import Ensemble, Writer, seen, until


def is_closed(client: wire.Client) -> bool:
    """Look at something, as a client that has no other server."""
    try:
        client.call(wire.EXISTS, wire.watched("/w"))
    except ConnectionError:
        return True
    return False


def test_an_observer_reads_writes_and_counts_for_nothing() -> None:
    with Ensemble(3, observers=1) as ensemble:
        assert ensemble.modes()[4] == "observer"
        client = ensemble.client(4)
        client.create("/a", b"1")
        client.create("/mine", b"", ephemeral=True)
        writer = Writer(ensemble.client(4))
        writer.more()
        ensemble.kill(4)
        other = ensemble.client(1)
        other.create("/b")
        ensemble.servers[4].start()
        ensemble.all_serve()
        writer.more()
        written = writer.stop()
        trees = [seen(ensemble.client(sid)) for sid in ensemble.servers]
        assert written <= set(trees[0]["/w"][2])
        assert all(tree == trees[0] for tree in trees)
        leader = ensemble.leader()
        for sid in {1, 2, 3} - {leader}:
            ensemble.kill(sid)
        until(lambda: "leader" not in ensemble.modes().values())


def test_observers_of_a_follower() -> None:
    """They connect to any of the voters but the leader, which has no such port."""
    with Ensemble(3, observers=1, observerMasterPort=free_port()) as ensemble:
        client = ensemble.client(4)
        client.create("/a", b"1")
        client.create("/mine", b"", ephemeral=True)
        client.sync("/")
        assert ensemble.client(1).get("/a")[0] == b"1"
        moved = wire.Client(ensemble.servers[4].port)
        again = wire.Client(
            ensemble.servers[1].port,
            session=moved.session.session,
            password=moved.session.password,
        )
        assert again.session.session == moved.session.session
        moved.drop()
        again.close()


def test_a_leader_that_shall_not_serve_leads() -> None:
    with Ensemble(3, ready=False, leaderServes="no") as ensemble:
        until(lambda: sorted(ensemble.modes().values()) == ["", "follower", "follower"])
        (leader,) = (sid for sid, mode in ensemble.modes().items() if not mode)
        followers = set(ensemble.servers) - {leader}
        client = ensemble.client(*followers)
        client.create("/a")
        refused = wire.Wire(ensemble.servers[leader].port)
        refused.send(wire.connect_request())
        assert refused.wait_closed() == b""
        refused.drop()


def test_a_leader_that_stands_still_is_replaced_and_its_clients_are_sent_away() -> None:
    with Ensemble(3) as ensemble:
        leader = ensemble.leader()
        stale = wire.Client(ensemble.servers[leader].port)
        writer = Writer(ensemble.client(*(set(ensemble.servers) - {leader})))
        writer.more()
        ensemble.stop(leader)
        writer.more()
        ensemble.stop(leader, signal.SIGCONT)
        until(lambda: is_closed(stale))
        stale.drop()
        ensemble.all_serve()
        written = writer.stop()
        trees = [seen(ensemble.client(sid)) for sid in ensemble.servers]
        assert written <= set(trees[0]["/w"][2])
        assert all(tree == trees[0] for tree in trees)


@pytest.mark.parametrize("process", ["storage", "peer", "frontend 1"])
@pytest.mark.parametrize("leads", [True, False])
def test_a_member_lives_through_the_death_of_one_of_its_processes(
    process: str, leads: bool
) -> None:
    with Ensemble(3) as ensemble:
        leader = ensemble.leader()
        victim = leader if leads else leader % 3 + 1
        writer = Writer(ensemble.client())
        for _ in range(3):
            writer.more()
            ensemble.servers[victim].kill(process)
            writer.more()
            until(lambda: process in ensemble.servers[victim].pids())
            ensemble.all_serve()
        written = writer.stop()
        trees = [seen(ensemble.client(sid)) for sid in ensemble.servers]
        assert written <= set(trees[0]["/w"][2])
        assert all(tree == trees[0] for tree in trees)
