"""The text format, as the documentation of java.util.Properties.load has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkd.config.properties import decode, parse


def pairs(text: str) -> list[tuple[str, str]]:
    entries, bad = parse(text)
    assert not bad
    return [(entry.key, entry.value) for entry in entries]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", [("a", "b")]),
        ("a:b", [("a", "b")]),
        ("a b", [("a", "b")]),
        ("a\tb", [("a", "b")]),
        ("a\fb", [("a", "b")]),
        ("  a  =  b  ", [("a", "b  ")]),
        ("a = = b", [("a", "= b")]),
        ("a  :=b", [("a", "=b")]),
        ("a", [("a", "")]),
        ("a=", [("a", "")]),
        ("=b", [("", "b")]),
        ("a\\ b=c", [("a b", "c")]),
        ("a\\=b=c", [("a=b", "c")]),
        ("a\\:b:c", [("a:b", "c")]),
        ("# a=b\n! c=d\n  # e=f\n\n \t\n", []),
        ("a=b # no comment", [("a", "b # no comment")]),
        ("a=b\\\n   c", [("a", "bc")]),
        ("a=b\\\n# c", [("a", "b# c")]),
        ("a=b\\\\\nc=d", [("a", "b\\"), ("c", "d")]),
        ("a=b\\\\\\\nc=d", [("a", "b\\c=d")]),
        ("# comment \\\na=b", [("a", "b")]),
        ("a=b\\", [("a", "b")]),
        ("\\\n\na=b", [("a", "b")]),
        ("a=b\r\nc=d\re=f\n", [("a", "b"), ("c", "d"), ("e", "f")]),
        ("a=b\\\r\n  c", [("a", "bc")]),
        ("a=\\t\\n\\r\\f\\q\\\\", [("a", "\t\n\r\fq\\")]),
        ("a=\\u00e9\\u0041", [("a", "éA")]),
        ("\\u0061=b", [("a", "b")]),
        ("a=\\ud83d\\ude00", [("a", "\U0001f600")]),
        ("a=b\vc\x85d", [("a", "b\vc\x85d")]),
        ("a=1\na=2", [("a", "1"), ("a", "2")]),
    ],
)
def test_text_is_read_as_java_does(text: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(text) == expected


def test_an_entry_knows_the_line_on_which_it_starts() -> None:
    entries, _ = parse("# x\na=1\\\n2\\\n3\nb=2\n")
    assert [(entry.key, entry.value, entry.line) for entry in entries] == [
        ("a", "123", 2),
        ("b", "2", 5),
    ]


@pytest.mark.parametrize("text", ["a=\\u12", "a=\\u12g4", "a=\\u", "a=\\u-123", "a=\\u+123"])
def test_a_malformed_unicode_escape_is_told_with_its_line(text: str) -> None:
    entries, bad = parse("x=y\n" + text)
    assert [entry.key for entry in entries] == ["x"]
    assert [fault.line for fault in bad] == [2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a=\xc3\xa9", "a=é"),
        (b"a=\xe9", "a=é"),
        (b"\xef\xbb\xbfa=b", "a=b"),
    ],
)
def test_bytes_are_utf8_if_they_can_be(data: bytes, text: str) -> None:
    assert decode(data) == text


def escaped(text: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _units(text))


def _units(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text())
def test_whatever_is_escaped_comes_back(key: str, value: str) -> None:
    value = value.encode("utf-8", "replace").decode()
    assert pairs(f"{escaped(key)}={escaped(value)}") == [(key, value)]


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    parse(decode(data))
