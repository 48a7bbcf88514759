"""Finds plugins by their entry points and loads those that this process needs.

    found by metadata -> wanted by the configuration -> of a kind of this role -> imported

A plugin is imported only at the last step, so what the configuration switches off, and what
another process needs, is never imported here. Whatever a plugin does wrong ends as a `Refusal`
with its distribution and version, never as an exception; only an auth plugin that the
configuration names and that cannot serve is an OperatorError.

What the configuration wants:

- `plugins.disabled`: names of plugins that are never imported, `*` being a wild card (`auth.ip`,
  `observer.*`); it wins over all others;
- auth, observer, snapshot: all that are installed; `authProvider.X=plugin:NAME` (or a known class
  of Apache ZooKeeper's) says that `auth.NAME` must be there;
- metrics: those that `metrics.exporters` lists, and `metrics.prometheus` if
  `metricsProvider.className` says so;
- audit: with `audit.enable`, the one that `audit.impl.class=plugin:NAME` names, else `audit.log`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Generic, Literal, TypeVar

import pluggy

from zkd.errors import OperatorError
from zkd.plugins import hookspecs
from zkd.plugins.api import (
    ENTRY_POINT_GROUP,
    HOOKSPEC_VERSION,
    KINDS,
    PROJECT,
    AuditSink,
    AuthProvider,
    CommitObserver,
    Config,
    MetricsExporter,
    SnapshotFormat,
    flag,
)
from zkd.plugins.guard import Faults, Late, Source, described, run_limited

Role = Literal["frontend", "peer", "admin", "snapshot"]

KINDS_OF_ROLE: Final[dict[Role, tuple[str, ...]]] = {
    "frontend": ("auth", "audit"),
    "peer": ("auth",),
    "admin": ("observer", "metrics"),
    "snapshot": ("snapshot",),
}

IMPORT_LIMIT_S: Final = 10.0
"""How long one plugin's import and hook may take."""

JAVA_PROVIDERS: Final = {
    f"org.apache.zookeeper.server.auth.{java}": name
    for java, name in (
        ("DigestAuthenticationProvider", "digest"),
        ("IPAuthenticationProvider", "ip"),
        ("SASLAuthenticationProvider", "sasl"),
        ("X509AuthenticationProvider", "x509"),
        ("EnsembleAuthenticationProvider", "ensemble"),
        ("KeyAuthenticationProvider", "key"),
    )
}
"""Classes that `authProvider.N` may name in a zoo.cfg of Apache ZooKeeper's: their auth plugin."""

PROMETHEUS_PROVIDER: Final = "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """An object that a plugin gave, and whose it is."""

    source: Source
    item: T


@dataclass(frozen=True, slots=True)
class Refusal:
    """A plugin that is not used, and why, in one sentence."""

    source: Source
    reason: str


@dataclass(frozen=True, slots=True)
class Installed:
    """A plugin as its metadata shows it, not imported. `module`: the entry point's value."""

    source: Source
    kind: str
    module: str
    enabled: bool


@dataclass(slots=True)
class PluginSet:
    """What one process got from its plugins, shipped ones first, then by name."""

    auth: list[Loaded[AuthProvider]] = field(default_factory=list)
    observers: list[Loaded[CommitObserver]] = field(default_factory=list)
    snapshots: list[Loaded[SnapshotFormat]] = field(default_factory=list)
    exporters: list[Loaded[MetricsExporter]] = field(default_factory=list)
    sinks: list[Loaded[AuditSink]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)

    def of_kind(self, kind: str) -> list[Loaded[Any]]:
        lists: dict[str, list[Any]] = {
            "auth": self.auth,
            "observer": self.observers,
            "snapshot": self.snapshots,
            "metrics": self.exporters,
            "audit": self.sinks,
        }
        return lists[kind]


class _Refused(Exception):
    def __init__(self, what: str, reason: str, error: BaseException | None = None) -> None:
        super().__init__(reason)
        self.what = what
        self.reason = reason
        self.error = error


def installed(config: Config, points: Iterable[EntryPoint] | None = None) -> list[Installed]:
    """All plugins that are installed, shipped ones first, then by name; imports nothing."""
    return [plugin for plugin, _ in _found(config, points)]


