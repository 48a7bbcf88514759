"""Four-letter words: the texts of Apache ZooKeeper 3.9, made of several processes' statistics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zkd import config as configuration
from zkd.server import fourletter
from zkd.server.environment import full_version
from zkd.server.fourletter import render
from zkd.server.gathered import Connection, FrontEnd, Gathered, Peer, Storage


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dates are printed in the server's time zone."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> configuration.Config:
    return load(tmp_path_factory.mktemp("data"))


def load(data: Path, **settings: str) -> configuration.Config:
    return configuration.load(
        None, {"dataDir": str(data), "clientPort": "2181", "tickTime": "2000"} | settings
    )


def connection(**values: Any) -> Connection:
    base: dict[str, Any] = {
        "address": "127.0.0.1", "port": 40000, "interest": 1, "queued": 0, "recved": 12,
        "sent": 13, "sid": 0x100012345, "lop": "GETD", "established_ms": 1700000000000,
        "timeout_ms": 10000, "lcxid": 0x1F, "lzxid": 0x2A, "lresp_ms": 1700000001000, "llat": 1,
        "minlat": 0, "avglat": 2, "maxlat": 9, "expires_ms": 1700000004000,
    }  # fmt: skip
    return base | values  # type: ignore[return-value]


def frontend(**values: Any) -> FrontEnd:
    base: dict[str, Any] = {
        "name": "frontend 1", "packets_received": 100, "packets_sent": 90, "connection_count": 1,
        "outstanding": 0, "latency_count": 2, "latency_total": 1, "latency_min": 0,
        "latency_max": 1, "watch_connections": 0, "watch_paths": 0, "watch_count": 0,
        "trace_mask": 306,
    }  # fmt: skip
    return base | values  # type: ignore[return-value]


def peer(**values: Any) -> Peer:
    base: dict[str, Any] = {
        "mode": "standalone", "serving": True, "read_only": False, "zxid": 0x1A2,
        "node_count": 5, "uptime_ms": 61500, "server_id": 0,
    }  # fmt: skip
    return base | values  # type: ignore[return-value]


SIZES: Storage = {"data_dir_size": 4096, "log_dir_size": 67108880}


def gathered(
    *frontends: FrontEnd | None,
    peer: Peer | None = peer(),  # noqa: B008
    storage: Storage | None = SIZES,
    missing: tuple[str, ...] = (),
) -> Gathered:
    return Gathered(list(frontends) or [frontend()], peer, storage, list(missing))


def lines(word: str, all_of: Gathered, config: configuration.Config, **more: Any) -> list[str]:
    text = render(word, all_of, config, **more).decode()
    assert text.endswith("\n")
    return text[:-1].split("\n")


# -- one line or token ---------------------------------------------------------------------------


def test_ruok_needs_nobody(config: configuration.Config) -> None:
    assert render("ruok", Gathered([], None, None, []), config) == b"imok"


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (peer(), b"rw"),
        (peer(read_only=True), b"ro"),
        (peer(serving=False), b"null"),
        (None, b"null"),
    ],
)
def test_isro(state: Peer | None, answer: bytes, config: configuration.Config) -> None:
    assert render("isro", gathered(peer=state), config) == answer


def test_trace_mask_is_shown_and_echoed_in_decimal(config: configuration.Config) -> None:
    assert render("gtmk", gathered(frontend(trace_mask=34)), config) == b"34"
    assert render("stmk", gathered(), config, trace_mask=-1) == b"-1"


@pytest.mark.parametrize(
    ("word", "answer"),
    [("crst", b"Connection stats reset.\n"), ("srst", b"Server stats reset.\n")],
)
def test_resets_say_what_was_done(word: str, answer: bytes, config: configuration.Config) -> None:
    assert render(word, gathered(), config) == answer


@pytest.mark.parametrize(
    "word", sorted(fourletter.WORDS - {"ruok", "envi", "gtmk", "stmk", "isro"})
)
def test_a_server_that_does_not_serve_says_so(word: str, config: configuration.Config) -> None:
    answer = b"This ZooKeeper instance is not currently serving requests\n"
    assert render(word, gathered(peer=peer(serving=False)), config) == answer


def test_envi_is_answered_in_any_state(config: configuration.Config) -> None:
    answer = lines("envi", Gathered([], None, None, ["peer"]), config)
    assert answer[0] == "Environment:"
    assert answer[1] == f"zookeeper.version={full_version()}"
    assert {"host.name", "java.version", "os.name", "user.dir", "os.memory.free"} <= {
        line.partition("=")[0] for line in answer
    }


def test_uptime_is_in_seconds(config: configuration.Config) -> None:
    assert render("uptm", gathered(), config) == b"61\n"


def test_lead_of_a_standalone_server(config: configuration.Config) -> None:
    assert lines("lead", gathered(), config) == ["is_leader=false", "leader_id=", "leader_ip="]


# -- srvr and stat -------------------------------------------------------------------------------


def test_srvr_adds_the_front_ends_up(config: configuration.Config) -> None:
    both = gathered(
        frontend(latency_count=1, latency_total=3, latency_min=3, latency_max=3, outstanding=2),
        frontend(latency_count=2, latency_total=1, latency_min=0, latency_max=1),
    )
    assert lines("srvr", both, config) == [
        f"Zookeeper version: {full_version()}",
        "Latency min/avg/max: 0/1.3333/3",
        "Received: 200",
        "Sent: 180",
        "Connections: 2",
        "Outstanding: 2",
        "Zxid: 0x1a2",
        "Mode: standalone",
        "Node count: 5",
    ]


def test_a_front_end_without_requests_does_not_count_in_the_least_latency(
    config: configuration.Config,
) -> None:
    idle = frontend(latency_count=0, latency_total=0, latency_min=0, latency_max=0)
    busy = frontend(latency_count=4, latency_total=10, latency_min=2, latency_max=4)
    assert lines("srvr", gathered(idle, busy), config)[1] == "Latency min/avg/max: 2/2.5/4"
    assert lines("srvr", gathered(idle), config)[1] == "Latency min/avg/max: 0/0.0/0"


def test_srvr_of_a_leader_shows_proposal_sizes(config: configuration.Config) -> None:
    leader = peer(mode="leader", proposal_sizes=(32, 20, 4096))
    assert lines("srvr", gathered(peer=leader), config)[-1] == (
        "Proposal sizes last/min/max: 32/20/4096"
    )


def test_srvr_of_a_read_only_server_says_it_after_the_version(
    config: configuration.Config,
) -> None:
    answer = lines("srvr", gathered(peer=peer(mode="read-only", read_only=True)), config)
    assert answer[1] == "READ-ONLY mode; serving only read-only clients"


def test_stat_lists_all_clients_in_short(config: configuration.Config) -> None:
    both = gathered(
        frontend(connections=[connection()]), frontend(connections=[connection(port=40001)])
    )
    assert lines("stat", both, config)[1:6] == [
        "Clients:",
        " /127.0.0.1:40000[1](queued=0,recved=12,sent=13)",
        " /127.0.0.1:40001[1](queued=0,recved=12,sent=13)",
        "",
        "Latency min/avg/max: 0/0.5/1",
    ]


# -- cons ----------------------------------------------------------------------------------------


def test_cons_shows_a_connection_in_full(config: configuration.Config) -> None:
    answer = lines("cons", gathered(frontend(connections=[connection()])), config)
    assert answer == [
        " /127.0.0.1:40000[1](queued=0,recved=12,sent=13,sid=0x100012345,lop=GETD,"
        "est=1700000000000,to=10000,lcxid=0x1f,lzxid=0x2a,lresp=1700000001000,"
        "llat=1,minlat=0,avglat=2,maxlat=9)",
        "",
    ]


def test_cons_leaves_out_what_a_connection_has_not_got(config: configuration.Config) -> None:
    known = [
        connection(sid=0),
        connection(sid=-1, lcxid=-1, lzxid=-1),
        connection(address="::1"),
        connection(address="::ffff:10.1.2.3"),
        connection(address="fe80::1%eth0"),
    ]
    answer = lines("cons", gathered(frontend(connections=known)), config)
    assert answer[0] == " /127.0.0.1:40000[1](queued=0,recved=12,sent=13)"
    assert ",sid=0xffffffffffffffff,lop=GETD,est=1700000000000,to=10000,lzxid=0xfff" in answer[1]
    assert answer[2].startswith(" /[0:0:0:0:0:0:0:1]:40000[")
    assert answer[3].startswith(" /10.1.2.3:40000[")
    assert answer[4].startswith(" /[fe80:0:0:0:0:0:0:1%eth0]:40000[")


def test_long_answers_can_be_cut(config: configuration.Config) -> None:
    known = [connection(port=port) for port in range(10)]
    answer = lines("cons", gathered(frontend(connections=known)), config, lines_max=3)
    assert len(answer) == 4
    assert answer[-1] == "... 8 more lines"


# -- dump, watches, digests ----------------------------------------------------------------------


def test_dump_groups_sessions_and_connections_by_expiry(config: configuration.Config) -> None:
    state = peer(
        sessions=[
            {"sid": 0x11, "timeout_ms": 4000, "expires_ms": 1700000006000},
            {"sid": -2, "timeout_ms": 4000, "expires_ms": 1700000002000},
            {"sid": 0x12, "timeout_ms": 4000, "expires_ms": 1700000006000},
        ],
        ephemerals={0x11: ["/a", "/b"]},
    )
    answer = lines("dump", gathered(frontend(connections=[connection()]), peer=state), config)
    assert answer == [
        "SessionTracker dump:",
        "Session Sets (2)/(3):",
        "1 expire at Tue Nov 14 22:13:22 UTC 2023:",
        "\t0xfffffffffffffffe",
        "2 expire at Tue Nov 14 22:13:26 UTC 2023:",
        "\t0x11",
        "\t0x12",
        "ephemeral nodes dump:",
        "Sessions with Ephemerals (1):",
        "0x11:",
        "\t/a",
        "\t/b",
        "Connections dump:",
        "Connections Sets (1)/(1):",
        "1 expire at Tue Nov 14 22:13:30 UTC 2023:",
        "\tip: /127.0.0.1:40000 sessionId: 0x100012345",
    ]


def watching(**sessions: list[str]) -> FrontEnd:
    by_session = {int(sid[1:], 16): paths for sid, paths in sessions.items()}
    return frontend(
        watches_by_session=by_session,
        watch_connections=len(by_session),
        watch_paths=len({path for paths in by_session.values() for path in paths}),
        watch_count=sum(map(len, by_session.values())),
    )


def test_watches_by_session_and_by_path(config: configuration.Config) -> None:
    both = gathered(watching(s1=["/a", "/b"]), watching(s2=["/a"]))
    assert lines("wchc", both, config) == ["0x1", "\t/a", "\t/b", "0x2", "\t/a", ""]
    assert lines("wchp", both, config) == ["/a", "\t0x1", "\t0x2", "/b", "\t0x1", ""]


def test_watch_summary_counts_a_path_once_where_the_lists_are_there(
    config: configuration.Config,
) -> None:
    both = gathered(watching(s1=["/a", "/b"]), watching(s2=["/a"]))
    assert lines("wchs", both, config) == [
        "2 connections watching 2 paths",
        "Total watches:3",
    ]
    counted = frontend(watch_connections=4, watch_paths=10, watch_count=20)
    assert lines("wchs", gathered(counted, counted), config) == [
        "8 connections watching 20 paths",
        "Total watches:40",
    ]


def test_hash_shows_digests_as_java_longs(config: configuration.Config) -> None:
    state = peer(digests=[(0x80, 5), (0x100000080, (1 << 64) - 1)])
    assert lines("hash", gathered(peer=state), config) == ["80: 5", "100000080: -1"]


# -- conf, dirs, mntr ----------------------------------------------------------------------------


def test_conf_lists_the_keys_of_apache(tmp_path: Path) -> None:
    config = load(tmp_path, maxClientCnxns="7")
    assert lines("conf", gathered(), config) == [
        "clientPort=2181",
        "secureClientPort=-1",
        f"dataDir={tmp_path}",
        "dataDirSize=4096",
        f"dataLogDir={tmp_path}",
        "dataLogSize=67108880",
        "tickTime=2000",
        "maxClientCnxns=7",
        "minSessionTimeout=4000",
        "maxSessionTimeout=40000",
        "clientPortListenBacklog=-1",
        "serverId=0",
    ]


def test_conf_of_a_member_says_what_its_ensemble_is(tmp_path: Path) -> None:
    (tmp_path / "myid").write_text("2")
    lines_of = {1: "a:2888:3888", 2: "b:2889:3889:observer", 3: "c:2888:3888"}
    more = {f"server.{sid}": line for sid, line in lines_of.items()}
    limits = {"peerType": "observer", "initLimit": "10", "syncLimit": "5", "clientPort": "2181"}
    config = load(tmp_path, **more, **limits)
    told = lines("conf", gathered(peer=peer(server_id=2)), config)[11:]
    cut_off = lines("conf", gathered(peer=peer(server_id=2, read_only=True)), config)[11:]
    assert cut_off == told[:7]
    assert told == [
        "serverId=2",
        "initLimit=10",
        "syncLimit=5",
        "electionAlg=3",
        "electionPort=3889",
        "quorumPort=2889",
        "peerType=1",
        "membership: ",
        "server.1=a:2888:3888:participant",
        "server.2=b:2889:3889:observer",
        "server.3=c:2888:3888:participant",
        "version=0",
    ]


def test_dirs(config: configuration.Config) -> None:
    assert lines("dirs", gathered(), config) == ["datadir_size: 4096", "logdir_size: 67108880"]


def test_mntr_merges_the_metrics_of_all_processes(config: configuration.Config) -> None:
    one = frontend(metrics={"connection_request_count": 2})
    other = frontend(metrics={"connection_request_count": 3})
    answer = lines("mntr", gathered(one, other, peer=peer(metrics={"znode_count": 5})), config)
    assert answer[:2] == [f"zk_version\t{full_version()}", "zk_server_state\tstandalone"]
    assert "zk_connection_request_count\t5" in answer
    assert "zk_znode_count\t5" in answer
    assert all("\t" in line for line in answer)


def test_mntr_of_a_member_shows_the_peers_state(config: configuration.Config) -> None:
    state = peer(mode="leader", state="leading - broadcast")
    assert lines("mntr", gathered(peer=state), config)[1:3] == [
        "zk_server_state\tleader",
        "zk_peer_state\tleading - broadcast",
    ]


# -- processes that are silent -------------------------------------------------------------------


def test_a_silent_process_is_named_last(config: configuration.Config) -> None:
    part = gathered(frontend(), None, missing=("frontend 2",))
    assert lines("srvr", part, config)[-1] == "frontend 2 did not answer in time"
    assert lines("mntr", part, config)[-1] == "zk_missing_processes\t1"


def test_without_storage_sizes_are_unknown(config: configuration.Config) -> None:
    part = gathered(storage=None, missing=("storage",))
    assert lines("dirs", part, config) == [
        "datadir_size: -1",
        "logdir_size: -1",
        "storage did not answer in time",
    ]
    assert "dataDirSize=-1" in lines("conf", part, config)


def test_a_silent_peer_means_not_serving(config: configuration.Config) -> None:
    assert lines("srvr", gathered(peer=None, missing=("peer",)), config) == [
        "This ZooKeeper instance is not currently serving requests",
        "peer did not answer in time",
    ]


# -- who may ask ---------------------------------------------------------------------------------


def test_by_default_loopback_may_read_and_others_may_only_see_srvr(
    config: configuration.Config,
) -> None:
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert fourletter.allowed("mntr", config, address)
        assert not fourletter.allowed("crst", config, address)
    assert not fourletter.allowed("mntr", config, "192.0.2.1")
    assert fourletter.allowed("srvr", config, "192.0.2.1")


def test_an_explicit_whitelist_counts_for_everybody(tmp_path: Path) -> None:
    config = load(tmp_path, **{"4lw.commands.whitelist": "mntr, crst"})
    for address in ("127.0.0.1", "192.0.2.1"):
        allowed = {w for w in fourletter.WORDS if fourletter.allowed(w, config, address)}
        assert allowed == {"mntr", "crst", "srvr"}


def test_the_refusal_is_apaches_line() -> None:
    assert fourletter.refusal("wchc") == (
        b"wchc is not executed because it is not in the whitelist.\n"
    )


def test_parts_name_what_grows(config: configuration.Config) -> None:
    assert fourletter.parts("srvr") == frozenset()
    assert fourletter.parts("dump") == {"sessions", "ephemerals", "connections"}
