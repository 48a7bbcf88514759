"""From the configuration to what the core and its ports want to be told."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from zkd.config.servers import OBSERVER
from zkd.server.quorum import election_net
from zkd.server.quorum.learner_net import LinkSettings
from zkd.server.quorum.net import Address, SocketOptions
from zkd.zab import election
from zkd.zab.settings import Settings, Standing

if TYPE_CHECKING:
    from zkd.config import Config

QUORUM_QUEUE_BYTES_MAX = 256 << 20


def is_observer(config: Config) -> bool:
    """By its server line; a server without one does not vote."""
    line = config.membership.servers.get(config.my_id or 0)
    return line is None or line.role == OBSERVER


def core_settings(config: Config) -> Settings:
    """The numbers of the core."""
    return Settings(
        tick_ms=config.tick_time,
        init_limit=config.init_limit,
        sync_limit=config.sync_limit,
        reconfig_enabled=config.reconfig_enabled,
        snap_syncs_max=config.leader_max_concurrent_snap_syncs,
        force_snapshot=config.force_snapshot_sync,
        observer_master=config.observer_master_port > 0 and not is_observer(config),
        election=election.ElectionSettings(
            min_interval_ms=config.fastleader_min_notification_interval,
            max_interval_ms=config.fastleader_max_notification_interval,
            reconfig_enabled=config.reconfig_enabled,
        ),
    )


def standing_of(
    config: Config, durable: int, accepted: int, current: int, committed: int, *, trusted: bool
) -> Standing:
    """What the disk says. A database that came from elsewhere may bring no epochs: they are those
    of its last zxid then, as for Apache ZooKeeper (QuorumPeer.loadDataBase)."""
    assert config.my_id is not None
    logged = max(durable, committed)
    current = max(current, logged >> 32)
    return Standing(
        config.my_id, max(accepted, current), current, logged, committed, trusted=trusted
    )


def _options(config: Config) -> SocketOptions:
    return SocketOptions(
        nodelay=config.leader_nodelay and config.follower_nodelay,
        keep_alive=config.tcp_keep_alive,
        dead_after_s=config.sync_limit * config.tick_time / 1000,
    )


def election_settings(config: Config) -> election_net.ElectionSettings:
    """The election port of this server."""
    assert config.my_id is not None
    line = config.membership.servers[config.my_id]
    handshake_ms = config.quorum_cnxn_timeout
    if handshake_ms < 0:
        handshake_ms = config.sync_limit * config.tick_time
    return election_net.ElectionSettings(
        config.my_id,
        [(address.host, address.election_port) for address in line.addresses],
        multi_address=config.multi_address_enabled,
        listen_on_all=config.quorum_listen_on_all_ips,
        bind_retry=config.election_port_bind_retry,
        connect_timeout_s=config.cnx_timeout / 1000,
        handshake_timeout_s=handshake_ms / 1000,
        options=_options(config),
    )


def link_settings(config: Config) -> LinkSettings:
    """The connections of the quorum port."""
    ticks = max(config.init_limit, config.sync_limit)
    return LinkSettings(
        limit=config.jute_maxbuffer + config.jute_maxbuffer_extrasize,
        queue_bytes_max=QUORUM_QUEUE_BYTES_MAX,
        read_timeout_s=ticks * config.tick_time / 1000,
        options=_options(config),
    )


def quorum_addresses(config: Config) -> list[Address]:
    """Where this server listens while it leads."""
    line = config.membership.servers[config.my_id or 0]
    return [(address.host, address.quorum_port) for address in line.addresses]


def master_addresses(config: Config) -> list[Address]:
    """Where it listens for observers while it follows."""
    return [(host, config.observer_master_port) for host, _ in quorum_addresses(config)]


def observer_masters(config: Config) -> list[list[Address]]:
    """To whom an observer connects in place of the leader, in the order of this life."""
    if not config.observer_master_port or not is_observer(config):
        return []
    masters = [
        [(address.host, config.observer_master_port) for address in line.addresses]
        for line in config.membership.voters()
    ]
    random.shuffle(masters)
    return masters