def _found(
    config: Config, points: Iterable[EntryPoint] | None
) -> list[tuple[Installed, EntryPoint]]:
    if points is None:
        points = entry_points(group=ENTRY_POINT_GROUP)
    found = []
    for point in points:
        kind = point.name.partition(".")[0]
        enabled = _wanted(point.name, kind, config)
        found.append((Installed(_source(point), kind, point.value, enabled), point))
    return sorted(found, key=lambda pair: _rank(pair[0].source))


def _rank(source: Source) -> tuple[bool, str, str, str]:
    return not source.shipped, source.plugin, source.distribution, source.version


def _wanted(name: str, kind: str, config: Config) -> bool:
    if any(fnmatchcase(name, pattern) for pattern in _words(config.get("plugins.disabled", ""))):
        return False
    return kind not in ("metrics", "audit") or name in named(config)


def named(config: Config) -> dict[str, str]:
    """Exporters and audit sinks that the configuration names: plugin -> the key that names it."""
    found = {
        "metrics." + word.removeprefix("metrics."): "metrics.exporters"
        for word in _words(config.get("metrics.exporters", ""))
    }
    provider = config.get("metricsProvider.className", "").strip().lower()
    if provider in ("prometheus", PROMETHEUS_PROVIDER.lower()):
        found["metrics.prometheus"] = "metricsProvider.className"
    if flag(config, "audit.enable", False):
        sink = config.get("audit.impl.class", "").strip()
        name = sink.removeprefix("plugin:").strip() if sink.startswith("plugin:") else "log"
        found["audit." + name.removeprefix("audit.")] = "audit.impl.class"
    return found


def required_auth(config: Config) -> dict[str, str]:
    """The auth plugins that the configuration names: plugin -> the key that names it.

    Raises OperatorError for a class that zkd does not know.
    """
    required: dict[str, str] = {}
    for key, value in config.items():
        if not key.startswith("authProvider."):
            continue
        value = value.strip()
        if value.startswith("plugin:"):
            name = value.removeprefix("plugin:").strip().removeprefix("auth.")
        elif value in JAVA_PROVIDERS:
            name = JAVA_PROVIDERS[value]
        else:
            raise OperatorError(
                what=f"{value} is no authentication provider that zkd knows",
                where=key,
                mend="a Java class cannot run in zkd: install a plugin for its scheme and write "
                f"{key}=plugin:NAME, or remove the line",
            )
        required[f"auth.{name}"] = key
    return required


def check_required(config: Config, points: Iterable[EntryPoint] | None = None) -> None:
    """OperatorError unless each auth plugin that the configuration names is installed and enabled.

    By metadata alone: for the supervisor, before it forks, and for `zkd config check`.
    """
    found: dict[str, Installed] = {}
    for plugin in installed(config, points):
        found.setdefault(plugin.source.plugin, plugin)
    for name, key in required_auth(config).items():
        if name not in found:
            raise _missing(name, key, "it is not installed")
        if not found[name].enabled:
            raise _missing(name, key, "it is switched off by plugins.disabled")


def load(
    config: Config,
    role: Role,
    points: Iterable[EntryPoint] | None = None,
    *,
    limit_s: float = IMPORT_LIMIT_S,
) -> PluginSet:
    """Import the plugins of this role and ask their hooks. After the fork only.

    Raises OperatorError if an auth plugin that the configuration names cannot serve, and nothing
    else. `limit_s`: for the import and the hook of each plugin together.
    """
    points = list(entry_points(group=ENTRY_POINT_GROUP) if points is None else points)
    kinds = KINDS_OF_ROLE[role]
    plugins = PluginSet()
    taken: dict[str, Source] = {}
    for plugin, point in _found(config, points):
        if not plugin.enabled or (plugin.kind not in kinds and plugin.kind in KINDS):
            continue
        source = plugin.source
        try:
            if (other := taken.setdefault(source.plugin, source)) is not source:
                raise _Refused("hook", f"the name is taken by {other}")
            items = _load_one(point, plugin, config, limit_s)
        except _Refused as refused:
            plugins.refused.append(Refusal(source, refused.reason))
            plugins.faults.report(
                source, refused.what, f"is not used: {refused.reason}", refused.error
            )
            continue
        plugins.of_kind(plugin.kind).extend(Loaded(source, item) for item in items)
    for name, key in named(config).items():
        if name.partition(".")[0] in kinds and name not in taken:
            source = Source(name, "not installed", "-")
            plugins.refused.append(Refusal(source, f"{key} names it, but it is not there"))
            plugins.faults.report(source, "import", f"is named by {key}, but it is not there")
    if "auth" in kinds:
        _demand(config, plugins, points)
    return plugins


