"""`zkd` itself: dispatch, exit status, errors, and what is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from zkd import cli
from zkd.cli.serve import parse
from zkd.errors import OperatorError


def test_serve_reads_its_command_line() -> None:
    assert parse([]) == (None, {})
    assert parse(["zoo.cfg"]) == ("zoo.cfg", {})
    assert parse(["--set", "a=1", "zoo.cfg", "--set=b= 2 ", "--set", "a=x=y"]) == (
        "zoo.cfg",
        {"a": "x=y", "b": "2"},
    )
    assert parse(["--", "--odd"]) == ("--odd", {})


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["a", "b"], "more than one configuration file"),
        (["--set"], "--set needs KEY=VALUE"),
        (["--set", "novalue"], "--set needs KEY=VALUE"),
        (["--set", "=1"], "--set needs KEY=VALUE"),
        (["--unknown"], "unknown option"),
    ],
)
def test_serve_refuses_a_wrong_command_line(arguments: list[str], what: str) -> None:
    with pytest.raises(OperatorError) as refused:
        parse(arguments)
    assert refused.value.what == what


def test_an_operators_error_is_three_lines_and_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["serve", "--unknown"]) == 2
    assert capsys.readouterr().err == (
        "zkd: unknown option\n  where: --unknown\n  to mend it: see zkd serve --help\n"
    )


def test_unknown_parts_of_an_error_are_left_out() -> None:
    assert cli.explain(OperatorError("it broke")) == "zkd: it broke"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "Run a server in the foreground." in capsys.readouterr().out
    assert cli.main(["serve", "--help"]) == 0
    assert "Usage: zkd serve" in capsys.readouterr().out
    assert cli.main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"zkd", "zookeeper"}


def test_an_unknown_subcommand_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bogus"]) == 2
    assert "No such command 'bogus'" in capsys.readouterr().err


def test_every_subcommand_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    from zkd.cli.commands import TABLE, _installed

    for name in [name for name, entry in TABLE.items() if _installed(entry.module)]:
        assert cli.main([name, "--help"]) == 0, name
        assert "Usage: zkd" in capsys.readouterr().out, name


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_serve_is_reached_without_the_libraries_of_the_other_commands() -> None:
    modules = imported_by("import zkd.cli; zkd.cli.main(['serve', '--help'])")
    assert modules.isdisjoint({"click", "rich", "kazoo", "prompt_toolkit", "pytest", "zmq"})


def test_the_pytest_plugin_is_cheap_to_load() -> None:
    before = imported_by("import pytest")
    modules = imported_by("import pytest, zkd.testing.plugin")
    assert modules - before == {"zkd"}
    assert "kazoo" not in modules


def test_completion_offers_subcommands_and_shell_commands() -> None:
    def complete(words: str, count: int) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "zkd"],
            env={"_ZKD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    expected = ["serve", "shell", "status", "sessions", "shed", "snapshot"]
    assert complete("zkd s", 1) == expected
    assert complete("zkd shell getA", 2) == ["getAcl", "getAllChildrenNumber"]
