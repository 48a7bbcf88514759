"""Types of configuration values: how text becomes a value, and how a value is shown.

A `Kind` reads text into a value and raises ValueError with a sentence for a person; what Apache
ZooKeeper would read differently or silently comes back as a remark beside the value. Units:
durations are int milliseconds and sizes int bytes, whatever unit the key's bare number has there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_TIMES: Mapping[str, int] = {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_SIZES: Mapping[str, int] = {"b": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*([A-Za-z]*)")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Read:
    """A value, and a remark if the text is doubtful."""

    value: Any
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` is for documents; `read` raises ValueError; `show` gives text that `read` accepts."""

    name: str
    read: Callable[[str], Read]
    show: Callable[[Any], str]


def _plain(text: str) -> Read:
    return Read(text)


def _strict_bool(text: str) -> Read:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ValueError(f"'{text}' is neither true nor false")
    return Read(lowered == "true")


def _loose_bool(text: str) -> Read:
    lowered = text.lower()
    if lowered in ("true", "false"):
        return Read(lowered == "true")
    return Read(False, f"'{text}' is neither true nor false; it is read as false")


def _yes_no(decisive: str) -> Callable[[str], Read]:
    """Apache ZooKeeper compares with `decisive` alone: any other word is its opposite."""

    def read(text: str) -> Read:
        if text in ("yes", "no"):
            return Read(text == "yes")
        word = "no" if decisive == "yes" else "yes"
        return Read(word == "yes", f"'{text}' is neither yes nor no; it is read as {word}")

    return read


def _number(text: str, units: Mapping[str, int], bare: int, what: str) -> Read:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise ValueError(f"'{text}' is not {what}")
    digits, suffix = match.groups()
    scale = bare
    if suffix:
        unit = suffix.lower()
        if units is _SIZES and len(unit) > 1:
            unit = unit.removesuffix("ib").removesuffix("b")
        if unit not in units:
            raise ValueError(f"'{suffix}' in '{text}' is not one of the units {', '.join(units)}")
        scale = units[unit]
    if "." not in digits:
        # A negative number switches something off; scaling it would hide that.
        value = int(digits)
        return Read(value if value < 0 else value * scale)
    if not suffix:
        raise ValueError(f"'{text}' is not {what}")
    return Read(round(float(digits) * scale))


def _integer(text: str) -> Read:
    if re.fullmatch(r"[+-]?\d+", text):
        return Read(int(text))
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", text):
        return Read(int(text, 16))
    raise ValueError(f"'{text}' is not a whole number")


def _real(text: str) -> Read:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"'{text}' is not a finite number")
    return Read(value)


def _path(text: str) -> Read:
    if not text:
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("the path holds a NUL")
    return Read(Path(text))


def _words(text: str) -> Read:
    return Read(tuple(word.strip() for word in text.split(",") if word.strip()))


def _networks(text: str) -> Read:
    try:
        return Read(tuple(ip_network(word.strip()) for word in text.split(",") if word.strip()))
    except ValueError as error:
        raise ValueError(f"not a list of networks such as 10.0.0.0/8: {error}") from None


def _show_bool(value: Any) -> str:
    return "true" if value else "false"


def _show_yes_no(value: Any) -> str:
    return "yes" if value else "no"


def _show_words(value: Any) -> str:
    return ",".join(str(word) for word in value)


def show_ms(value: Any) -> str:
    """Milliseconds with the largest unit that divides them: 60000 -> 1m, 1500 -> 1500ms."""
    ms = int(value)
    if ms <= 0:
        return str(ms)
    for suffix, scale in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if ms % scale == 0:
            return f"{ms // scale}{suffix}"
    return f"{ms}ms"


def show_bytes(value: Any) -> str:
    """Bytes with the largest unit that divides them: 1048576 -> 1MB, 1048575 -> 1048575."""
    size = int(value)
    if size <= 0:
        return str(size)
    for suffix, scale in (("GB", GIB), ("MB", MIB), ("KB", KIB)):
        if size % scale == 0:
            return f"{size // scale}{suffix}"
    return str(size)


TEXT = Kind("text", _plain, str)
SECRET = Kind("secret text", _plain, lambda value: "***" if value else "")
BOOL = Kind("true/false", _strict_bool, _show_bool)
FLAG = Kind("true/false", _loose_bool, _show_bool)
YES_NO = Kind("yes/no", _yes_no("yes"), _show_yes_no)
YES_UNLESS_NO = Kind("yes/no", _yes_no("no"), _show_yes_no)
INT = Kind("number", _integer, str)
REAL = Kind("real number", _real, str)
PATH = Kind("path", _path, str)
WORDS = Kind("list", _words, _show_words)
NETWORKS = Kind("networks", _networks, _show_words)


def duration(bare: str = "ms") -> Kind:
    """A time; a number without unit counts `bare` units. The value is int milliseconds."""

    def read(text: str) -> Read:
        return _number(text, _TIMES, _TIMES[bare], "a duration such as 500ms, 10s or 2h")

    return Kind(f"duration ({bare})", read, show_ms)


def size(bare: str = "b") -> Kind:
    """A size; a number without unit counts `bare` units (b, k, m). The value is int bytes."""

    def read(text: str) -> Read:
        return _number(text, _SIZES, _SIZES[bare], "a size such as 4096, 64KB or 1GB")

    shown = {"b": "bytes", "k": "KB", "m": "MB"}[bare]

    def show(value: Any) -> str:
        text = show_bytes(value)
        return f"{text}B" if bare != "b" and text.isdigit() and text != "0" else text

    return Kind(f"size ({shown})", read, show)


MS = duration()
BYTES = size()
KILOBYTES = size("k")


def choice(*words: str, aliases: Mapping[str, str] | None = None) -> Kind:
    """One of `words`, in any case; `aliases` (lowercase) name some of them differently."""
    known = {word.lower(): word for word in words}
    known.update(aliases or {})

    def read(text: str) -> Read:
        found = known.get(text.lower())
        if found is None:
            shown = ", ".join(word or "(empty)" for word in words)
            raise ValueError(f"'{text}' is not one of {shown}")
        return Read(found)

    return Kind("one of " + ", ".join(word or "(empty)" for word in words), read, str)
