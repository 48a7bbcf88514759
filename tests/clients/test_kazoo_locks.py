"""kazoo's elections, locks, semaphores and leases with several clients: features M300 to M304."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from functools import partial

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import CancelledError, LockTimeout
from kazoo.recipe.lease import MultiNonBlockingLease, NonBlockingLease
from kazoo.recipe.lock import Lock, ReadLock, Semaphore, WriteLock

from tests.clients.crowd import WITHIN_S, Connect, Crashing, run, until
from tests.conformance.servers import Server

# M300: leader election


def test_one_leader_at_a_time_and_each_in_turn(connect: Connect, path: str) -> None:
    inside, most, led = 0, 0, []
    guard = threading.Lock()

    def lead(name: str) -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        led.append(name)
        with guard:
            inside -= 1

    names = [f"candidate-{number}" for number in range(4)]
    elections = [connect().Election(path, name) for name in names]
    run(*(partial(e.run, lead, n) for e, n in zip(elections, names, strict=True)))
    assert most == 1
    assert sorted(led) == names


def test_the_next_leads_when_the_leader_crashes(
    connect: Connect, server: Server, path: str
) -> None:
    leader = Crashing(
        server,
        "import threading\n"
        "leads = threading.Event()\n"
        "lead = lambda: (leads.set(), threading.Event().wait())\n"
        f"run = client.Election({path!r}, 'first').run\n"
        "threading.Thread(target=run, args=(lead,), daemon=True).start()\n"
        "leads.wait()",
    )
    election, led = connect().Election(path, "second"), threading.Event()
    thread = threading.Thread(target=election.run, args=(led.set,), daemon=True)
    thread.start()
    until(lambda: election.contenders() == ["first", "second"])
    assert not led.is_set()
    leader.crash()
    assert led.wait(WITHIN_S)
    thread.join(WITHIN_S)


# M302, M303, M313, M316: locks


def test_lock_excludes(connect: Connect, path: str) -> None:
    """Six clients count with read, then write: none of the increments is lost."""
    clients = [connect() for _ in range(6)]
    clients[0].create(path + "-count", b"0")

    def count(client: KazooClient) -> None:
        for _ in range(15):
            with client.Lock(path, "me"):
                value, stat = client.get(path + "-count")
                client.set(path + "-count", str(int(value) + 1).encode(), stat.version)

    run(*(lambda client=client: count(client) for client in clients))
    assert clients[0].get(path + "-count")[0] == b"90"


def _contenders_are(lock: Lock, count: int) -> bool:
    return len(lock.contenders()) == count


def test_lock_is_fair(connect: Connect, path: str) -> None:
    """Who came first gets it first."""
    holder = connect().Lock(path, "holder")
    holder.acquire()
    order: list[int] = []
    threads = []
    for number in range(4):
        lock = connect().Lock(path, str(number))

        def wait(lock: Lock = lock, number: int = number) -> None:
            with lock:
                order.append(number)

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()
        until(partial(_contenders_are, holder, number + 2))
    holder.release()
    for thread in threads:
        thread.join(WITHIN_S)
    assert order == [0, 1, 2, 3]


def test_lock_times_out_can_be_cancelled_and_is_not_waited_for(connect: Connect, path: str) -> None:
    holder, other = connect().Lock(path, "holder"), connect().Lock(path, "other")
    holder.acquire()
    assert not other.acquire(blocking=False)
    with pytest.raises(LockTimeout):
        other.acquire(timeout=0.2)
    assert holder.contenders() == ["holder"]
    cancelled = threading.Event()

    def wait() -> None:
        try:
            other.acquire()
        except CancelledError:
            cancelled.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    until(lambda: holder.contenders() == ["holder", "other"])
    other.cancel()
    assert cancelled.wait(WITHIN_S)
    thread.join(WITHIN_S)
    holder.release()


def test_lock_of_a_crashed_client_is_free_after_its_session(
    connect: Connect, server: Server, path: str
) -> None:
    crashed = Crashing(server, f"client.Lock({path!r}, 'crashed').acquire()")
    crashed.crash()
    begin = time.monotonic()
    lock = connect().Lock(path, "next")
    assert lock.acquire(timeout=WITHIN_S)
    assert time.monotonic() - begin > 0.5, "gone before the session can have expired"
    lock.release()


def test_creation_zxid_of_the_lock_node_fences(connect: Connect, path: str) -> None:
    """Each holder's czxid is above the one before: a fencing token (M316)."""
    tokens = []
    for _ in range(3):
        client = connect()
        with client.Lock(path, "me") as _:
            (node,) = client.get_children(path)
            tokens.append(client.exists(f"{path}/{node}").czxid)
    assert tokens == sorted(set(tokens))


def test_readers_share_and_writers_exclude(connect: Connect, path: str) -> None:
    readers = [ReadLock(connect(), path, f"r{number}") for number in range(3)]
    writer = WriteLock(connect(), path, "w")
    for reader in readers:
        assert reader.acquire(timeout=WITHIN_S)
    assert not writer.acquire(blocking=False)
    got = threading.Event()

    def write() -> None:
        writer.acquire()
        got.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    until(lambda: len(writer.contenders()) == 4)
    late = ReadLock(connect(), path, "late")
    assert not late.acquire(blocking=False), "a reader passed a waiting writer"
    for reader in readers:
        assert not got.is_set()
        reader.release()
    assert got.wait(WITHIN_S)
    writer.release()
    thread.join(WITHIN_S)
    assert late.acquire(timeout=WITHIN_S)
    late.release()


# M304: semaphore and leases


def test_semaphore_holds_so_many_and_no_more(connect: Connect, path: str) -> None:
    one, two, three = (connect().Semaphore(path, f"s{n}", max_leases=2) for n in range(3))
    assert one.acquire(timeout=WITHIN_S)
    assert two.acquire(timeout=WITHIN_S)
    assert not three.acquire(blocking=False)
    assert sorted(three.lease_holders()) == ["s0", "s1"]
    one.release()
    assert three.acquire(timeout=WITHIN_S)
    two.release()
    three.release()
    assert one.lease_holders() == []


def test_semaphore_under_contention(connect: Connect, path: str) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def enter(semaphore: Semaphore) -> None:
        nonlocal inside, most
        for _ in range(5):
            with semaphore:
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    run(*(partial(enter, connect().Semaphore(path, f"s{n}", max_leases=2)) for n in range(4)))
    assert 1 <= most <= 2


def test_leases(connect: Connect, path: str) -> None:
    one, other = connect(), connect()
    hour = timedelta(hours=1)
    assert NonBlockingLease(one, path, hour, identifier="one")
    assert not NonBlockingLease(other, path, hour, identifier="other")
    assert NonBlockingLease(one, path, hour, identifier="one"), "the holder may renew"
    held = [
        bool(MultiNonBlockingLease(other, 2, path + "-multi", hour, identifier=str(number)))
        for number in range(3)
    ]
    assert held == [True, True, False]
