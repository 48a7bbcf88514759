"""Java properties text, as `java.util.Properties.load` reads it.

A natural line is ended by LF, CR or CRLF; a backslash before the end of a line joins the next one,
whose leading blanks fall away. `#` and `!` as the first character that is not blank make a
comment, which never continues. The key ends at the first unescaped `=`, `:` or blank. Nothing here
knows what a key means.

Two deviations from Java, both of which only widen what is read: bytes that are valid UTF-8 are
read as UTF-8 (Java: always ISO-8859-1), and a byte order mark at the start is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_BLANKS = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One property; `line` is the number (from 1) of the natural line on which it starts."""

    key: str
    value: str
    line: int


class BadProperty(ValueError):
    """An escape that Java refuses. `line` as in `Entry`."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


def decode(data: bytes) -> str:
    """The text of a file: UTF-8 if it is valid, otherwise ISO-8859-1 (which always is)."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("iso-8859-1")


def parse(text: str) -> tuple[list[Entry], list[BadProperty]]:
    """All properties in the order of the text, and the lines that cannot be read."""
    entries: list[Entry] = []
    bad: list[BadProperty] = []
    for line, logical in _logical_lines(text):
        try:
            entries.append(_entry(logical, line))
        except BadProperty as error:
            bad.append(error)
    return entries, bad


def _natural_lines(text: str) -> Iterator[str]:
    """Lines ended by LF, CR or CRLF only (str.splitlines knows more ends than Java)."""
    return iter(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    joined: str | None = None
    start = 0
    for number, natural in enumerate(_natural_lines(text), 1):
        line = natural.lstrip(_BLANKS)
        if joined is None:
            if not line or line[0] in "#!":
                continue
            joined, start = "", number
        if _ends_in_odd_backslashes(line):
            joined += line[:-1]
            continue
        if joined + line:
            yield start, joined + line
        joined = None
    if joined:
        yield start, joined


def _ends_in_odd_backslashes(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _entry(logical: str, line: int) -> Entry:
    end = _key_end(logical)
    rest = logical[end:].lstrip(_BLANKS)
    if rest and rest[0] in "=:":
        rest = rest[1:].lstrip(_BLANKS)
    return Entry(_unescape(logical[:end], line), _unescape(rest, line), line)


def _key_end(logical: str) -> int:
    escaped = False
    for position, char in enumerate(logical):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "=:" or char in _BLANKS:
            return position
    return len(logical)


def _unescape(text: str, line: int) -> str:
    if "\\" not in text:
        return text
    out: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char != "\\":
            out.append(char)
            continue
        if position == len(text):
            break
        char = text[position]
        position += 1
        if char == "u":
            out.append(_unicode(text[position : position + 4], line))
            position += 4
        else:
            out.append(_ESCAPES.get(char, char))
    return _join_surrogates("".join(out))


def _unicode(digits: str, line: int) -> str:
    if len(digits) != 4 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
        raise BadProperty(f"\\u{digits} is not an escape of four hexadecimal digits", line)
    return chr(int(digits, 16))


def _join_surrogates(text: str) -> str:
    r"""`\ud83d\ude00` is one character in Java; a lone half becomes the replacement character."""
    if text.isascii():
        return text
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "replace")
