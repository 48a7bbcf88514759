"""`Config`: everything that a server is told, resolved and typed.

Each applied key is one attribute (see the modules in `sections`); the fields below are what the
keys amount to. Durations are int milliseconds, sizes int bytes, folders absolute paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

from zkd.config.findings import Finding
from zkd.config.kinds import MIB
from zkd.config.sections.admin import AdminSettings
from zkd.config.sections.basic import BasicSettings, BehaviourSettings
from zkd.config.sections.limits import LimitSettings
from zkd.config.sections.own import OwnSettings
from zkd.config.sections.quorum import QuorumSettings
from zkd.config.sections.security import SecuritySettings
from zkd.config.servers import Membership, ServerLine

FLUSH_BYTES_MAX = 16 * MIB
LOG_WAL_BYTES_MAX = 4 * MIB


@dataclass(frozen=True)
class Config(
    OwnSettings,
    AdminSettings,
    SecuritySettings,
    QuorumSettings,
    BehaviourSettings,
    LimitSettings,
    BasicSettings,
):
    """One server's configuration. Made by `zkd.config.load`; only `take` changes it afterwards.

    source: the file, or None. warnings: findings that did not refuse it. raw: text of each key
    that was set, by the table's name, and the two folders (secrets included: never print it).
    membership: the server lines. my_id: from dataDir/myid, None if there is no such file.
    distributed: this server is a member of an ensemble (otherwise it runs alone). listen_port and
    secure_listen_port: -1 is none; an empty listen_address is all addresses, IPv4 and IPv6.
    """

    source: Path | None = None
    warnings: tuple[Finding, ...] = ()
    raw: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    membership: Membership = field(default_factory=Membership)
    my_id: int | None = None
    distributed: bool = False
    listen_address: str = "127.0.0.1"
    listen_port: int = 2181
    secure_listen_address: str = ""
    secure_listen_port: int = -1

    def take(self, changed: Mapping[str, object]) -> None:
        """Put in force new values of reloadable keys, by attribute. Whoever has made something of
        the old ones is told by its process (`Child.on_reload`)."""
        vars(self).update(changed)

    @property
    def servers(self) -> Mapping[int, ServerLine]:
        """The server lines by id; empty without any."""
        return self.membership.servers

    @property
    def standalone(self) -> bool:
        """This server runs alone: what is durable is committed."""
        return not self.distributed

    @property
    def purge(self) -> bool:
        """Old rows of the log are removed."""
        return self.autopurge_purge_interval > 0

    @property
    def flush_count(self) -> int | None:
        """Changes after which the tree is flushed at the latest, if the operator chose."""
        return self.snap_count if "snapCount" in self.raw else None

    @property
    def flush_bytes(self) -> int | None:
        """Bytes of changes after which the tree is flushed, if the operator chose fewer."""
        told = self.snap_size_limit_bytes
        return told if 0 < told < FLUSH_BYTES_MAX else None

    @property
    def log_wal_bytes(self) -> int | None:
        """Size of the log's write-ahead file, if the operator chose a smaller one."""
        told = self.pre_alloc_bytes
        return told if 0 < told < LOG_WAL_BYTES_MAX else None

    @property
    def log_retain_bytes(self) -> int | None:
        """Size of the log above which more rows are purged, if the operator chose."""
        told = self.txn_log_size_limit_bytes
        return told if told > 0 else None

    def four_letter_allowed(self, word: str, address: str) -> bool:
        """Whether a four-letter word may be sent from `address` (an IP address, else refused)."""
        if word in self.four_letter_whitelist:
            return True
        if word not in self.four_letter_loopback_whitelist:
            return False
        try:
            origin = ip_address(address.split("%")[0])
        except ValueError:
            return False
        mapped = getattr(origin, "ipv4_mapped", None)
        return any((mapped or origin) in network for network in self.four_letter_loopback_networks)
