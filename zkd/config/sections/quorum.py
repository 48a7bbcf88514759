"""Keys of ensembles: members, election, synchronisation, SASL between servers (spec section 4)."""

# ruff: noqa: RUF009  (setting() gives a dataclass field; it is no mutable default)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zkd.config.key import setting
from zkd.config.kinds import BOOL, BYTES, FLAG, INT, MIB, MS, PATH, TEXT, choice


@dataclass(frozen=True, init=False, repr=False, eq=False)
class QuorumSettings:
    """How servers find, follow and trust each other. Limits in ticks say so."""

    init_limit: int = setting(
        "initLimit",
        INT,
        0,
        "Ticks that a follower may take to connect and synchronise.",
        default_text="none; required in an ensemble",
        minimum=1,
    )
    sync_limit: int = setting(
        "syncLimit",
        INT,
        0,
        "Ticks that a follower may lag behind its leader.",
        default_text="none; required in an ensemble",
        minimum=1,
    )
    connect_to_learner_master_limit: int = setting(
        "connectToLearnerMasterLimit",
        INT,
        0,
        "Ticks that a learner may take to connect to the leader after an election.",
        default_text="initLimit",
        minimum=0,
    )
    peer_type: str = setting(
        "peerType",
        choice("participant", "observer"),
        "participant",
        "Whether this server votes; the list of servers decides if they differ.",
    )
    dynamic_config_file: Path | None = setting(
        "dynamicConfigFile",
        PATH,
        None,
        "File of the server, group and weight lines, kept by the ensemble itself.",
        default_text="none",
    )
    standalone_enabled: bool = setting(
        "standaloneEnabled",
        BOOL,
        True,
        "A single voter runs alone; false: it runs as an ensemble of one, which may grow.",
    )
    reconfig_enabled: bool = setting(
        "reconfigEnabled",
        BOOL,
        False,
        "Allow the members to be changed while running.",
    )
    oracle_path: Path | None = setting(
        "oraclePath",
        PATH,
        None,
        "File that breaks the tie of an ensemble of two.",
        default_text="none",
    )
    election_alg: int = setting(
        "electionAlg",
        INT,
        3,
        "Election algorithm; there is only 3.",
        minimum=3,
        maximum=3,
    )
    election_port_bind_retry: int = setting(
        "electionPortBindRetry",
        INT,
        3,
        "Attempts to bind the election port; 0: without end.",
        minimum=0,
    )
    cnx_timeout: int = setting(
        "cnxTimeout",
        MS,
        5000,
        "Time to connect to another server for an election.",
        minimum=1,
    )
    quorum_cnxn_timeout: int = setting(
        "quorumCnxnTimeoutMs",
        MS,
        -1,
        "Time without a word on an election connection.",
        default_text="-1 (syncLimit ticks)",
        minimum=1,
        special=-1,
    )
    quorum_listen_on_all_ips: bool = setting(
        "quorumListenOnAllIPs",
        BOOL,
        False,
        "Bind the ports between servers on all addresses.",
    )
    multi_address_enabled: bool = setting(
        "multiAddress.enabled",
        BOOL,
        False,
        "Allow several addresses for a server.",
    )
    multi_address_reachability_check_timeout: int = setting(
        "multiAddress.reachabilityCheckTimeoutMs",
        MS,
        1000,
        "Time to find out which address of a server answers.",
        minimum=1,
    )
    multi_address_reachability_check_enabled: bool = setting(
        "multiAddress.reachabilityCheckEnabled",
        BOOL,
        True,
        "Find out which address of a server answers before connecting.",
    )
    observer_master_port: int = setting(
        "observerMasterPort",
        INT,
        0,
        "Port on which followers serve observers.",
        default_text="none",
        maximum=65535,
    )
    observer_master_size_limit: int = setting(
        "observerMaster.sizeLimit",
        BYTES,
        32 * MIB,
        "Bytes kept in a follower for its observers.",
        minimum=1,
    )
    sync_enabled: bool = setting(
        "syncEnabled",
        BOOL,
        True,
        "Observers keep a log and snapshots on disk.",
        aliases=("observer.syncEnabled",),
    )
    observer_reconnect_delay: int = setting(
        "observer.reconnectDelayMs",
        MS,
        0,
        "Observers wait a random time up to this before they connect again.",
        minimum=0,
    )
    observer_election_delay: int = setting(
        "observer.election.DelayMs",
        MS,
        200,
        "Observers wait this long before they look for a leader.",
        minimum=0,
    )
    fastleader_min_notification_interval: int = setting(
        "fastleader.minNotificationInterval",
        MS,
        200,
        "First wait for votes.",
        minimum=1,
    )
    fastleader_max_notification_interval: int = setting(
        "fastleader.maxNotificationInterval",
        MS,
        60_000,
        "Longest wait for votes.",
        minimum=1,
    )
    leader_max_time_to_wait_for_epoch: int = setting(
        "leader.maxTimeToWaitForEpoch",
        MS,
        -1,
        "How long a new leader waits for followers to agree on the epoch.",
        default_text="-1 (initLimit ticks)",
        minimum=1,
        special=-1,
    )
    leader_max_concurrent_snap_syncs: int = setting(
        "leader.maxConcurrentSnapSyncs",
        INT,
        10,
        "Learners that are sent a snapshot at a time.",
        aliases=("maxConcurrentSnapSyncs",),
        minimum=1,
    )
    leader_max_concurrent_diff_syncs: int = setting(
        "leader.maxConcurrentDiffSyncs",
        INT,
        100,
        "Learners that are sent log at a time.",
        aliases=("maxConcurrentDiffSyncs",),
        minimum=1,
    )
    leader_connect_delay_during_retry: int = setting(
        "leaderConnectDelayDuringRetryMs",
        MS,
        100,
        "Pause between two attempts to connect to the leader.",
        minimum=0,
    )
    leader_nodelay: bool = setting(
        "leader.nodelay",
        FLAG,
        True,
        "TCP_NODELAY at the leader towards learners.",
    )
    follower_nodelay: bool = setting(
        "follower.nodelay",
        FLAG,
        True,
        "TCP_NODELAY at learners towards the leader.",
    )
    quorum_auth_enable_sasl: bool = setting(
        "quorum.auth.enableSasl",
        BOOL,
        False,
        "SASL between servers is possible.",
    )
    quorum_auth_learner_require_sasl: bool = setting(
        "quorum.auth.learnerRequireSasl",
        BOOL,
        False,
        "This server authenticates itself to the servers it connects to.",
    )
    quorum_auth_server_require_sasl: bool = setting(
        "quorum.auth.serverRequireSasl",
        BOOL,
        False,
        "Servers that connect here must authenticate themselves.",
    )
    quorum_auth_learner_sasl_login_context: str = setting(
        "quorum.auth.learner.saslLoginContext",
        TEXT,
        "QuorumLearner",
        "Section of the login file for outgoing connections.",
    )
    quorum_auth_server_sasl_login_context: str = setting(
        "quorum.auth.server.saslLoginContext",
        TEXT,
        "QuorumServer",
        "Section of the login file for incoming connections.",
    )
    quorum_auth_kerberos_service_principal: str = setting(
        "quorum.auth.kerberos.servicePrincipal",
        TEXT,
        "zkquorum/localhost",
        "Kerberos principal of the servers.",
        note="Needs a GSSAPI plugin.",
    )
    kerberos_canonicalize_host_names: bool = setting(
        "kerberos.canonicalizeHostNames",
        FLAG,
        False,
        "Take the canonical names of hosts in server lines.",
        note="Needs a GSSAPI plugin.",
    )
    ssl_quorum: bool = setting("sslQuorum", BOOL, False, "TLS between servers.")
    port_unification: bool = setting(
        "portUnification",
        BOOL,
        False,
        "Accept other servers with and without TLS on one port.",
    )
    ssl_quorum_reload_cert_files: bool = setting(
        "sslQuorumReloadCertFiles",
        BOOL,
        False,
        "Read changed key and trust stores again.",
        note="The files are always watched.",
    )
