"""Keys that are read and checked, but on which this version does not act yet.

Whoever builds one removes it here: then `zkd config check` and the documents stop saying so. A test
compares this list with what the server's code reads.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from zkd.config.key import Key

PENDING: tuple[str, ...] = (
    # snapshots in Apache ZooKeeper's format
    "serializeLastProcessedZxid.enabled",
    "snapshot.compression.method",
    # statistics
    "pathStats.*",
    "jvm.pause.*",
    # the HTTP admin server, some of HTTPS for metrics
    "admin.*",
    "trusted.proxies",
    "metricsProvider.prometheusMetricsSummaryRotateIntervalSeconds",
    "metricsProvider.ssl.*Store.password*",
    "metricsProvider.ssl.*Store.type",
    "metricsProvider.ssl.enabledProtocols",
    "metricsProvider.ssl.ciphersuites",
    "metricsProvider.ssl.want.client.auth",
    # TLS and authentication beyond digest and ip
    "secureClientPort*",
    "ssl.*",
    "client.*",
    "netty.server.*",
    "fips-mode",
    "X509AuthenticationProvider.*",
    "SASLAuthenticationProvider.*",
    "IPAuthenticationProvider.*",
    "superUser",
    "superUser.*",
    "letAnySaslUserDoX",
    "allowSaslFailedClients",
    "sessionRequireClientSASLAuth",
    "enforce.auth.*",
    "ensembleAuthName",
    "kerberos.*",
    "security.auth_to_local",
    "java.security.auth.login.config",
    "sasl.serverconfig",
    # ensembles
    "enableEagerACLCheck",
    "localSessions*",
    "messageTracker.*",
    "readonlymode.enabled",
    "commitLogCount",
    "snapshotSizeFactor",
    "oraclePath",
    "quorum.auth.*",
    "multiAddress.reachability*",
    "observer.reconnectDelayMs",
    "observer.election.DelayMs",
    "observerMaster.sizeLimit",
    "syncEnabled",
    "leader.maxTimeToWaitForEpoch",
    "leader.maxConcurrentDiffSyncs",
    "sslQuorum*",
    "portUnification",
)

ENSEMBLE_ONLY = "Ensemble"
"""Section whose keys mean nothing to a standalone server: there they are not worth a warning."""


def is_pending(key: Key) -> bool:
    """Whether nothing acts on a key yet, apart from checking it."""
    return any(fnmatchcase(key.name, pattern) for pattern in PENDING)
