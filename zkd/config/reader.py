"""From properties to typed values: which key each line is, and whether its value is one.

Pure: the caller brings text and gets values by attribute, the dynamic lines and the findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zkd.config import keys, properties
from zkd.config.findings import Finding, Level
from zkd.config.key import Action, Key
from zkd.config.servers import (
    Membership,
    ServerLine,
    parse_group,
    parse_server,
    parse_version,
    parse_weight,
)

COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Given:
    """One key with its text; `where` is `file:line` or `command line`."""

    name: str
    text: str
    where: str


@dataclass(slots=True)
class Settings:
    """What was given, before defaults: values by attribute, text and place by the table's name."""

    values: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    dynamic: list[Given] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: Level, key: str, what: str, mend: str = "", where: str = "") -> None:
        place = where or self.where.get(key, "")
        self.findings.append(Finding(level, key, what, place, mend))


def given(data: bytes, source: Path) -> tuple[list[Given], list[Finding]]:
    """The properties of a file's bytes, trimmed as Apache ZooKeeper does."""
    text = properties.decode(data)
    entries, bad = properties.parse(text)
    findings = [
        Finding(Level.ERROR, "", fault.what, f"{source}:{fault.line}", "write \\\\ for a backslash")
        for fault in bad
    ]
    if not text.isascii():
        what = "characters outside ASCII; Apache ZooKeeper reads them as ISO-8859-1, zkd as UTF-8"
        findings.append(Finding(Level.NOTE, "", what, str(source)))
    lines = [
        Given(entry.key.strip(), entry.value.strip(), f"{source}:{entry.line}") for entry in entries
    ]
    return lines, findings


def is_dynamic(name: str) -> bool:
    """Whether a key belongs to the membership: server.1, group.2, weight.3, version."""
    head, _, number = name.partition(".")
    return name == "version" or (head in ("server", "group", "weight") and number.isdigit())


def read(lines: Iterable[Given], overrides: Iterable[Given] = ()) -> Settings:
    """Interpret all lines; a later duplicate wins, an override wins over every line."""
    settings = Settings()
    for line in lines:
        _take(settings, line, overriding=False)
    for line in overrides:
        _take(settings, line, overriding=True)
    return settings


def _take(settings: Settings, line: Given, *, overriding: bool) -> None:
    if is_dynamic(line.name):
        settings.dynamic.append(line)
        return
    key = keys.find(line.name)
    if key is None:
        near = keys.nearest(line.name)
        mend = f"did you mean {near}?" if near else "remove it"
        settings.add(Level.WARNING, line.name, f"unknown key {line.name}", mend, line.where)
        return
    if key.action is Action.IGNORE:
        what = f"{line.name} has no effect: {key.note}"
        settings.add(Level.NOTE, key.name, what, where=line.where)
        settings.raw[line.name] = line.text
        settings.where[line.name] = line.where
        return
    if key.action is Action.REFUSE:
        what = f"{line.name} cannot be used: {key.help} {key.note}"
        settings.add(Level.ERROR, key.name, what, "remove the key", line.where)
        return
    name = line.name.removeprefix(keys.PREFIX) if key.is_pattern else key.name
    if name in settings.raw and not overriding:
        what = f"{name} is set twice; this line wins over {settings.where[name]}"
        settings.add(Level.WARNING, name, what, "remove one of them", line.where)
    settings.raw[name] = line.text
    settings.where[name] = line.where
    _assign(settings, key, name, line)


def _assign(settings: Settings, key: Key, name: str, line: Given) -> None:
    try:
        value = _value(settings, key, line)
    except ValueError as error:
        what = f"{name}: {error}"
        mend = f"a {key.kind.name} is expected: {key.help}"
        settings.add(Level.ERROR, name, what, mend, line.where)
        return
    if key.is_pattern:
        settings.values.setdefault(key.attribute, {})[name[len(key.name) - 1 :]] = value
    else:
        settings.values[key.attribute] = value


def _value(settings: Settings, key: Key, line: Given) -> Any:
    got = key.kind.read(line.text)
    if got.remark:
        settings.add(Level.WARNING, key.name, f"{key.name}: {got.remark}", where=line.where)
    value = got.value
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if key.special is not None and value == key.special:
        return value
    bounded = value
    if key.minimum is not None and value < key.minimum:
        bounded = type(value)(key.minimum if key.special is None else key.special)
    if key.maximum is not None and value > key.maximum:
        bounded = type(value)(key.maximum)
    if bounded != value:
        limits = _limits(key)
        if not key.clamp:
            raise ValueError(f"'{line.text}' is not {limits}")
        what = f"{key.name}: '{line.text}' is not {limits}; taken as {key.kind.show(bounded)}"
        settings.add(Level.WARNING, key.name, what, where=line.where)
    return bounded


def _limits(key: Key) -> str:
    show = key.kind.show
    parts = []
    if key.minimum is not None:
        parts.append(f"at least {show(key.minimum)}")
    if key.maximum is not None:
        parts.append(f"at most {show(key.maximum)}")
    if key.special is not None:
        parts.append(f"or {show(key.special)}")
    return " ".join(parts)


def membership(settings: Settings, lines: Iterable[Given], *, version: int = 0) -> Membership:
    """The server, group and weight lines; faults go to the findings."""
    several = bool(settings.values.get("multi_address_enabled", False))
    servers: dict[int, ServerLine] = {}
    groups: dict[int, tuple[int, ...]] = {}
    weights: dict[int, int] = {}
    for line in lines:
        head, _, number = line.name.partition(".")
        try:
            if head == "server":
                servers[int(number)] = parse_server(int(number), line.text, multi_address=several)
            elif head == "group":
                groups[int(number)] = parse_group(line.text)
            elif head == "weight":
                weights[int(number)] = parse_weight(line.text)
            else:
                version = parse_version(line.text)
        except ValueError as error:
            settings.add(Level.ERROR, line.name, f"{line.name}: {error}", where=line.where)
    return Membership(_sorted(servers), _sorted(groups), _sorted(weights), version)


def _sorted(mapping: dict[int, Any]) -> Mapping[int, Any]:
    return dict(sorted(mapping.items()))
