"""What an operator may choose about the tree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """Settings of validation and of the tree; the same on every member of an ensemble.

    Each is one of Apache ZooKeeper's properties, with its default.
    """

    digest_enabled: bool = True
    """`zookeeper.digest.enabled`: keep the tree's digest and append it to transactions."""

    extended_types_enabled: bool = False
    """`zookeeper.extendedTypesEnabled`: TTL nodes."""

    emulate_353: bool = False
    """`zookeeper.emulate353TTLNodes`: owners as 3.5.3 wrote them, only with extended types."""

    enforce_quota: bool = False
    """`zookeeper.enforceQuota`: hard limits refuse."""

    skip_acl: bool = False
    """`zookeeper.skipACL`: no permission is checked."""

    close_session_txn: bool = True
    """`zookeeper.closeSessionTxn.enabled`: closeSession carries the paths it deletes."""

    reconfig_enabled: bool = False
    """`reconfigEnabled`."""

    txn_max_bytes: int = 2 * 0xFFFFF
    """Longest transaction that every reader of the wire and of a log takes:
    `jute.maxbuffer` + `zookeeper.jute.maxbuffer.extrasize`."""
