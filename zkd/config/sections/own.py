"""Keys that only zkd has."""

# ruff: noqa: RUF009  (setting() gives a dataclass field; it is no mutable default)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zkd.config.key import own, pattern
from zkd.config.kinds import BYTES, INT, MIB, MS, NETWORKS, PATH, TEXT, WORDS, Network, duration


@dataclass(frozen=True, init=False, repr=False, eq=False)
class OwnSettings:
    """zkd's processes, memory, folders and safeguards."""

    name: str = own(
        "name",
        TEXT,
        "zkd",
        "Name of this server in process titles and logs.",
        default_text="the file's name without ending; standalone without a file",
    )
    frontends: int = own(
        "frontends",
        INT,
        1,
        "Number of front-end processes.",
        default_text="half of the cores, at least 1",
        minimum=1,
        maximum=64,
    )
    cache_bytes: int = own(
        "cache.bytes",
        BYTES,
        256 * MIB,
        "Memory for the caches of all processes together.",
        minimum=8 * MIB,
    )
    log_retain: int = own(
        "log.retain",
        INT,
        100_000,
        "Transactions that purging leaves in the log.",
        minimum=0,
        reloadable=True,
    )
    reserve_bytes: int = own(
        "reserve.bytes",
        BYTES,
        8 * MIB,
        "Disk space kept back, given up when the disk is full so that the server can finish.",
        minimum=0,
    )
    flush_interval: int = own(
        "flush.interval",
        duration(),
        1000,
        "Longest time that a committed change waits before it is written to the tree's database.",
        minimum=10,
        reloadable=True,
    )
    log_config: Path | None = own(
        "log.config",
        PATH,
        None,
        "YAML file of levels and destinations of the server's own log.",
        default_text="none: info and above to stderr",
        reloadable=True,
    )
    runtime_dir: Path = own(
        "runtime.dir",
        PATH,
        Path(),
        "Private folder of the sockets between the processes.",
        default_text="below RUNTIME_DIRECTORY, XDG_RUNTIME_DIR or the folder for temporary files, "
        "derived from dataDir",
    )
    session_key: Path = own(
        "session.key",
        PATH,
        Path(),
        "File of the secret from which session passwords are made.",
        default_text="session.key in dataDir",
    )
    watch_limit_connection: int = own(
        "watch.limit.connection",
        INT,
        0,
        "Most watches of one connection; 0: no limit.",
        minimum=0,
        reloadable=True,
    )
    watch_limit_path: int = own(
        "watch.limit.path",
        INT,
        0,
        "Most watches on one path; 0: no limit.",
        minimum=0,
        reloadable=True,
    )
    four_letter_loopback_whitelist: frozenset[str] = own(
        "4lw.loopback.whitelist",
        WORDS,
        frozenset(),
        "Four-letter words also allowed from 4lw.loopback.networks.",
        default_text="the harmless reading ones; none if 4lw.commands.whitelist is set",
        reloadable=True,
    )
    four_letter_loopback_networks: tuple[Network, ...] = own(
        "4lw.loopback.networks",
        NETWORKS,
        (),
        "Where 4lw.loopback.whitelist is valid.",
        default_text="127.0.0.0/8,::1/128",
        reloadable=True,
    )
    slow_request: int = own(
        "slow.request.ms",
        MS,
        1000,
        "A write, or a long listing or count, that takes longer is logged; -1: none is.",
        minimum=0,
        special=-1,
        reloadable=True,
    )
    watchdog_timeout: int = own(
        "watchdog.timeout",
        MS,
        20_000,
        "A process of the server that is silent for longer is killed and started again.",
        minimum=1000,
    )
    auth_timeout: int = own(
        "auth.timeout",
        MS,
        5000,
        "Longest time that an authentication plugin may take.",
        minimum=1,
        reloadable=True,
    )
    plugins_disabled: tuple[str, ...] = own(
        "plugins.disabled",
        WORDS,
        (),
        "Names of installed plugins that are not loaded; * stands for any characters.",
        default_text="none",
    )
    plugin_settings: Mapping[str, str] = pattern(
        "plugin.*",
        TEXT,
        "A plugin's own settings: plugin.NAME.KEY, as its documents say.",
        default_text="none",
        own=True,
    )
    trusted_proxies: tuple[Network, ...] = own(
        "trusted.proxies",
        NETWORKS,
        (),
        "Networks whose X-Forwarded-For header is believed by the admin server.",
        default_text="none",
        reloadable=True,
    )
