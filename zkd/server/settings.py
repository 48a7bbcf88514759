"""From the configuration to what the rooms without I/O want to be told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zkd.tree.settings import TreeSettings

if TYPE_CHECKING:
    from zkd.config import Config
    from zkd.storage.settings import StorageSettings

FLUSH_MIN, FLUSH_MAX = 1 << 20, 16 << 20
FLUSH_SHARE = 16
"""The tree is flushed at this share of `cache.bytes`: with a fourth of them writes are held."""


def tree_settings(config: Config) -> TreeSettings:
    """What the configuration says about the tree."""
    return TreeSettings(
        digest_enabled=config.digest_enabled,
        extended_types_enabled=config.extended_types_enabled,
        emulate_353=config.emulate_353_ttl_nodes,
        enforce_quota=config.enforce_quota,
        skip_acl=config.skip_acl,
        close_session_txn=config.close_session_txn_enabled,
        reconfig_enabled=config.reconfig_enabled,
        txn_max_bytes=config.jute_maxbuffer + config.jute_maxbuffer_extrasize,
    )


def storage_settings(config: Config) -> StorageSettings:
    """What the configuration says about storage."""
    from zkd.storage.settings import StorageSettings

    flush_bytes = max(FLUSH_MIN, min(FLUSH_MAX, config.cache_bytes // FLUSH_SHARE))
    return replace(
        StorageSettings.of(config),
        commit_on_append=not config.distributed,
        configuration=config.membership.text() if config.distributed else "",
        configuration_version=config.membership.version,
        tree=tree_settings(config),
        flush_interval_s=config.flush_interval / 1000,
        flush_bytes=min(flush_bytes, config.flush_bytes or flush_bytes),
    )
