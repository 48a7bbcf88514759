"""kazoo's recipes with several clients: what applications build on the server's guarantees.

Features M305 to M319 as far as kazoo has them; Curator's are in curator/, by hand.
"""

from __future__ import annotations

import socket
import threading

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import KazooState
from kazoo.recipe.barrier import Barrier, DoubleBarrier
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.recipe.partitioner import SetPartitioner
from kazoo.recipe.party import Party, ShallowParty
from kazoo.recipe.queue import LockingQueue, Queue
from kazoo.recipe.watchers import ChildrenWatch, DataWatch, PatientChildrenWatch

from tests.clients.crowd import WITHIN_S, Connect, Crashing, run, until
from tests.conformance import wire
from tests.conformance.servers import Server

# M305, M306: barriers


def test_barrier(connect: Connect, path: str) -> None:
    clients = [connect() for _ in range(3)]
    Barrier(clients[0], path).create()
    waiting = [Barrier(client, path) for client in clients[1:]]
    assert not waiting[0].wait(timeout=0.1)
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda b=b: results.append(b.wait(WITHIN_S)), daemon=True)
        for b in waiting
    ]
    for thread in threads:
        thread.start()
    Barrier(clients[0], path).remove()
    for thread in threads:
        thread.join(WITHIN_S)
    assert results == [True, True]
    assert Barrier(clients[0], path).wait(timeout=1), "no barrier is no reason to wait"


def test_double_barrier_lets_all_in_and_all_out_together(connect: Connect, path: str) -> None:
    inside: list[int] = []
    left: list[int] = []

    def pass_through(client: KazooClient, number: int) -> None:
        barrier = DoubleBarrier(client, path, 3, f"b{number}")
        barrier.enter()
        inside.append(number)
        until(lambda: len(inside) == 3)
        assert not left
        barrier.leave()
        left.append(number)

    clients = [connect() for _ in range(3)]
    run(*(lambda c=c, n=n: pass_through(c, n) for n, c in enumerate(clients)))
    assert sorted(left) == [0, 1, 2]


# M307: queues


def test_queue_gives_each_item_once(connect: Connect, path: str) -> None:
    producers, consumers = [connect() for _ in range(2)], [connect() for _ in range(3)]
    items = [f"{number:03}".encode() for number in range(60)]

    def produce(client: KazooClient, mine: list[bytes]) -> None:
        queue = Queue(client, path)
        for item in mine:
            queue.put(item)

    run(*(lambda c=c, n=n: produce(c, items[n::2]) for n, c in enumerate(producers)))
    assert len(Queue(producers[0], path)) == 60

    def consume(client: KazooClient) -> list[bytes]:
        queue, taken = Queue(client, path), []
        while (item := queue.get()) is not None:
            taken.append(item)
        return taken

    taken = run(*(lambda c=c: consume(c) for c in consumers))
    assert sorted(item for part in taken for item in part) == items


def test_queue_goes_by_priority(connect: Connect, path: str) -> None:
    queue = connect().Queue(path)
    for priority, item in ((50, b"later"), (10, b"first"), (50, b"latest"), (20, b"second")):
        queue.put(item, priority)
    assert [queue.get() for _ in range(5)] == [b"first", b"second", b"later", b"latest", None]


def test_locking_queue_returns_what_a_dead_consumer_had(
    connect: Connect, server: Server, path: str
) -> None:
    queue = LockingQueue(connect(), path)
    queue.put_all([b"one", b"two"])
    Crashing(server, f"assert client.LockingQueue({path!r}).get(timeout=5) == b'one'").crash()
    taken = []
    for _ in range(2):
        taken.append(queue.get(timeout=WITHIN_S))
        assert queue.consume()
    assert sorted(taken) == [b"one", b"two"]


# M308: counters


def test_counter_loses_nothing(connect: Connect, path: str) -> None:
    clients = [connect() for _ in range(4)]

    def count(client: KazooClient) -> None:
        counter = client.Counter(path)
        for _ in range(10):
            counter += 1
        counter -= 3

    run(*(lambda c=c: count(c) for c in clients))
    assert connect().Counter(path).value == 28


# M309: membership


