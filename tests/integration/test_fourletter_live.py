"""Four-letter words over a socket: zkd's answers have the form of Apache ZooKeeper's.

Both servers get the same clients, watches and ephemerals; then every answer is compared, numbers,
dates and what differs between two machines aside.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.apache import ApacheServer, four_letters
from tests.apache import apache_zookeeper as apache_zookeeper
from zkd.testing import server as zkd_server
from zkd.testing.throwaway import Server

_FORM = [
    (re.compile(r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \w+ \d{4}"), "DATE"),
    (re.compile(r"0x[0-9a-f]+"), "0xN"),
    (re.compile(r"-?\d+(\.\d+)?(E-?\d+)?"), "N"),
    (re.compile(r"(?m)^(zk_version\t|Zookeeper version: ).*"), r"\1VERSION"),
    (re.compile(r"(?m)^(dataDir|dataLogDir)=.*"), r"\1=FOLDER"),
    (re.compile(r"lop=\w+"), "lop=OP"),
]


def form(text: str) -> str:
    for pattern, name in _FORM:
        text = pattern.sub(name, text)
    return text


@dataclass
class Pair:
    """The two servers, each with one client that watches and owns an ephemeral."""

    apache: int
    zkd: int

    def forms(self, word: str) -> tuple[str, str]:
        return form(four_letters(self.zkd, word)), form(four_letters(self.apache, word))


def prepared(hosts: str) -> Any:
    client = KazooClient(hosts)
    client.start()
    client.create("/watched", b"x")
    client.create("/watched/e", b"", ephemeral=True)
    client.get("/watched", watch=lambda event: None)
    client.get_children("/watched", watch=lambda event: None)
    return client


@pytest.fixture(scope="module")
def zkd() -> Iterator[Server]:
    with zkd_server(tickTime=2000) as server:
        yield server


@pytest.fixture(scope="module")
def pair(apache_zookeeper: ApacheServer, zkd: Server) -> Iterator[Pair]:
    clients = [prepared(apache_zookeeper.hosts), prepared(zkd.hosts)]
    yield Pair(apache_zookeeper.port, zkd.port)
    clients[0].delete("/watched", recursive=True)
    for client in clients:
        client.stop()
        client.close()


@pytest.mark.parametrize(
    "word", ["srvr", "conf", "dirs", "wchs", "wchc", "wchp", "isro", "ruok", "gtmk"]
)
def test_the_answer_has_apaches_form(word: str, pair: Pair) -> None:
    ours, theirs = pair.forms(word)
    assert ours == theirs


@pytest.mark.parametrize("word", ["stat", "cons"])
def test_connections_have_apaches_form(word: str, pair: Pair) -> None:
    """The line of the asking connection is among them; the order is not defined."""
    ours, theirs = pair.forms(word)
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


def test_dump_has_apaches_form(pair: Pair) -> None:
    """One session, one ephemeral, two connections: the buckets of the two may be one or two."""
    ours, theirs = (_without_buckets(text) for text in pair.forms("dump"))
    assert ours == theirs


def _without_buckets(text: str) -> list[str]:
    counted = re.sub(r"Sets \(N\)/\(N\)", "Sets", text)
    return [line for line in counted.splitlines() if not line.startswith("N expire at")]


def test_mntr_has_all_names_of_apache(pair: Pair) -> None:
    ours, theirs = (
        {line.partition("\t")[0] for line in four_letters(port, "mntr").splitlines()}
        for port in (pair.zkd, pair.apache)
    )
    by_path = re.compile(r"zk_\w*(watched|zookeeper)_(read|write)_per_namespace")
    gone_since = {"zk_jvm_pause_time_ms"}
    missing = {name for name in theirs - ours if not by_path.fullmatch(name)} - gone_since
    assert missing == set()


def test_envi_has_all_names_of_apache(pair: Pair) -> None:
    ours, theirs = (
        {line.partition("=")[0] for line in four_letters(port, "envi").splitlines()}
        for port in (pair.zkd, pair.apache)
    )
    assert theirs <= ours


def test_stmk_takes_its_mask_from_the_bytes_behind_it(pair: Pair) -> None:
    for port in (pair.zkd, pair.apache):
        with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
            connection.sendall(b"stmk" + struct.pack(">q", 34))
            assert connection.recv(100) == b"34"
        assert four_letters(port, "gtmk") == "34"
        with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
            connection.sendall(b"stmk" + struct.pack(">q", 306))
            assert connection.recv(100) == b"306"


def test_sizes_are_those_of_the_folders(pair: Pair) -> None:
    sizes = dict(line.split(": ") for line in four_letters(pair.zkd, "dirs").splitlines())
    assert set(sizes) == {"datadir_size", "logdir_size"}
    assert all(int(size) > 0 for size in sizes.values())
    assert f"dataDirSize={sizes['datadir_size']}\n" in four_letters(pair.zkd, "conf")


@pytest.mark.parametrize("word", ["crst", "srst"])
def test_resets_have_apaches_form_and_effect(word: str, pair: Pair) -> None:
    """crst forgets each connection's last xid, srst the server's counters."""
    ours, theirs = pair.forms(word)
    assert ours == theirs
    ours, theirs = pair.forms("cons" if word == "crst" else "srvr")
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


def test_words_are_asked_of_all_front_ends() -> None:
    """Three clients, two front-ends: every word counts all of them, wherever they are."""
    with zkd_server(frontends=2) as server:
        clients = [server.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.create(f"/n{number}", ephemeral=True)
            client.get(f"/n{number}", watch=lambda event: None)
        assert four_letters(server.port, "wchs").startswith("3 connections watching 3 paths\n")
        sessions = {f"0x{client.client_id[0]:x}" for client in clients}
        cons = four_letters(server.port, "cons")
        assert set(re.findall(r"sid=(0x[0-9a-f]+)", cons)) == sessions
        assert "Connections: 4\n" in four_letters(server.port, "srvr")
        assert four_letters(server.port, "dump").count("\t/n") == 3


def test_words_that_are_not_allowed_are_refused(zkd: Server) -> None:
    with zkd_server({"4lw.commands.whitelist": "ruok"}) as server:
        assert four_letters(server.port, "ruok") == "imok"
        for word in ("mntr", "wchc", "crst"):
            assert four_letters(server.port, word) == (
                f"{word} is not executed because it is not in the whitelist.\n"
            )
        assert four_letters(server.port, "srvr").startswith("Zookeeper version: ")
