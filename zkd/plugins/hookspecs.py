"""The hooks of zkd, one for each kind of plugin. Written for a plugin's author: docs/plugins.md.

Each hook is called once for each plugin in each process where its kind runs, after the fork. A
call that raises, takes longer than the loader's limit or answers with anything but a list of the
right objects refuses that plugin there: it is named in the log with its distribution and version,
and the others go on. (An auth plugin that the configuration names stops the start instead.)
"""

from __future__ import annotations

from typing import Final

import pluggy

from zkd.plugins.api import (
    PROJECT,
    AuditSink,
    AuthProvider,
    CommitObserver,
    Config,
    MetricsExporter,
    SnapshotFormat,
)

hookspec = pluggy.HookspecMarker(PROJECT)

HOOK_OF_KIND: Final = {
    "auth": "zkd_auth_providers",
    "observer": "zkd_commit_observers",
    "snapshot": "zkd_snapshot_formats",
    "metrics": "zkd_metrics_exporters",
    "audit": "zkd_audit_sinks",
}

CLASS_OF_KIND: Final[dict[str, type]] = {
    "auth": AuthProvider,
    "observer": CommitObserver,
    "snapshot": SnapshotFormat,
    "metrics": MetricsExporter,
    "audit": AuditSink,
}


@hookspec
def zkd_auth_providers(config: Config) -> list[AuthProvider]:  # type: ignore[empty-body]
    """The authentication schemes of this plugin.

    Runs in: each front-end, and the peer (which checks the ACLs of every write).
    May block: the hook itself for a moment; `authenticate` up to a time limit, off the event
    loop; all other methods never: no I/O, 50 ms at most.
    If a method raises or is late: `authenticate` gives that client AUTHFAILED; the others count
    as "no", are logged and counted, and after three late calls the provider is off.
    Shipped: auth.digest (plugins/zkd_auth_digest), auth.ip (plugins/zkd_auth_ip).
    """


@hookspec
def zkd_commit_observers(config: Config) -> list[CommitObserver]:  # type: ignore[empty-body]
    """Observers of committed transactions.

    Runs in: the admin process, each observer in its own thread. May block: yes.
    If `on_commit` raises: logged, counted, the same batch comes again after a growing pause.
    Shipped: observer.commit_counter (plugins/zkd_commit_counter).
    """


@hookspec
def zkd_snapshot_formats(config: Config) -> list[SnapshotFormat]:  # type: ignore[empty-body]
    """File formats of snapshots.

    Runs in: the short-lived child that takes or reads a snapshot. May block: yes.
    If it raises: that snapshot fails with its message; the server goes on.
    Shipped: snapshot.zkd (plugins/zkd_snapshot_zkd).
    """


@hookspec
def zkd_metrics_exporters(config: Config) -> list[MetricsExporter]:  # type: ignore[empty-body]
    """Exporters of the server's metrics.

    Runs in: the admin process, each exporter in its own thread. May block: yes.
    If `start` raises: logged, counted, tried again after a growing pause.
    Shipped: metrics.prometheus (plugins/zkd_metrics_prometheus).
    """


@hookspec
def zkd_audit_sinks(config: Config) -> list[AuditSink]:  # type: ignore[empty-body]
    """Sinks of audit events.

    Runs in: each front-end, each sink in its own thread behind a bounded queue.
    May block: it holds up nobody, but events beyond its queue are dropped and counted.
    If `write` raises: logged, counted, that event is lost to that sink.
    Shipped: audit.log (plugins/zkd_audit_log).
    """
