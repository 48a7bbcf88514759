"""The shell at a terminal: prompt, history file, completion of commands, options and paths.

Paths are completed from the server: the children of the node up to the last slash are asked for in
a thread of the prompt. What comes meanwhile (watch events) is printed above the prompt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout

from zkd.cli.shell_commands import COMMANDS
from zkd.cli.shell_session import Quit, Shell, names
from zkd.cli.shell_text import ShellError
from zkd.cli.zkclient import ZkError

SECRETIVE = ("addauth",)
"""Commands that carry passwords: their lines are not written to the history file."""


class SafeHistory(FileHistory):
    """A history file, only for its owner, without lines that carry passwords."""

    def store_string(self, string: str) -> None:
        if not string.strip().startswith(SECRETIVE):
            super().store_string(string)


class ShellCompleter(Completer):
    """Commands as the first word, then options after a dash and paths after a slash."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        before = document.text_before_cursor.lstrip()
        words = before.split()
        word = words[-1] if words and not before[-1:].isspace() else ""
        if len(words) <= 1 and word == before:
            yield from _matching(names(), word)
        elif word.startswith("/"):
            yield from self._paths(word)
        elif word.startswith("-") and words[0] in COMMANDS:
            yield from _matching([f"-{name}" for name in COMMANDS[words[0]].options], word)
        elif words[0] == "help":
            yield from _matching(names(), word)

    def _paths(self, word: str) -> Iterable[Completion]:
        parent, _, beginning = word.rpartition("/")
        try:
            children, _ = self._shell.client.children(parent or "/")
        except (ZkError, ShellError):
            return
        yield from _matching(sorted(children), beginning)


def _matching(candidates: Iterable[str], word: str) -> Iterable[Completion]:
    for candidate in candidates:
        if candidate.startswith(word):
            yield Completion(candidate, start_position=-len(word))


def history_file() -> Path:
    """Where lines are kept between runs (XDG base directories)."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "zkd" / "shell-history"


def open_history(path: Path) -> History:
    """The history in that file; in memory alone where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return SafeHistory(str(path))


def interact(shell: Shell) -> int:
    """Read and run lines until the user leaves; the status of the last command."""
    session: PromptSession[str] = PromptSession(
        history=open_history(history_file()),
        completer=ThreadedCompleter(ShellCompleter(shell)),
        complete_while_typing=False,
    )
    with patch_stdout():
        while True:
            try:
                shell.line(session.prompt(shell.prompt))
            except KeyboardInterrupt:
                continue  # as in any shell: the line is given up, not the session
            except (EOFError, Quit):
                return shell.status
