"""The election port: who keeps a connection, what is sent again, what a bad connection costs."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from net_support import LOOPS, free_port, has_ipv6, run, until

from zkd.errors import OperatorError
from zkd.jute.codec import Malformed
from zkd.jute.election import ANONYMOUS, encode_initial, frame
from zkd.server.quorum import election_net, net
from zkd.server.quorum.election_net import ElectionNet, ElectionSettings

LOCAL = "127.0.0.1"
BACK_OFF = (0.01, 0.05)


class Recorder:
    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.unreachable: list[int] = []

    def on_message(self, sid: int, message: bytes) -> None:
        self.messages.append((sid, message))

    def on_unreachable(self, sid: int, reason: str) -> None:
        assert reason
        self.unreachable.append(sid)

    def of(self, sid: int) -> list[bytes]:
        return [message for told, message in self.messages if told == sid]


class Group:
    """Some servers' election ports in one loop."""

    def __init__(self, sids: tuple[int, ...] = (1, 2, 3), host: str = LOCAL) -> None:
        self.members = {sid: [(host, free_port(host))] for sid in sids}
        self.events = {sid: Recorder() for sid in sids}
        self.nets: dict[int, ElectionNet] = {}

    async def __aenter__(self) -> Group:
        return self

    async def __aexit__(self, *_: object) -> None:
        for sid in list(self.nets):
            await self.stop(sid)

    async def start(self, sid: int, **more: Any) -> ElectionNet:
        settings = ElectionSettings(
            sid, self.members[sid], **{"back_off_s": BACK_OFF, "handshake_timeout_s": 5.0} | more
        )
        self.nets[sid] = made = ElectionNet(
            asyncio.get_running_loop(), settings, self.members, self.events[sid], random.Random(sid)
        )
        await made.start()
        return made

    async def stop(self, sid: int) -> None:
        await self.nets.pop(sid).close()