def test_party_knows_who_is_there(connect: Connect, server: Server, path: str) -> None:
    clients = [connect() for _ in range(3)]
    parties = [Party(client, path, f"p{number}") for number, client in enumerate(clients)]
    for party in parties:
        party.join()
    assert sorted(parties[0]) == ["p0", "p1", "p2"]
    crashed = Crashing(server, f"client.Party({path!r}, 'crashed').join()")
    assert len(parties[0]) == 4
    crashed.crash()
    until(lambda: len(parties[0]) == 3, "a crashed member stays")
    parties[1].leave()
    clients[2].stop()
    until(lambda: sorted(parties[0]) == ["p0"])
    shallow = [ShallowParty(clients[0], path + "-s", f"s{number}") for number in range(2)]
    for party in shallow:
        party.join()
    assert sorted(shallow[0]) == ["s0", "s1"]


# M311: watches and caches


def test_data_watch_ends_at_the_last_value(connect: Connect, path: str) -> None:
    """Values may be skipped, never reordered, and the last one always comes."""
    writer, seen = connect(), []
    DataWatch(connect(), path, lambda data, _stat: seen.append(data))
    writer.create(path, b"0")
    for number in range(1, 100):
        writer.set(path, str(number).encode())
    until(lambda: seen[-1] == b"99")
    numbers = [int(data) for data in seen if data is not None]
    assert numbers == sorted(numbers)
    writer.delete(path)
    until(lambda: seen[-1] is None)
    writer.create(path, b"again")
    until(lambda: seen[-1] == b"again")


def test_children_watch_ends_at_the_last_list(connect: Connect, path: str) -> None:
    writer, seen = connect(), []
    writer.ensure_path(path)
    ChildrenWatch(connect(), path, lambda children: seen.append(set(children)))
    for number in range(50):
        writer.create(f"{path}/{number}")
    for number in range(0, 50, 2):
        writer.delete(f"{path}/{number}")
    until(lambda: seen[-1] == {str(number) for number in range(1, 50, 2)})


def test_patient_children_watch_waits_until_it_is_quiet(connect: Connect, path: str) -> None:
    client = connect()
    client.create(path)
    watch = PatientChildrenWatch(connect(), path, time_boundary=0.3).start()
    for number in range(3):
        client.create(f"{path}/{number}")
    children, changed = watch.get(timeout=WITHIN_S)
    assert set(children) == {"0", "1", "2"}
    client.create(f"{path}/3")
    assert changed.wait(WITHIN_S)


def test_tree_cache_follows(connect: Connect, path: str) -> None:
    writer = connect()
    writer.create(f"{path}/a/b", b"1", makepath=True)
    events: list[int] = []
    cache = TreeCache(connect(), path)
    cache.listen(lambda event: events.append(event.event_type))
    cache.start()
    until(lambda: TreeEvent.INITIALIZED in events)
    assert cache.get_data(f"{path}/a/b").data == b"1"
    writer.set(f"{path}/a/b", b"2")
    writer.create(f"{path}/a/c", b"3")
    writer.delete(f"{path}/a/b")
    until(lambda: cache.get_children(f"{path}/a") == {"c"})
    until(lambda: cache.get_data(f"{path}/a/c") is not None)
    assert cache.get_data(f"{path}/a/b") is None
    cache.close()


# M314: partitions


def test_partitioner_shares_out_and_shares_again(connect: Connect, path: str) -> None:
    parts = tuple(range(6))
    clients = [connect() for _ in range(3)]
    made = [
        SetPartitioner(client, path, parts, identifier=f"i{number}", time_boundary=0.3)
        for number, client in enumerate(clients)
    ]

    def settled(partitioners: list[SetPartitioner]) -> bool:
        for partitioner in partitioners:
            if partitioner.release:
                partitioner.release_set()
            elif partitioner.allocating:
                partitioner.wait_for_acquire(0.05)
        if not all(partitioner.acquired for partitioner in partitioners):
            return False
        held = [part for partitioner in partitioners for part in partitioner]
        return sorted(held) == list(parts)

    until(lambda: settled(made), "three do not share the parts")
    assert [len(list(partitioner)) for partitioner in made] == [2, 2, 2]
    made[2].finish()
    until(lambda: settled(made[:2]), "two do not take over the parts")
    for partitioner in made[:2]:
        partitioner.finish()


# M317, M318: what the client alone does, and what it needs of the server for it


def test_chroot(connect: Connect, server: Server, path: str) -> None:
    connect().create(path)
    inside = KazooClient(server.hosts + path)
    inside.start(WITHIN_S)
    try:
        assert inside.create("/a/b", b"x", makepath=True) == "/a/b"
        seen: list[str] = []
        inside.get("/a/b", watch=lambda event: seen.append(event.path))
        connect().set(f"{path}/a/b", b"y")
        until(lambda: seen == ["/a/b"])
    finally:
        inside.stop()
        inside.close()


