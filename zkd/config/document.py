"""The table of keys as text: for docs/configuration.md and for the sample conf/standalone.cfg."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from zkd.config import keys
from zkd.config.explain import what_zkd_does
from zkd.config.key import Action, Key
from zkd.config.pending import is_pending

_WIDTH = 96
_SAMPLE_HEAD = """\
# A standalone zkd server: zkd serve standalone.cfg
#
# The format is Apache ZooKeeper's zoo.cfg. Every key is listed here with its meaning; a line that
# is commented out shows the default. Durations take ms, s, m, h or d, sizes KB, MB or GB. To see
# what a file means: zkd config check FILE.
"""
_SAMPLE_SET = {
    "dataDir": "/var/lib/zkd",
    "clientPort": "2181",
    "tickTime": "2000",
}
_SECTIONS_LEFT_OUT = frozenset(("Inside of the Java server",))


def markdown() -> str:
    """All keys, a table for each section."""
    parts: list[str] = []
    for section, rows in _sections():
        parts.append(f"### {section}\n")
        parts.append("| key | default | meaning | zkd |\n|---|---|---|---|")
        parts += [_markdown_row(key) for key in rows]
        parts.append("")
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, list[Key]]]:
    for section, rows in groupby(keys.TABLE, key=lambda key: key.section):
        yield section, list(rows)


def _markdown_row(key: Key) -> str:
    names = " ".join(f"`{name}`" for name in (key.name, *key.aliases))
    default = key.shown_default() if key.action is not Action.IGNORE else ""
    if key.apache:
        default += f" (Apache ZooKeeper: {key.apache})"
    zkd = what_zkd_does(key)
    if key.reloadable and not is_pending(key):
        zkd = f"{zkd.rstrip('.')}; reloadable"
    cells = (names, default, f"{key.help} {_type(key)}".strip(), zkd)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(key: Key) -> str:
    return "" if key.action in (Action.IGNORE, Action.REFUSE) else f"({key.kind.name})"


def differences() -> list[Key]:
    """The keys whose default is not Apache ZooKeeper's."""
    return [key for key in keys.TABLE if key.apache]


def sample() -> str:
    """A configuration of a standalone server in which every applied key is explained."""
    parts = [_SAMPLE_HEAD]
    for section, rows in _sections():
        if section in _SECTIONS_LEFT_OUT:
            continue
        parts.append(f"\n# ---- {section}\n")
        parts += [_sample_key(key) for key in rows if key.action is not Action.IGNORE]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def _sample_key(key: Key) -> str:
    words = key.help
    if key.note:
        words += f" {key.note}"
    if key.default_text or key.name in _SAMPLE_SET:
        words += f" Default: {key.shown_default()}."
    comment = textwrap.fill(
        words,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    if key.name in _SAMPLE_SET:
        return f"\n{comment}\n{key.name}={_SAMPLE_SET[key.name]}"
    value = "" if key.default_text or key.default is None else key.kind.show(key.default)
    return f"\n{comment}\n#{key.name}={value}"
