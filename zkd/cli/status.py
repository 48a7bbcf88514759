"""`zkd status`: how servers are doing, from their four-letter words.

`srvr` is allowed everywhere; `mntr` and `conf` add what they know where the server answers them. So
this works with Apache ZooKeeper too. Exit status 0 only if every server that was asked is serving.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from zkd.errors import OperatorError

DEFAULT_PORT = 2181
_REFUSED = "is not executed because it is not in the whitelist"
_NOT_SERVING = "not currently serving requests"
_PROCESS_METRIC = re.compile(r"zk_(.+)_zkd_process_(resident_bytes|cpu_seconds_total)")


@dataclass(slots=True)
class Status:
    """What one server told. `facts`: values by name (see `_FACTS`), without the unknown ones."""

    server: str
    serving: bool = False
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_object(self) -> dict[str, Any]:
        head = {"server": self.server, "serving": self.serving, "error": self.error}
        return head | self.facts | {"processes": self.processes}


def ask(host: str, port: int, word: str, timeout_s: float) -> str:
    """The server's whole answer to a four-letter word. Raises OSError."""
    parts = []
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(word.encode())
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


def inquire(server: str, timeout_s: float) -> Status:
    """Ask one server, "host:port"; whatever goes wrong is in the result."""
    status = Status(server)
    host, port = address_of(server)
    try:
        srvr = ask(host, port, "srvr", timeout_s)
        if _NOT_SERVING in srvr or "Mode:" not in srvr:
            status.error = srvr.strip().partition("\n")[0] or "it answered nothing"
            return status
        mntr = ask(host, port, "mntr", timeout_s)
        conf = ask(host, port, "conf", timeout_s)
    except OSError as error:
        status.error = str(error.strerror or error)
        return status
    status.serving = True
    status.facts |= parse_srvr(srvr)
    if _REFUSED not in mntr:
        facts, status.processes = parse_mntr(mntr)
        status.facts |= facts
    if _REFUSED not in conf:
        values = dict(_pairs(conf, "="))
        status.facts["data_dir"] = values.get("dataDir", "")
        status.facts["data_log_dir"] = values.get("dataLogDir", "")
    return status


def address_of(server: str) -> tuple[str, int]:
    """Host and port of "host", "host:port" or "[v6]:port". Raises OperatorError."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?", server.strip())
    if match is None or not 0 <= int(match[3] or 0) <= 65535:
        raise OperatorError("this is not the address of a server", repr(server), "give HOST:PORT")
    return match[1] or match[2], int(match[3] or DEFAULT_PORT)


def _pairs(text: str, separator: str) -> list[tuple[str, str]]:
    split = (line.partition(separator) for line in text.splitlines() if separator in line)
    return [(key.strip(), value.strip()) for key, _, value in split]


def parse_srvr(text: str) -> dict[str, Any]:
    """The facts in an answer to `srvr`."""
    values = dict(_pairs(text, ":"))
    least, average, greatest = values["Latency min/avg/max"].split("/")
    return {
        "version": values["Zookeeper version"],
        "mode": values["Mode"],
        "zxid": values["Zxid"],
        "latency_min_ms": float(least),
        "latency_avg_ms": float(average),
        "latency_max_ms": float(greatest),
        "connections": int(values["Connections"]),
        "outstanding": int(values["Outstanding"]),
        "packets_received": int(values["Received"]),
        "packets_sent": int(values["Sent"]),
        "node_count": int(values["Node count"]),
    }


def parse_mntr(text: str) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The facts in an answer to `mntr`, and the processes that it names."""
    values = dict(_pairs(text, "\t"))
    facts: dict[str, Any] = {
        name: int(float(values[key])) for name, key in _MNTR.items() if key in values
    }
    processes: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        if match := _PROCESS_METRIC.fullmatch(key):
            name = match[1].replace("_", " ")
            processes.setdefault(name, {})[match[2].removesuffix("_total")] = float(value)
    return facts, processes


_MNTR = {
    "uptime_ms": "zk_uptime",
    "sessions": "zk_global_sessions",
    "watch_count": "zk_watch_count",
    "ephemerals": "zk_ephemerals_count",
    "data_bytes": "zk_approximate_data_size",
    "open_files": "zk_open_file_descriptor_count",
    "open_files_max": "zk_max_file_descriptor_count",
    "missing_processes": "zk_missing_processes",
}


# -- for people ----------------------------------------------------------------------------------


def size(value: float) -> str:
    """Bytes with a unit of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(ms: float) -> str:
    """Days, hours, minutes, seconds; the two greatest that are not zero."""
    seconds = int(ms // 1000)
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    ]
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])


def _number(value: float) -> str:
    return f"{value:,.0f}"


_FACTS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "mode": ("Mode", str),
    "version": ("Version", str),
    "uptime_ms": ("Up", duration),
    "zxid": ("Zxid", str),
    "node_count": ("Znodes", _number),
    "data_bytes": ("Data", size),
    "ephemerals": ("Ephemeral znodes", _number),
    "sessions": ("Sessions", _number),
    "connections": ("Connections", _number),
    "watch_count": ("Watches", _number),
    "outstanding": ("Requests in progress", _number),
    "packets_received": ("Packets received", _number),
    "packets_sent": ("Packets sent", _number),
    "open_files": ("Open files", _number),
    "data_dir": ("Data folder", str),
    "data_log_dir": ("Log folder", str),
    "missing_processes": ("Processes that did not answer", _number),
}


def rows(statuses: list[Status]) -> list[list[str]]:
    """The table: the name of each fact, then its value of each server."""
    table = [["Serving", *("yes" if s.serving else f"no: {s.error}" for s in statuses)]]
    for name, (title, show) in _FACTS.items():
        if any(name in s.facts for s in statuses):
            table.append([title, *(_shown(s.facts, name, show) for s in statuses)])
        if name == "mode":
            table.append(["Latency min/avg/max ms", *(_latency(s.facts) for s in statuses)])
    for process in sorted({name for s in statuses for name in s.processes}):
        table.append([process, *(_process(s.processes.get(process, {})) for s in statuses)])
    return table


def _shown(facts: Mapping[str, Any], name: str, show: Callable[[Any], str]) -> str:
    return show(facts[name]) if name in facts else ""


def _latency(facts: Mapping[str, Any]) -> str:
    values = [facts.get(f"latency_{which}_ms") for which in ("min", "avg", "max")]
    return "/".join(f"{v:g}" for v in values if v is not None)


def _process(values: Mapping[str, float]) -> str:
    parts = []
    if "resident_bytes" in values:
        parts.append(size(values["resident_bytes"]))
    if "cpu_seconds" in values:
        parts.append(f"{values['cpu_seconds']:.1f} s CPU")
    return ", ".join(parts)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-s", "--server", "servers",
    default="localhost:2181", show_default=True, metavar="HOST:PORT,...", help="Whom to ask.",
)  # fmt: skip
@click.option(
    "-t", "--timeout",
    default=5.0, show_default=True, metavar="SECONDS", help="How long to wait for each answer.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_context
def status(context: click.Context, servers: str, timeout: float, as_json: bool) -> None:
    """Show how running servers are doing."""
    statuses = [inquire(server.strip(), timeout) for server in servers.split(",")]
    if as_json:
        click.echo(json.dumps({"servers": [s.as_object() for s in statuses]}))
    else:
        _print_table(statuses)
    context.exit(0 if all(s.serving for s in statuses) else 1)


def _print_table(statuses: list[Status]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", header_style="bold")
    for one in statuses:
        table.add_column(one.server, overflow="fold")
    for row in rows(statuses):
        table.add_row(*row)
    Console().print(table)
