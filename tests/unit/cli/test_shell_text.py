"""The shell's forms: command lines, options, paths, ACLs, dumps, errors, as zkCli has them."""

from __future__ import annotations

import pytest
from kazoo.security import ACL, Id

from zkd.cli.shell_text import (
    Arguments,
    ShellError,
    check_path,
    code_message,
    data_object,
    explain,
    hex_dump,
    hexadecimal,
    parse_acl,
    permissions,
    split,
)
from zkd.cli.zkclient import ZkError


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("get /a", ["get", "/a"]),
        ("  set   /a  'two words' ", ["set", "/a", "two words"]),
        ('create /a "it\'s" acl', ["create", "/a", "it's", "acl"]),
        ("create /a ''", ["create", "/a", ""]),
        ("set /a x'y z'", ["set", "/a", "x'y", "z'"]),
        ("", []),
    ],
)
def test_a_line_is_split_as_zkcli_splits_it(line: str, words: list[str]) -> None:
    assert split(line) == words


OPTIONS = {"s": False, "w": False, "R": False, "v": True, "file": True}


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (["/a", "-s"], {"s": ""}, ["/a"]),
        (["-sw", "/a"], {"s": "", "w": ""}, ["/a"]),
        (["-v", "3", "/a"], {"v": "3"}, ["/a"]),
        (["-v3", "/a"], {"v": "3"}, ["/a"]),
        (["-v=3", "/a"], {"v": "3"}, ["/a"]),
        (["-v", "-1"], {"v": "-1"}, []),
        (["-file", "x"], {"file": "x"}, []),
        (["/a", "-1"], {}, ["/a", "-1"]),
        (["--", "-s"], {}, ["-s"]),
        (["-"], {}, ["-"]),
    ],
)
def test_options_may_stand_anywhere(
    given: list[str], options: dict[str, str], words: list[str]
) -> None:
    arguments = Arguments(given, OPTIONS)
    assert (arguments.options, arguments.words) == (options, words)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["-x"], "Unrecognized option: -x"),
        (["-sx"], "Unrecognized option: -sx"),
        (["-s=1"], "Unrecognized option: -s"),
        (["-v"], "Missing argument for option: v"),
    ],
)
def test_wrong_options_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(ShellError, match=f"^{message}$"):
        Arguments(given, OPTIONS)


def test_an_option_that_must_be_a_number() -> None:
    arguments = Arguments(["-v", "x"], OPTIONS)
    with pytest.raises(ShellError, match="-v argument must be an int value"):
        arguments.number("v", -1, "-v argument must be an int value")
    assert Arguments([], OPTIONS).number("v", -1, "") == -1


@pytest.mark.parametrize("path", ["/", "/a", "/a/b.c", "/.a", "/...", "/ä/日本"])
def test_good_paths(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "Path length must be > 0"),
        ("a", "Path must start with / character"),
        ("/a/", "Path must not end with / character"),
        ("//a", 'Invalid path string "//a" caused by empty node name specified @1'),
        ("/a//b", 'Invalid path string "/a//b" caused by empty node name specified @3'),
        ("/a/../b", 'Invalid path string "/a/../b" caused by relative paths not allowed @4'),
        ("/a/.", 'Invalid path string "/a/." caused by relative paths not allowed @3'),
        ("/a\0", 'Invalid path string "/a\0" caused by null character not allowed @2'),
        ("/\x1f", 'Invalid path string "/\x1f" caused by invalid character @1'),
        ("/\ue000", 'Invalid path string "/\ue000" caused by invalid character @1'),
        ("/\U0001f600", 'Invalid path string "/\U0001f600" caused by invalid character @1'),
    ],
)
def test_bad_paths_are_refused_in_apaches_words(path: str, message: str) -> None:
    with pytest.raises(ShellError) as refused:
        check_path(path)
    assert refused.value.message == message


def test_acls() -> None:
    acl, complaints = parse_acl("world:anyone:cdrwa,digest:bob:hash=:r,ip:::1:rx,nothing")
    assert acl == [
        ACL(31, Id("world", "anyone")),
        ACL(1, Id("digest", "bob:hash=")),
        ACL(1, Id("ip", "::1")),
    ]
    assert complaints == ["Unknown perm type: x", "nothing does not have the form scheme:id:perm"]
    assert permissions(31) == "cdrwa"
    assert permissions(3) == "rw"


def test_hex_dump() -> None:
    assert hex_dump(b"zkd\n" + bytes(range(0x61, 0x6E))).splitlines() == [
        "         +-------------------------------------------------+",
        "         |  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |",
        "+--------+-------------------------------------------------+----------------+",
        "|00000000| 7a 6b 64 0a 61 62 63 64 65 66 67 68 69 6a 6b 6c |zkd.abcdefghijkl|",
        "|00000010| 6d                                              |m               |",
        "+--------+-------------------------------------------------+----------------+",
    ]
    assert hex_dump(b"") == ""


def test_errors_in_zkclis_words() -> None:
    assert explain(ZkError(-101, "/a")) == "Node does not exist: /a"
    assert explain(ZkError(-8, None)) == "Arguments are not valid : null"
    assert explain(ZkError(-4, "/a")) == "KeeperErrorCode = ConnectionLoss for /a"
    assert code_message(ZkError(-114, "/a")) == "KeeperErrorCode = InvalidACL for /a"
    assert code_message(ZkError(-999, None)) == "KeeperErrorCode = Unknown error -999"


def test_values_for_json() -> None:
    assert data_object(None) == {"data": None}
    assert data_object("ä".encode()) == {"data": "ä"}
    assert data_object(b"\xff") == {"data_base64": "/w=="}
    assert hexadecimal(-1) == "0xffffffffffffffff"