def _load_one(point: EntryPoint, plugin: Installed, config: Config, limit_s: float) -> list[object]:
    if plugin.kind not in KINDS or not _NAME.fullmatch(point.name.partition(".")[2]):
        raise _Refused(
            "hook",
            f"its entry point is named {point.name!r}, not KIND.NAME with KIND one of "
            + ", ".join(KINDS),
        )
    try:
        return run_limited(point.name, lambda: _ask(point, plugin.kind, config), limit_s)
    except _Refused:
        raise
    except Late as late:
        raise _Refused("late", f"import and hook {late}") from None
    except pluggy.PluginValidationError as error:
        raise _Refused("hook", " ".join(str(error).split()), None) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
        raise _Refused("import", described(error), error) from None


def _ask(point: EntryPoint, kind: str, config: Config) -> list[object]:
    """In the helper thread: import the module, hold it against the hooks, call its own, and look
    at what it answers."""
    hook = hookspecs.HOOK_OF_KIND[kind]
    module = point.load()
    version = getattr(module, "zkd_hookspec_version", HOOKSPEC_VERSION)
    if version != HOOKSPEC_VERSION:
        raise _Refused(
            "hook", f"it is written for hooks of version {version}, zkd has {HOOKSPEC_VERSION}"
        )
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, point.name)
    manager.check_pending()
    caller = getattr(manager.hook, hook)
    if not caller.get_hookimpls():
        raise _Refused("hook", f"it does not implement {hook}, the hook of its kind")
    return _checked(list(caller(config=config)), kind, hook)


def _checked(answers: list[object], kind: str, hook: str) -> list[object]:
    cls = hookspecs.CLASS_OF_KIND[kind]
    items: list[object] = []
    for answer in answers:
        if not isinstance(answer, (list, tuple)):
            raise _Refused("rubbish", f"{hook} returned {_short(answer)}, not a list")
        for item in answer:
            if not isinstance(item, cls):
                raise _Refused("rubbish", f"{hook} returned {_short(item)}, no {cls.__name__}")
            name = getattr(item, "scheme" if kind == "auth" else "name", None)
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                word = "scheme" if kind == "auth" else "name"
                raise _Refused("rubbish", f"{type(item).__name__}.{word} is {_short(name)}")
            items.append(item)
    return items


def _demand(config: Config, plugins: PluginSet, points: Iterable[EntryPoint]) -> None:
    check_required(config, points)
    serving = {loaded.source.plugin for loaded in plugins.auth}
    reasons = {refusal.source.plugin: refusal.reason for refusal in plugins.refused}
    for name, key in required_auth(config).items():
        if name not in serving:
            raise _missing(name, key, reasons.get(name, "it offers no scheme as it is configured"))


def _missing(name: str, key: str, why: str) -> OperatorError:
    return OperatorError(
        what=f"auth plugin {name} cannot serve: {why}",
        where=key,
        mend="install or repair the plugin in the environment that zkd runs from "
        "(`zkd plugins` lists what is there), or remove the line",
    )


def _source(point: EntryPoint) -> Source:
    dist = point.dist
    name = dist.name if dist is not None else "unknown distribution"
    version = dist.version if dist is not None else "?"
    return Source(point.name, name, version, shipped=name == "zkd")


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _short(value: object, of: Callable[[object], str] = repr) -> str:
    try:
        text = of(value)
    except Exception:  # noqa: BLE001  a plugin's __repr__
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."
