"""zoo.cfg: every key of Apache ZooKeeper and zkd's own, read, checked and explained.

`load` is what a server calls; `examine` also gives the findings of a configuration that cannot be
used. The table of keys is in `zkd.config.keys`, the attributes in `zkd.config.model` and
`zkd.config.sections`.
"""

from __future__ import annotations

from zkd.config.findings import ConfigError, Finding, Level
from zkd.config.loader import Examination, examine, load
from zkd.config.model import Config
from zkd.config.reloading import Changed, differences
from zkd.config.runtime import prepare_runtime_dir
from zkd.config.servers import Endpoint, Membership, PeerAddress, ServerLine

__all__ = [
    "Changed",
    "Config",
    "ConfigError",
    "Endpoint",
    "Examination",
    "Finding",
    "Level",
    "Membership",
    "PeerAddress",
    "ServerLine",
    "differences",
    "examine",
    "load",
    "prepare_runtime_dir",
]
