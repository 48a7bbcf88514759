"""The shell's own commands: those that need no server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zkd.cli.shell_commands import client_config
from zkd.cli.shell_quota import format_track, parse_track
from zkd.cli.shell_session import Quit, Shell, names, run_lines, usage
from zkd.cli.shell_text import ShellError
from zkd.cli.zkclient import Client, Event


def no_connection(hosts: str, listener: Callable[[Event], None]) -> Client:
    raise AssertionError(f"connected to {hosts}")


@pytest.fixture
def shell() -> Shell:
    return Shell("localhost:2181", no_connection)


def test_history_numbers_the_lines(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    run_lines(shell, ["printwatches", "printwatches off", "printwatches", "history"])
    assert capsys.readouterr().out.splitlines() == [
        "printwatches is on",
        "printwatches is off",
        "0 - printwatches",
        "1 - printwatches off",
        "2 - printwatches",
        "3 - history",
    ]


def test_history_shows_eleven_lines(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    run_lines(shell, [f"printwatches {'on'}"] * 20 + ["history"])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "10 - printwatches on"
    assert shown[-1] == "20 - history"


def test_redo_runs_a_line_again_and_takes_its_place(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    run_lines(shell, ["printwatches", "redo 0", "history"])
    assert capsys.readouterr().out.splitlines() == [
        "printwatches is on",
        "printwatches is on",
        "0 - printwatches",
        "1 - printwatches",
        "2 - history",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["redo 0"], "Command index out of range"),
        (["history", "redo -1"], "Command index out of range"),
        (["redo 7", "redo 0"], "No redoing redos"),
        (["redo"], "redo cmdno"),
    ],
)
def test_redo_refuses(
    lines: list[str], message: str, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_lines(shell, lines) == 1
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_unknown_commands_end_with_127(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lines(shell, ["bogus"]) == 127
    assert "Command not found: Command not found bogus" in capsys.readouterr().err


def test_without_a_connection_commands_say_so(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_lines(shell, ["ls /", "close"]) == 1
    assert capsys.readouterr().err.splitlines() == ["Not connected", "Not connected"]


def test_the_status_is_that_of_the_last_command(shell: Shell) -> None:
    assert run_lines(shell, ["bogus", "version", "quit", "bogus"]) == 0


def test_quit_ends_the_lines(shell: Shell) -> None:
    with pytest.raises(Quit):
        shell.line("exit")


def test_a_changing_command_has_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell("localhost:2181", no_connection, as_json=True)
    assert shell.command(["create", "/a"]) == 1
    assert "no answer in JSON" in capsys.readouterr().err


def test_help_shows_the_usage_of_all_and_of_one(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    run_lines(shell, ["help", "help create"])
    out = capsys.readouterr().out
    assert "\tls [-s] [-w] [-R] path\n" in out
    assert "create [-s] [-e] [-c] [-t ttl] path [data] [acl]\n\tA new node" in out
    with pytest.raises(ShellError):
        usage("bogus")


def test_all_of_zkclis_commands_are_there() -> None:
    zkcli = """addWatch addauth close config connect create delete deleteall delquota exit get
        getAcl getAllChildrenNumber getEphemerals history listquota ls ls2 printwatches quit
        reconfig redo removewatches rmr set setAcl setquota stat sync version whoami"""
    assert set(zkcli.split()) | {"help"} == set(names())


def test_too_few_words_show_the_usage(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lines(shell, ["create"]) == 1
    assert capsys.readouterr().err == "create [-s] [-e] [-c] [-t ttl] path [data] [acl]\n"


def test_the_prompt_shows_host_state_and_number(shell: Shell) -> None:
    shell.line("version")
    assert shell.prompt() == "[zk: localhost:2181(CLOSED) 1] "


def test_events_are_printed_unless_watches_are_off(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell._on_event(Event("SyncConnected", "NodeCreated", "/a", 7))
    shell._on_event(Event("SyncConnected", "None", None, -1))  # only an interactive shell tells
    shell.line("printwatches off")
    shell._on_event(Event("SyncConnected", "NodeCreated", "/a", 8))
    assert capsys.readouterr().out == (
        "\nWATCHER::\n\nWatchedEvent state:SyncConnected type:NodeCreated path:/a zxid: 7\n"
    )


# -- quotas and configurations -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("count=3,bytes=-1", {"count": 3, "bytes": -1}),
        (
            "count=3,bytes=-1=;byteHardLimit=-1;countHardLimit=9",
            {"count": 3, "bytes": -1, "byteHardLimit": -1, "countHardLimit": 9},
        ),
        ("", {}),
    ],
)
def test_quota_texts(text: str, values: dict[str, int]) -> None:
    assert parse_track(text) == values
    if text:
        assert format_track(values) == text


def test_a_quota_text_always_has_count_and_bytes() -> None:
    assert format_track({"countHardLimit": 2}) == "count=-1,bytes=-1=;countHardLimit=2"


def test_a_configuration_as_connect_string() -> None:
    text = """server.1=h1:2888:3888:participant;0.0.0.0:2181
server.2=h2:2888:3888:observer;2182
server.3=h3:2888:3888
version=100000000"""
    assert client_config(text) == "100000000 0.0.0.0:2181,h2:2182"