def test_a_server_that_is_not_there_is_skipped(server: Server) -> None:
    client = KazooClient(f"127.0.0.1:1,{server.hosts}")
    client.start(WITHIN_S)
    assert client.exists("/") is not None
    client.stop()
    client.close()


def test_a_transaction_happens_whole_or_not_at_all(connect: Connect, path: str) -> None:
    """Two-phase commit's substitute (M315): check, then write, in one step."""
    client = connect()
    client.create(path, b"0")
    first = client.transaction()
    first.check(path, 0)
    first.set_data(path, b"1")
    first.create(path + "/log-", b"", sequence=True, ephemeral=True)
    assert first.commit()[2] == path + "/log-0000000000"
    second = client.transaction()
    second.check(path, 0)
    second.delete(path + "/log-0000000000")
    results = second.commit()
    assert [type(result).__name__ for result in results] == [
        "BadVersionError",
        "RuntimeInconsistency",
    ]
    assert client.get_children(path) == ["log-0000000000"]


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [((b"yes", b"yes", b"yes"), b"commit"), ((b"yes", b"no", b"yes"), b"abort")],
)
def test_two_phase_commit(
    connect: Connect, path: str, votes: tuple[bytes, ...], outcome: bytes
) -> None:
    """Sites vote below the transaction's node; each sees the same outcome (M315)."""
    coordinator, sites = connect(), [connect() for _ in votes]
    coordinator.create(path)
    seen: list[bytes] = []
    for site, vote in zip(sites, votes, strict=True):
        DataWatch(site, path, lambda data, _stat: seen.append(data) if data else None)
        site.create(f"{path}/{site.client_id[0]}", vote)
    cast = {coordinator.get(f"{path}/{site}")[0] for site in coordinator.get_children(path)}
    coordinator.set(path, b"commit" if cast == {b"yes"} else b"abort")
    until(lambda: seen == [outcome] * 3)


def test_a_node_made_before_the_connection_was_lost_is_found_again(
    connect: Connect, path: str
) -> None:
    """A create whose answer is lost: the session goes on, so its ephemeral is there (M318)."""
    client = connect()
    client.create(path)
    request = client.create_async(f"{path}/guid-1-", ephemeral=True, sequence=True)
    client._connection._socket.shutdown(socket.SHUT_RDWR)
    request.wait(WITHIN_S)
    until(lambda: client.state == KazooState.CONNECTED and client.connected)
    session = client.client_id[0]
    found = client.retry(client.get_children, path)
    if not request.successful():
        assert len(found) in (0, 1)
    for child in found:
        assert client.exists(f"{path}/{child}").ephemeralOwner == session


def test_suspended_is_not_lost_and_lost_is_expired(server: Server, path: str) -> None:
    """The client hears LOST only when the server has ended its session (M319)."""
    client = KazooClient(server.hosts, timeout=1.5)
    states: list[str] = []
    client.add_listener(states.append)
    client.start(WITHIN_S)
    client.create(path, ephemeral=True)
    server.stop()
    until(lambda: KazooState.SUSPENDED in states)
    server.start()
    until(lambda: states[-1] == KazooState.CONNECTED, "not connected again")
    lost = KazooState.LOST in states
    assert (client.exists(path) is None) == lost
    client.stop()
    client.close()


def test_container_is_removed_when_its_last_child_is(connect: Connect, path: str) -> None:
    """What Curator puts its locks into: gone after its last child, not before its first."""
    client = connect()
    raw = wire.Client(int(client.hosts[0][1]))
    body = wire.create(path, b"", wire.OPEN, 4)
    assert raw.call(wire.CREATE_CONTAINER, body)[0] == 0
    client.create(path + "/child")
    client.delete(path + "/child")
    until(lambda: client.exists(path) is None, "the container stays")
    with pytest.raises(NoNodeError):
        client.create(path + "/child")
    raw.close()


def test_ttl_node_is_removed_when_its_time_is_over(connect: Connect, path: str) -> None:
    client = connect()
    raw = wire.Client(int(client.hosts[0][1]))
    for name, ttl in (("", 1), ("-long", 10**9)):
        body = wire.create_ttl(path + name, b"", wire.OPEN, 5, ttl)
        assert raw.call(wire.CREATE_TTL, body)[0] == 0
    until(lambda: client.exists(path) is None, "the node outlives its TTL")
    assert client.exists(path + "-long") is not None
    client.delete(path + "-long")
    raw.close()