@pytest.fixture(params=list(LOOPS))
def on_loop(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return lambda work: run(request.param, work)


OnLoop = Callable[[Coroutine[Any, Any, None]], None]


def test_every_pair_talks_over_the_connection_of_the_larger_id(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group() as group:
            for sid in group.members:
                await group.start(sid)
            for sid, own in group.nets.items():
                for other in group.members:
                    own.send(other, b"%d to %d" % (sid, other))
            for sid, events in group.events.items():
                await until(lambda e=events: len({s for s, _ in e.messages}) == 3)
                assert {m for _, m in events.messages} == {
                    b"%d to %d" % (other, sid) for other in group.members
                }
            await until(lambda: all(own.delivered() for own in group.nets.values()))
            for sid, own in group.nets.items():
                assert own.connected() == set(group.members) - {sid}
                for other, peer in own._peers.items():
                    assert peer.connection is not None
                    assert peer.connection._outgoing == (sid > other)
                group.nets[sid].connect_all()  # does nothing
            assert not any(events.unreachable for events in group.events.values())

    on_loop(work())


def test_the_last_message_is_sent_again_when_the_peer_comes_back(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((1, 2)) as group:
            two = await group.start(2)
            await group.start(1)
            two.send(1, b"first")
            two.send(1, b"vote")
            await until(lambda: b"vote" in group.events[1].of(2))
            await group.stop(1)
            await until(lambda: not two.connected())
            assert two.delivered()
            group.events[1].messages.clear()
            one = await group.start(1)
            one.send(2, b"new here")
            await until(lambda: group.events[1].messages)
            assert group.events[1].messages == [(2, b"vote")]
            await until(lambda: group.events[2].messages)
            assert group.events[2].messages == [(1, b"new here")]

    on_loop(work())


def test_of_what_waits_for_a_peer_only_the_newest_is_sent(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((1, 2)) as group:
            for mine, other in ((2, 1), (1, 2)):
                own = await group.start(mine)
                for number in range(50):
                    own.send(other, b"%d" % number)
                await until(lambda m=mine: len(group.events[m].unreachable) >= 3)
                assert not own.delivered()
                await group.start(other)
                await until(lambda o=other: group.events[o].messages)
                assert group.events[other].messages == [(mine, b"49")]
                assert own.delivered()
                for sid in (1, 2):
                    await group.stop(sid)
                    group.events[sid].messages.clear()

    on_loop(work())


def test_attempts_are_a_back_off_apart(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((1, 2)) as group:
            own = await group.start(2, back_off_s=(0.05, 0.2))
            loop = asyncio.get_running_loop()
            end = loop.time() + 0.6
            while loop.time() < end:
                own.send(1, b"again")
                own.connect_all()
                await asyncio.sleep(0.001)
            assert 3 <= len(group.events[2].unreachable) <= 7

    on_loop(work())


def test_a_name_is_resolved_at_every_attempt(
    on_loop: OnLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, asked = free_port(), []
    resolve = net.resolve

    async def work() -> None:
        async with Group((1, 2)) as group:
            live = group.members[1][0]

            async def moving(loop: Any, address: Any, **more: Any) -> Any:
                if address[0] != "zk1.test":
                    return await resolve(loop, address, **more)
                asked.append(address)
                return await resolve(loop, live if len(asked) > 2 else (LOCAL, dead), **more)

            monkeypatch.setattr(net, "resolve", moving)
            await group.start(1)
            group.members[1] = [("zk1.test", 3888)]
            own = await group.start(2)
            own.send(1, b"hello")
            await until(lambda: group.events[1].messages)
            assert len(asked) == 3
            assert group.events[2].unreachable == [1, 1]

    on_loop(work())


def test_a_name_that_is_unknown_costs_an_attempt_only(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((1, 2)) as group:
            group.members[1] = [("no-such-host.invalid", 3888), ("x" * 70 + ".invalid", 1)]
            own = await group.start(2)
            own.send(1, b"hello")
            await until(lambda: group.events[2].unreachable)

    on_loop(work())


def test_of_several_addresses_the_one_that_answers_is_used(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((1, 2)) as group:
            await group.start(1)
            group.members[1] = [(LOCAL, free_port()), ("127.0.0.2", free_port()), *group.members[1]]
            own = await group.start(2, multi_address=True)
            own.send(1, b"hello")
            await until(lambda: group.events[1].messages)
            assert group.events[2].unreachable == []

    on_loop(work())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_ipv6_and_all_addresses(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((1, 2), "::1") as group:
            one = await group.start(1)
            two = await group.start(2)
            one.send(2, b"1")  # the larger one connects back to the address in the first message
            two.send(1, b"2")
            await until(lambda: group.events[1].messages and group.events[2].messages)
            assert [a[0] for a in one.listening] == ["::1"]
        async with Group((1, 2)) as group:
            everywhere = await group.start(1, listen_on_all=True)
            ((_, port),) = everywhere.listening
            for host in (LOCAL, "::1"):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                await writer.wait_closed()

    on_loop(work())


def test_a_port_that_is_taken_is_tried_again_then_reported(
    on_loop: OnLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "BIND_PAUSE_S", 0.01)
    tries, bind = [], net.bind

    async def counted(*args: Any, **more: Any) -> Any:
        tries.append(1)
        return await bind(*args, **more)

    monkeypatch.setattr(net, "bind", counted)

    async def work() -> None:
        async with Group((1,)) as group:
            with socket.socket() as taken:
                taken.bind(group.members[1][0])
                taken.listen()
                with pytest.raises(OperatorError, match="election port"):
                    await group.start(1, bind_retry=2)
                assert len(tries) == 2
                starting = asyncio.ensure_future(group.start(1, bind_retry=0))
                await until(lambda: len(tries) == 8)
                assert not starting.done()
            assert (await starting).listening == group.members[1]

    on_loop(work())


class Raw:
    """A hand-made peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Raw:
        return cls(*await asyncio.open_connection(LOCAL, port))

    async def ended(self) -> bool:
        """Whether the other side has closed without saying a word."""
        try:
            return await asyncio.wait_for(self.reader.read(100), 5) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


BAD = {
    "random": b"GET / HTTP/1.1\r\n\r\n" * 3,
    "old version": struct.pack(">q", -2),
    "huge address": struct.pack(">qqi", -65536, 3, 1 << 30),
    "myself": encode_initial(2, [(LOCAL, 1)], many=False),
    "huge notification": encode_initial(3, [(LOCAL, 1)], many=False) + b"\x7f\xff\xff\xff",
    "negative notification": encode_initial(3, [(LOCAL, 1)], many=False) + b"\xff\xff\xff\xff",
    "nothing": b"",
    "half": b"\xff\xff\xff\xff\xff\xff\0\0\0",
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_connection_costs_itself_only(on_loop: OnLoop, name: str) -> None:
    async def work() -> None:
        async with Group((1, 2, 3)) as group:
            two = await group.start(2, handshake_timeout_s=0.2)
            await group.start(1)
            two.send(1, b"before")
            await until(lambda: two.connected() == {1})
            bad = await Raw.connect(two.listening[0][1])
            bad.writer.write(BAD[name])
            assert await bad.ended()
            await bad.close()
            await until(lambda: two.connected() == {1})
            two.send(1, b"after")
            await until(lambda: group.events[1].of(2)[-1] == b"after")
            assert group.events[2].messages == []

    on_loop(work())


def test_connections_that_say_nothing_are_limited(
    on_loop: OnLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election_net, "HANDSHAKES_MAX", 3)

    async def work() -> None:
        async with Group((1, 2)) as group:
            two = await group.start(2)
            port = two.listening[0][1]
            stuck = [await Raw.connect(port) for _ in range(3)]
            await until(lambda: len(two._entering) == 3)
            more = await Raw.connect(port)
            assert await more.ended()
            for raw in [*stuck, more]:
                await raw.close()
            await until(lambda: not two._entering)
            one = await group.start(1)
            one.send(2, b"hello")
            await until(lambda: group.events[2].messages)

    on_loop(work())


def test_a_larger_id_that_comes_again_takes_the_place_of_its_old_connection(
    on_loop: OnLoop,
) -> None:
    async def work() -> None:
        async with Group((2, 3)) as group:
            two = await group.start(2)
            two.send(3, b"vote")
            port = two.listening[0][1]
            first = await Raw.connect(port)
            first.writer.write(encode_initial(3, [(LOCAL, 1)], many=False) + frame(b"a"))
            assert await first.reader.readexactly(8) == frame(b"vote")
            second = await Raw.connect(port)
            second.writer.write(encode_initial(3, [(LOCAL, 1)], many=False) + frame(b"b"))
            assert await second.reader.readexactly(8) == frame(b"vote"), "sent again"
            assert await first.ended()
            await until(lambda: group.events[2].messages == [(3, b"a"), (3, b"b")])
            await first.close()
            await second.close()

    on_loop(work())


def test_a_server_of_no_configuration_is_answered(on_loop: OnLoop) -> None:
    """A larger one over its connection, a smaller one at the address that it tells; one from before
    3.5 tells none: nothing can be done for it."""

    async def work() -> None:
        async with Group((2,)) as group:
            two = await group.start(2)
            port = two.listening[0][1]
            larger = await Raw.connect(port)
            larger.writer.write(struct.pack(">q", 9) + frame(b"who leads?"))
            await until(lambda: group.events[2].of(9))
            two.send(9, b"I do")
            assert await larger.reader.readexactly(8) == frame(b"I do")
            await larger.close()
            await until(lambda: 9 not in two._peers)

            arrived: asyncio.Queue[Raw] = asyncio.Queue()
            server = await asyncio.start_server(
                lambda reader, writer: arrived.put_nowait(Raw(reader, writer)), LOCAL, 0
            )
            where = server.sockets[0].getsockname()
            smaller = await Raw.connect(port)
            smaller.writer.write(encode_initial(1, [where], many=False))
            back = await arrived.get()
            first = encode_initial(2, group.members[2], many=False)
            assert await back.reader.readexactly(len(first)) == first
            back.writer.write(frame(b"hello"))
            await until(lambda: group.events[2].of(1))
            two.send(1, b"vote")
            assert await back.reader.readexactly(8) == frame(b"vote")
            await smaller.close()
            await back.close()
            await until(lambda: 1 not in two._peers)

            old = await Raw.connect(port)
            old.writer.write(struct.pack(">q", 1))
            assert await old.ended()
            await until(lambda: not two._peers)
            two.send(77, b"nobody")
            assert 77 not in two._peers
            await old.close()
            server.close()
            await server.wait_closed()

    on_loop(work())


def test_observers_without_an_id_get_one_each(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((2,)) as group:
            two = await group.start(2)
            raws = []
            for _ in range(2):
                raw = await Raw.connect(two.listening[0][1])
                raw.writer.write(encode_initial(ANONYMOUS, [(LOCAL, 1)], many=False) + frame(b"?"))
                raws.append(raw)
            await until(lambda: {sid for sid, _ in group.events[2].messages} == {-1, -2})
            for sid, _ in group.events[2].messages:
                two.send(sid, b"%d" % sid)
            answers = {await raw.reader.readexactly(6) for raw in raws}
            assert answers == {frame(b"-1"), frame(b"-2")}
            for raw in raws:
                await raw.close()

    on_loop(work())


def test_a_peer_that_reads_nothing_costs_one_message_of_memory(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((2, 3)) as group:
            two = await group.start(2)
            stuck = await Raw.connect(two.listening[0][1])
            stuck.reader._transport.pause_reading()  # type: ignore[attr-defined]
            stuck.writer.write(encode_initial(3, [(LOCAL, 1)], many=False))
            await until(lambda: two.connected())
            for number in range(300):
                two.send(3, number.to_bytes(4, "big") * 25_000)
                await asyncio.sleep(0)
            assert not two.delivered()
            connection = two._peers[3].connection
            assert connection is not None
            assert connection._transport is not None
            assert connection._transport.get_write_buffer_size() < 400_000
            stuck.reader._transport.resume_reading()  # type: ignore[attr-defined]
            last = frame((299).to_bytes(4, "big") * 25_000)
            seen = b""
            while not seen.endswith(last):
                seen = (seen + await stuck.reader.read(1 << 20))[-len(last) :]
            assert two.delivered()
            await stuck.close()

    on_loop(work())


class Password:
    """An exchange as SASL will be one: the client sends eight bytes, the server answers OK."""

    def __init__(self, word: bytes, client: bool) -> None:
        self.word, self.client = word, client
        self.done, self.rest, self._seen = False, b"", b""

    def begin(self) -> bytes:
        return self.word if self.client else b""

    def feed(self, data: bytes) -> bytes:
        self._seen += data
        wanted = b"OK" if self.client else self.word
        if not wanted.startswith(self._seen[: len(wanted)]):
            raise Malformed("wrong password")
        if len(self._seen) < len(wanted):
            return b""
        self.done, self.rest = True, self._seen[len(wanted) :]
        return b"" if self.client else b"OK"


def security(word: bytes) -> net.Security:
    return net.Security(
        server_exchange=lambda: Password(word, False),
        client_exchange=lambda host: Password(word, True),
    )


@pytest.mark.parametrize("right", [True, False])
def test_an_exchange_stands_between_the_first_message_and_the_votes(
    on_loop: OnLoop, right: bool
) -> None:
    async def work() -> None:
        async with Group((1, 2)) as group:
            one = await group.start(1, security=security(b"12345678"))
            two = await group.start(2, security=security(b"12345678" if right else b"87654321"))
            one.send(2, b"1")
            two.send(1, b"2")
            if right:
                await until(lambda: group.events[1].messages == [(2, b"2")])
                await until(lambda: group.events[2].messages == [(1, b"1")])
            else:
                await asyncio.sleep(0.2)  # some attempts
                assert group.events[1].messages == group.events[2].messages == []
                assert not one.connected()

    on_loop(work())


def test_members_may_change_while_connections_stand(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Group((1, 2, 3)) as group:
            members = dict(group.members)
            del group.members[3]
            two = await group.start(2)
            one = await group.start(1)
            two.send(1, b"x")
            await until(lambda: one.connected())
            two.send(3, b"nobody")
            group.members = members
            three = await group.start(3)
            two.set_members(members)
            one.set_members(members)
            two.send(3, b"joined")
            await until(lambda: group.events[3].messages == [(2, b"joined")])
            three.send(1, b"hello")
            await until(lambda: group.events[1].of(3))
            assert two.connected() == {1, 3}

    on_loop(work())


def test_a_dead_peer_is_looked_for_on_idle_connections() -> None:
    with socket.socket() as sock:
        net.SocketOptions(dead_after_s=9.0).apply(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 3
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 9000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
