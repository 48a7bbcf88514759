"""Four-letter words: what a server answers to `srvr`, `mntr` and the others.

Pure: a front-end that is asked gathers one dict of statistics from each process over the bus, with
a time limit, and `render` makes the answer of them: one server, however many processes. A process
that did not answer in time is named in a last line, so nobody takes a part for the whole; the words
whose answer is one token (`ruok`, `isro`, `gtmk`, `stmk`) have no such line.

The texts are those of Apache ZooKeeper 3.9 (`server/command/*.java`, `ServerStats`, `ServerCnxn
.dumpConnectionInfo`, `ExpiryQueue.dump`, `WatchManager`); scripts parse them, so they change only
with theirs. `lead` and `uptm` are zkd's own.

A session id travels as a signed 64-bit int and is shown as Java shows it: unsigned hexadecimal.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from zkd.config.servers import OBSERVER
from zkd.server.environment import environment, full_version
from zkd.server.gathered import Connection, FrontEnd, Gathered, Peer, Storage
from zkd.server.metrics import merge
from zkd.server.metrics_text import average, java_number, mntr_lines

if TYPE_CHECKING:
    from zkd.config import Config

__all__ = ["WORDS", "Gathered", "allowed", "parts", "refusal", "render"]

NOT_SERVING = "This ZooKeeper instance is not currently serving requests"

CONNECTION_BUCKET_MS = 10_000
"""Width of the buckets of idle connections (`zookeeper.nio.sessionlessCnxnTimeout`)."""

DEFAULT_TRACE_MASK = 306
"""Requests, server packets, sessions and warnings, as `ZooTrace` has it."""


# -- which words there are, and who may send them ------------------------------------------------

_PARTS: Mapping[str, frozenset[str]] = {
    "conf": frozenset({"sizes"}),
    "cons": frozenset({"connections"}),
    "crst": frozenset(),
    "dirs": frozenset({"sizes"}),
    "dump": frozenset({"sessions", "ephemerals", "connections"}),
    "envi": frozenset(),
    "gtmk": frozenset(),
    "hash": frozenset({"digests"}),
    "isro": frozenset(),
    "lead": frozenset(),
    "mntr": frozenset({"metrics"}),
    "ruok": frozenset(),
    "srst": frozenset(),
    "srvr": frozenset(),
    "stat": frozenset({"connections"}),
    "stmk": frozenset(),
    "uptm": frozenset(),
    "wchc": frozenset({"watches"}),
    "wchp": frozenset({"watches"}),
    "wchs": frozenset(),
}
WORDS = frozenset(_PARTS)

WITHOUT_GATHERING = frozenset({"ruok", "envi"})
"""Answered at once by the front-end that is asked, whatever the other processes do."""


def parts(word: str) -> frozenset[str]:
    """The optional parts of the statistics that this word shows.

    Of sizes (storage), connections, watches (front-ends: `watches_by_session`), metrics (all),
    sessions, ephemerals, digests (peer). Gather no more: they cost as much as they are long.
    """
    return _PARTS[word]


def allowed(word: str, config: Config, peer_address: str) -> bool:
    """Whether a client at this numeric address may send this word.

    `4lw.commands.whitelist` counts for everybody; without that key the harmless words are for
    loopback alone (`zkd.config` has the rule).
    """
    return config.four_letter_allowed(word, peer_address)


def refusal(word: str) -> bytes:
    """The answer to a word that is known and not allowed."""
    return f"{word} is not executed because it is not in the whitelist.\n".encode()


# -- the answers ---------------------------------------------------------------------------------


def render(
    word: str,
    gathered: Gathered,
    config: Config,
    *,
    trace_mask: int = DEFAULT_TRACE_MASK,
    lines_max: int | None = None,
) -> bytes:
    """The whole answer to a known and allowed word.

    `trace_mask`: for stmk, the mask that came with it (signed), which is set already; crst and
    srst likewise only say what was done. `lines_max` cuts the words whose length grows with the
    number of clients (cons, dump, wchc, wchp) and says how many lines were left out.
    """
    if word == "ruok":
        return b"imok"
    if word == "stmk":
        return str(trace_mask).encode()
    if word == "gtmk":
        masks = [frontend["trace_mask"] for frontend in gathered.answered]
        return str(masks[0] if masks else DEFAULT_TRACE_MASK).encode()
    if word == "envi":
        return _text(["Environment:", *(f"{key}={value}" for key, value in environment())])
    peer = gathered.peer
    if word == "isro":
        if peer is None or not peer["serving"]:
            return b"null"
        return b"ro" if peer["read_only"] else b"rw"
    if peer is None or not peer["serving"]:
        return _text([NOT_SERVING, *_missing(gathered)])
    lines = list(_RENDERERS[word](gathered, peer, config))
    if lines_max is not None and word in _UNBOUNDED and len(lines) > lines_max:
        lines[lines_max:] = [f"... {len(lines) - lines_max} more lines"]
    if word == "mntr":
        if gathered.missing:
            lines.append(f"zk_missing_processes\t{len(gathered.missing)}")
    else:
        lines += _missing(gathered)
    return _text(lines)


def _text(lines: Iterable[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode("utf-8", "replace")


def _missing(gathered: Gathered) -> list[str]:
    return [f"{name} did not answer in time" for name in gathered.missing]


def _server(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    return [*_version_lines(peer), *_statistics(gathered, peer)]


def _stat(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    clients = [_connection_line(c, brief=True) for c in _connections(gathered)]
    return [*_version_lines(peer), "Clients:", *clients, "", *_statistics(gathered, peer)]


def _version_lines(peer: Peer) -> list[str]:
    lines = [f"Zookeeper version: {full_version()}"]
    if peer["read_only"]:
        lines.append("READ-ONLY mode; serving only read-only clients")
    return lines


def _statistics(gathered: Gathered, peer: Peer) -> Iterable[str]:
    frontends = gathered.answered
    yield f"Latency min/avg/max: {'/'.join(_latencies(frontends))}"
    yield f"Received: {sum(f['packets_received'] for f in frontends)}"
    yield f"Sent: {sum(f['packets_sent'] for f in frontends)}"
    yield f"Connections: {sum(f['connection_count'] for f in frontends)}"
    yield f"Outstanding: {sum(f['outstanding'] for f in frontends)}"
    yield f"Zxid: {_hex(peer['zxid'])}"
    yield f"Mode: {peer['mode']}"
    yield f"Node count: {peer['node_count']}"
    if peer["mode"] == "leader":
        last, least, greatest = peer.get("proposal_sizes", (-1, -1, -1))
        yield f"Proposal sizes last/min/max: {last}/{least}/{greatest}"


def _latencies(frontends: list[FrontEnd]) -> tuple[str, str, str]:
    """Least, average and greatest latency of all requests of all front-ends, in milliseconds."""
    busy = [f for f in frontends if f["latency_count"] > 0]
    total = sum(f["latency_total"] for f in busy)
    count = sum(f["latency_count"] for f in busy)
    return (
        str(min((f["latency_min"] for f in busy), default=0)),
        java_number(average(total, count)),
        str(max((f["latency_max"] for f in busy), default=0)),
    )


def _cons(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    return [*(_connection_line(c, brief=False) for c in _connections(gathered)), ""]


def _connections(gathered: Gathered) -> list[Connection]:
    return [c for frontend in gathered.answered for c in frontend.get("connections", [])]


def _connection_line(c: Connection, *, brief: bool) -> str:
    line = (
        f" {_socket_address(c['address'], c['port'])}[{c['interest']:x}]"
        f"(queued={c['queued']},recved={c['recved']},sent={c['sent']}"
    )
    if not brief and c["sid"] != 0:
        line += (
            f",sid={_hex(c['sid'])},lop={c['lop']},est={c['established_ms']},to={c['timeout_ms']}"
        )
        if c["lcxid"] >= 0:
            line += f",lcxid={_hex(c['lcxid'])}"
        line += (
            f",lzxid={_hex(c['lzxid'])},lresp={c['lresp_ms']},llat={c['llat']}"
            f",minlat={c['minlat']},avglat={c['avglat']},maxlat={c['maxlat']}"
        )
    return line + ")"


def _socket_address(address: str, port: int) -> str:
    """As Java prints an InetSocketAddress that has no name: IPv6 in full, in brackets."""
    if ":" not in address:
        return f"/{address}:{port}"
    plain, percent, scope = address.partition("%")
    parsed = ipaddress.IPv6Address(plain)
    if parsed.ipv4_mapped is not None:
        return f"/{parsed.ipv4_mapped}:{port}"
    groups = ":".join(f"{int(group, 16):x}" for group in parsed.exploded.split(":"))
    return f"/[{groups}{percent}{scope}]:{port}"


def _crst(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    return ["Connection stats reset."]


def _srst(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    return ["Server stats reset."]


def _conf(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    data_size, log_size = _sizes(gathered)
    yield f"clientPort={config.listen_port}"
    yield f"secureClientPort={config.secure_listen_port}"
    yield f"dataDir={config.data_dir.absolute()}"
    yield f"dataDirSize={data_size}"
    yield f"dataLogDir={config.data_log_dir.absolute()}"
    yield f"dataLogSize={log_size}"
    yield f"tickTime={config.tick_time}"
    yield f"maxClientCnxns={config.max_client_cnxns}"
    yield f"minSessionTimeout={config.min_session_timeout}"
    yield f"maxSessionTimeout={config.max_session_timeout}"
    yield f"clientPortListenBacklog={config.client_port_listen_backlog}"
    yield f"serverId={peer['server_id']}"
    if config.distributed:
        yield from _conf_of_a_member(peer, config)


def _conf_of_a_member(peer: Peer, config: Config) -> Iterable[str]:
    """`QuorumZooKeeperServer.dumpConf`, `ReadOnlyZooKeeperServer.dumpConf`."""
    mine = config.servers.get(config.my_id) if config.my_id is not None else None
    addresses = mine.addresses if mine is not None else ()
    yield f"initLimit={config.init_limit}"
    yield f"syncLimit={config.sync_limit}"
    yield f"electionAlg={config.election_alg}"
    yield "electionPort=" + "|".join(str(address.election_port) for address in addresses)
    yield "quorumPort=" + "|".join(str(address.quorum_port) for address in addresses)
    yield f"peerType={int(mine is not None and mine.role == OBSERVER)}"
    if peer["read_only"]:
        return
    yield "membership: "
    yield from config.membership.text().split("\n")


def _dirs(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    data_size, log_size = _sizes(gathered)
    yield f"datadir_size: {data_size}"
    yield f"logdir_size: {log_size}"


def _sizes(gathered: Gathered) -> tuple[int, int]:
    """Bytes in the folders of the data and of the log; -1 if storage did not say."""
    storage = gathered.storage or {}
    return storage.get("data_dir_size", -1), storage.get("log_dir_size", -1)


def _dump(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    yield "SessionTracker dump:"
    sessions = [(s["expires_ms"], _hex(s["sid"])) for s in peer.get("sessions", [])]
    yield from _expiry_sets("Session", sessions)
    yield "ephemeral nodes dump:"
    ephemerals = peer.get("ephemerals", {})
    yield f"Sessions with Ephemerals ({len(ephemerals)}):"
    for sid, paths in ephemerals.items():
        yield f"{_hex(sid)}:"
        yield from (f"\t{path}" for path in paths)
    yield "Connections dump:"
    yield from _expiry_sets("Connections", list(_connection_expiries(gathered)))


def _connection_expiries(gathered: Gathered) -> Iterable[tuple[int, str]]:
    for c in _connections(gathered):
        bucket = (c["expires_ms"] // CONNECTION_BUCKET_MS + 1) * CONNECTION_BUCKET_MS
        address = _socket_address(c["address"], c["port"])
        yield bucket, f"ip: {address} sessionId: {_hex(c['sid'])}"


def _expiry_sets(what: str, entries: list[tuple[int, str]]) -> Iterable[str]:
    """`entries` grouped by their Unix time in milliseconds, earliest first."""
    buckets: dict[int, list[str]] = {}
    for at_ms, entry in entries:
        buckets.setdefault(at_ms, []).append(entry)
    yield f"{what} Sets ({len(buckets)})/({len(entries)}):"
    for at_ms in sorted(buckets):
        yield f"{len(buckets[at_ms])} expire at {_java_date(at_ms)}:"
        yield from (f"\t{entry}" for entry in buckets[at_ms])


def _wchs(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    frontends = gathered.answered
    connections = sum(f["watch_connections"] for f in frontends)
    if all("watches_by_session" in f for f in frontends):
        paths = len({p for _, watched in _watches(gathered) for p in watched})
    else:  # a path that is watched on two front-ends counts twice: the lists would cost too much
        paths = sum(f["watch_paths"] for f in frontends)
    yield f"{connections} connections watching {paths} paths"
    yield f"Total watches:{sum(f['watch_count'] for f in frontends)}"


def _watches(gathered: Gathered) -> Iterable[tuple[int, list[str]]]:
    for frontend in gathered.answered:
        yield from frontend.get("watches_by_session", {}).items()


def _wchc(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    for sid, paths in _watches(gathered):
        yield _hex(sid)
        yield from (f"\t{path}" for path in paths)
    yield ""


def _wchp(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    sessions: dict[str, list[int]] = {}
    for sid, paths in _watches(gathered):
        for path in paths:
            sessions.setdefault(path, []).append(sid)
    for path, watchers in sessions.items():
        yield path
        yield from (f"\t{_hex(sid)}" for sid in watchers)
    yield ""


def _hash(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    for zxid, digest in peer.get("digests", []):
        signed = digest - (1 << 64) if digest >= 1 << 63 else digest
        yield f"{_unsigned(zxid):x}: {signed}"


def _lead(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    yield f"is_leader={'true' if peer['mode'] == 'leader' else 'false'}"
    yield f"leader_id={peer.get('leader_id', '')}"
    yield f"leader_ip={peer.get('leader_address', '')}"


def _uptm(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    return [str(peer["uptime_ms"] // 1000)]


def _mntr(gathered: Gathered, peer: Peer, config: Config) -> Iterable[str]:
    head = [("version", full_version()), ("server_state", peer["mode"])]
    if "state" in peer:
        head.append(("peer_state", peer["state"]))
    dumps = [process["metrics"] for process in _processes(gathered) if "metrics" in process]
    yield mntr_lines(merge(dumps), head).removesuffix("\n")


def _processes(gathered: Gathered) -> Iterable[FrontEnd | Peer | Storage]:
    yield from gathered.answered
    if gathered.peer is not None:
        yield gathered.peer
    if gathered.storage is not None:
        yield gathered.storage


_UNBOUNDED = frozenset({"cons", "dump", "wchc", "wchp"})
_RENDERERS: Mapping[str, Callable[[Gathered, Peer, Config], Iterable[str]]] = {
    "conf": _conf,
    "cons": _cons,
    "crst": _crst,
    "dirs": _dirs,
    "dump": _dump,
    "hash": _hash,
    "lead": _lead,
    "mntr": _mntr,
    "srst": _srst,
    "srvr": _server,
    "stat": _stat,
    "uptm": _uptm,
    "wchc": _wchc,
    "wchp": _wchp,
    "wchs": _wchs,
}


# -- what Java prints differently ----------------------------------------------------------------


def _unsigned(value: int) -> int:
    return value & 0xFFFF_FFFF_FFFF_FFFF


def _hex(value: int) -> str:
    return f"0x{_unsigned(value):x}"


def _java_date(unix_ms: int) -> str:
    """As java.util.Date prints itself, in the server's time zone."""
    return time.strftime("%a %b %d %H:%M:%S %Z %Y", time.localtime(unix_ms / 1000))
