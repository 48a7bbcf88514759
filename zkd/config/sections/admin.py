"""Keys of four-letter words, the admin server, metrics and audit (spec section 7)."""

# ruff: noqa: RUF009  (setting() gives a dataclass field; it is no mutable default)

from __future__ import annotations

from dataclasses import dataclass

from zkd.config.key import Action, group, own, setting
from zkd.config.kinds import BOOL, FLAG, INT, MS, TEXT, WORDS, choice, duration
from zkd.config.sections.security import StoreSettings

_METRICS = "org.apache.zookeeper.metrics."
DEFAULT_METRICS_PROVIDER = _METRICS + "impl.DefaultMetricsProvider"


@dataclass(frozen=True)
class MetricsTlsSettings(StoreSettings):
    """TLS of the port for metrics."""

    need_client_auth: bool = setting(
        "need.client.auth",
        FLAG,
        True,
        "Scrapers must show a certificate.",
    )
    want_client_auth: bool = setting(
        "want.client.auth",
        FLAG,
        True,
        "Scrapers are asked for a certificate.",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class AdminSettings:
    """What an operator sees."""

    four_letter_whitelist: frozenset[str] = setting(
        "4lw.commands.whitelist",
        WORDS,
        frozenset({"srvr"}),
        "Four-letter words that everybody may send; * allows all.",
        default_text="srvr, and isro with readonlymode.enabled",
        reloadable=True,
    )
    admin_enable_server: bool = setting(
        "admin.enableServer",
        FLAG,
        True,
        "The HTTP admin server.",
    )
    admin_server_address: str = setting(
        "admin.serverAddress",
        TEXT,
        "127.0.0.1",
        "Address of the admin server.",
        apache="0.0.0.0",
    )
    admin_server_port: int = setting(
        "admin.serverPort",
        INT,
        8080,
        "Port of the admin server.",
        minimum=0,
        maximum=65535,
    )
    admin_idle_timeout: int = setting(
        "admin.idleTimeout",
        MS,
        30_000,
        "How long an HTTP connection may be idle.",
        minimum=1,
    )
    admin_command_url: str = setting(
        "admin.commandURL",
        TEXT,
        "/commands",
        "Path below which the commands are.",
    )
    admin_port_unification: bool = setting(
        "admin.portUnification",
        FLAG,
        False,
        "HTTP and HTTPS on the admin server's port.",
    )
    admin_force_https: bool = setting(
        "admin.forceHttps",
        FLAG,
        False,
        "Only HTTPS on the admin server's port.",
    )
    admin_need_client_auth: bool = setting(
        "admin.needClientAuth",
        FLAG,
        False,
        "Users of the admin server must show a certificate.",
    )
    admin_rate_limiter_interval: int = setting(
        "admin.rateLimiterIntervalInMS",
        MS,
        300_000,
        "Shortest time between two snapshots or restores by HTTP.",
        minimum=0,
        reloadable=True,
    )
    admin_snapshot_enabled: bool = setting(
        "admin.snapshot.enabled",
        FLAG,
        True,
        "Allow snapshots by HTTP.",
        reloadable=True,
    )
    admin_restore_enabled: bool = setting(
        "admin.restore.enabled",
        FLAG,
        True,
        "Allow restoring by HTTP.",
        reloadable=True,
    )
    metrics_provider: str = setting(
        "metricsProvider.className",
        choice(
            "default",
            "prometheus",
            "none",
            aliases={
                DEFAULT_METRICS_PROVIDER.lower(): "default",
                (_METRICS + "impl.NullMetricsProvider").lower(): "none",
                (_METRICS + "prometheus.PrometheusMetricsProvider").lower(): "prometheus",
            },
        ),
        "default",
        "How metrics are handed out besides the admin server.",
        action=Action.MAP,
        note="Class names of Apache ZooKeeper are translated; others are refused: see "
        "metrics.exporters.",
    )
    metrics_exporters: tuple[str, ...] = own(
        "metrics.exporters",
        WORDS,
        (),
        "Names of plugins that export metrics.",
        default_text="none",
    )
    metrics_http_host: str = setting(
        "metricsProvider.httpHost",
        TEXT,
        "0.0.0.0",
        "Address of the port for metrics.",
    )
    metrics_http_port: int = setting(
        "metricsProvider.httpPort",
        INT,
        -1,
        "Port for metrics; -1: none.",
        default_text="-1; 7000 with the Prometheus provider",
        minimum=0,
        special=-1,
        maximum=65535,
    )
    metrics_https_port: int = setting(
        "metricsProvider.httpsPort",
        INT,
        -1,
        "Port for metrics with TLS; -1: none.",
        minimum=0,
        special=-1,
        maximum=65535,
    )
    metrics_summary_rotate_interval: int = setting(
        "metricsProvider.prometheusMetricsSummaryRotateIntervalSeconds",
        duration("s"),
        60_000,
        "Time over which summaries are taken.",
        minimum=1,
    )
    metrics_tls: MetricsTlsSettings = group(
        MetricsTlsSettings, "metricsProvider.ssl.", "TLS of the port for metrics"
    )
    audit_enable: bool = setting("audit.enable", FLAG, False, "Log who changed what.")
    audit_impl_class: str = setting(
        "audit.impl.class",
        TEXT,
        "org.apache.zookeeper.audit.Slf4jAuditLogger",
        "How the audit log is written.",
        action=Action.MAP,
        note="The default class is zkd's audit log; plugin:NAME is an audit plugin; other classes "
        "are refused.",
    )
    pause_monitor: bool = setting(
        "jvm.pause.monitor",
        BOOL,
        False,
        "Watch for pauses of the whole server.",
        note="The event loops are watched, always; true also logs.",
    )
    pause_sleep_time: int = setting(
        "jvm.pause.sleep.time.ms",
        MS,
        500,
        "How often it is looked for pauses.",
        minimum=1,
        note="Of the event loops.",
    )
    pause_info_threshold: int = setting(
        "jvm.pause.info-threshold.ms",
        MS,
        1000,
        "A pause that is logged as information.",
        minimum=1,
        note="Of the event loops.",
    )
    pause_warn_threshold: int = setting(
        "jvm.pause.warn-threshold.ms",
        MS,
        10_000,
        "A pause that is logged as a warning.",
        minimum=1,
        note="Of the event loops.",
    )
