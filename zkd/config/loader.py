"""Reading a configuration: files in, a `Config` out, or everything that is wrong with it.

This is the only module of `zkd.config` that opens files: the configuration, its dynamic file and
dataDir/myid. It creates nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from zkd.config import reader, resolve
from zkd.config.findings import ConfigError, Finding, Level
from zkd.config.model import Config
from zkd.config.reader import COMMAND_LINE, Given, Settings
from zkd.config.servers import Membership, ServerLine
from zkd.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Examination:
    """`config` is None if there are errors; `raw` and `where`: text and place of each set key."""

    config: Config | None
    findings: tuple[Finding, ...]
    raw: Mapping[str, str]
    where: Mapping[str, str]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level is Level.ERROR)


def load(
    path: str | Path | None, overrides: Mapping[str, str] | None = None, *, strict: bool = False
) -> Config:
    """The configuration of a file (None: a standalone server on loopback), overrides on top.

    `strict` refuses unknown keys. Raises ConfigError (an OperatorError) that tells all faults.
    """
    examined = examine(path, overrides, strict=strict)
    if examined.config is None:
        raise ConfigError(examined.errors, str(path or COMMAND_LINE))
    return examined.config


def examine(
    path: str | Path | None, overrides: Mapping[str, str] | None = None, *, strict: bool = False
) -> Examination:
    """Read everything and find all faults. Raises OperatorError only if the file is unreadable."""
    source = Path(path) if path is not None else None
    lines: list[Given] = []
    findings: list[Finding] = []
    if source is not None:
        lines, findings = reader.given(_bytes(source), source)
    told = [Given(name, text, COMMAND_LINE) for name, text in (overrides or {}).items()]
    settings = reader.read(lines, told)
    settings.findings[:0] = findings
    config = _build(settings, source)
    found = tuple(map(_refused, settings.findings)) if strict else tuple(settings.findings)
    if any(finding.level is Level.ERROR for finding in found):
        config = None
    if config is not None:
        config = dataclasses.replace(config, warnings=found)
    return Examination(config, found, settings.raw, settings.where)


def _refused(finding: Finding) -> Finding:
    if finding.what.startswith("unknown key "):
        return dataclasses.replace(finding, level=Level.ERROR)
    return finding


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        mend = "name a file that exists and may be read"
        raise OperatorError(f"cannot be read: {error.strerror}", str(path), mend) from error


def _build(settings: Settings, source: Path | None) -> Config | None:
    values = settings.values
    if source is None:
        resolve.without_file(values)
    resolve.fill_in(settings, source, os.environ)
    membership = _membership(settings)
    my_id = _my_id(settings) if membership.servers else None
    standalone = values.get("standalone_enabled", True)
    distributed = resolve.check_membership(
        settings, membership, standalone_enabled=standalone, my_id=my_id
    )
    mine = membership.servers.get(my_id) if my_id is not None else None
    has_address = mine is not None and (mine.client or mine.secure_client) is not None
    resolve.check(settings, distributed, has_address)
    listening = _listening(settings, mine)
    if any(finding.level is Level.ERROR for finding in settings.findings):
        return None
    return Config(
        **_arguments(values),
        source=source.absolute() if source else None,
        raw=MappingProxyType(_raw(settings)),
        membership=membership,
        my_id=my_id,
        distributed=distributed,
        **listening,
    )


def _raw(settings: Settings) -> dict[str, str]:
    """The texts for plugins, which know no defaults: the folders are always there, absolute."""
    folders = {
        "dataDir": str(settings.values["data_dir"]),
        "dataLogDir": str(settings.values["data_log_dir"]),
    }
    return {**settings.raw, **folders}


def _arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by attribute, those of nested groups gathered into their dataclass."""
    arguments: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for attribute, value in values.items():
        outer, dot, inner = attribute.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
        else:
            arguments[attribute] = MappingProxyType(value) if isinstance(value, dict) else value
    for field in dataclasses.fields(Config):
        if field.name in nested:
            arguments[field.name] = field.metadata["group"](**nested[field.name])
    return arguments


def _membership(settings: Settings) -> Membership:
    dynamic: Path | None = settings.values.get("dynamic_config_file")
    if dynamic is None:
        return reader.membership(settings, settings.dynamic)
    for line in settings.dynamic:
        what = f"{line.name} must stand in the file that dynamicConfigFile names"
        settings.add(Level.ERROR, line.name, what, f"move the line to {dynamic}", line.where)
    try:
        data = _bytes(dynamic)
    except OperatorError as error:
        settings.add(Level.ERROR, "dynamicConfigFile", f"{error.where} {error.what}", error.mend)
        return Membership()
    lines, findings = reader.given(data, dynamic)
    settings.findings.extend(findings)
    for line in lines:
        if not reader.is_dynamic(line.name):
            what = f"{line.name} may not stand in a dynamic file"
            settings.add(Level.ERROR, line.name, what, "move the line to the main file", line.where)
        elif line.name == "version":
            what = "the file's name tells the version of a dynamic file, not a line"
            settings.add(Level.WARNING, "version", what, "remove the line", line.where)
    wanted = [line for line in lines if reader.is_dynamic(line.name)]
    return reader.membership(settings, wanted, version=version_of(dynamic))


def version_of(dynamic: Path) -> int:
    """The hexadecimal ending of a dynamic file's name, 0 without one: zoo.cfg.dynamic.1a -> 26."""
    try:
        return int(dynamic.name.rpartition(".")[2], 16)
    except ValueError:
        return 0


def _my_id(settings: Settings) -> int | None:
    folder: Path | None = settings.values.get("data_dir")
    if folder is None:
        return None
    path = folder / "myid"
    try:
        text = path.read_text("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        settings.add(Level.ERROR, "myid", f"cannot be read: {error.strerror}", where=str(path))
        return None
    first = text.splitlines()[0].strip() if text.strip() else ""
    if not first.isdigit():
        what = f"'{first}' is not the number of a server"
        mend = "write the number of this server's line into it"
        settings.add(Level.ERROR, "myid", what, mend, str(path))
        return None
    return int(first)


def _listening(settings: Settings, mine: ServerLine | None) -> dict[str, Any]:
    """Addresses of the client ports: the server's line wins, and must not contradict the keys."""
    values = settings.values
    out: dict[str, Any] = {}
    for prefix, key, attribute, endpoint in (
        ("listen", "clientPort", "client_port", mine.client if mine else None),
        (
            "secure_listen",
            "secureClientPort",
            "secure_client_port",
            mine.secure_client if mine else None,
        ),
    ):
        address: str = values.get(f"{attribute}_address", "")
        port: int = values.get(attribute, -1)
        if endpoint is not None and mine is not None:
            open_to_all = address in ("", "0.0.0.0", "::")
            if port != -1 and (
                port != endpoint.port or (not open_to_all and address != endpoint.host)
            ):
                what = f"{key} says {address or '*'}:{port}, line server.{mine.id} says {endpoint}"
                settings.add(Level.ERROR, key, what, f"remove {key} and {key}Address")
            address, port = endpoint.host, endpoint.port
        out[f"{prefix}_address"], out[f"{prefix}_port"] = address, port
    return out
