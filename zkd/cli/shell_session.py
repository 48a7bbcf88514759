"""One run of the shell: its connection, its history, and what becomes of a line.

The commands that concern the shell itself are here (connect, close, history, redo, printwatches,
help, quit); those that ask a server are in `shell_commands` and `shell_quota`. The behaviour is
that of zkCli's ZooKeeperMain: a line gets the number of the history, `redo` runs it again, watch
events are printed as they come, and after `close` every command says "Not connected".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import zkd.cli.shell_quota
from zkd.cli.shell_commands import COMMANDS
from zkd.cli.shell_text import Arguments, ShellError, explain, split
from zkd.cli.zkclient import Client, Event, ZkError

HISTORY_SHOWN = 11
NOT_FOUND = 127

OWN_COMMANDS = {
    "connect": "host:port",
    "exit": "",
    "help": "[command]",
    "history": "",
    "printwatches": "on|off",
    "quit": "",
    "redo": "cmdno",
}
_QUOTA_COMMANDS = zkd.cli.shell_quota  # imported for what it adds to COMMANDS


class Quit(Exception):
    """The user has asked to leave."""


class Shell:
    """The state of one run. `connect` makes clients: hosts, listener -> a client not started."""

    def __init__(
        self,
        hosts: str,
        connect: Callable[[str, Callable[[Event], None]], Client],
        *,
        as_json: bool = False,
        announce: bool = False,
        connect_timeout_s: float = 30.0,
    ) -> None:
        """`announce`: say what is connected to, as an interactive shell does."""
        self.hosts = hosts
        self.as_json = as_json
        self.announce = announce
        self.connect_timeout_s = connect_timeout_s
        self.print_watches = True
        self.history: list[str] = []
        self.status = 0
        self._connect = connect
        self._client: Client | None = None

    # -- what commands see ---------------------------------------------------------------------

    @property
    def client(self) -> Client:
        if self._client is None or not self._client.alive:
            raise ShellError("Not connected")
        return self._client

    def out(self, text: str) -> None:
        print(text)

    def err(self, text: str) -> None:
        print(text, file=sys.stderr)

    def emit(self, value: Mapping[str, Any]) -> None:
        print(json.dumps(value, ensure_ascii=False))

    # -- the connection ------------------------------------------------------------------------

    def connect(self, hosts: str) -> None:
        """Leave the present session and begin to connect to these hosts."""
        self.close()
        self.hosts = hosts
        if self.announce:
            self.out(f"Connecting to {hosts}")
        try:
            self._client = self._connect(hosts, self._on_event)
        except ValueError as error:
            raise ShellError(f"{hosts}: {error}") from None
        self._client.start()

    def close(self) -> None:
        """End the session, if there is one."""
        if self._client is not None and self._client.alive:
            self._client.close()

    def prompt(self) -> str:
        state = self._client.state if self._client else "CLOSED"
        return f"[zk: {self.hosts}({state}) {len(self.history)}] "

    def _on_event(self, event: Event) -> None:
        if self.print_watches and (self.announce or event.type != "None"):
            print(f"\nWATCHER::\n\n{event}", flush=True)

    # -- lines and commands --------------------------------------------------------------------

    def line(self, text: str) -> None:
        """One line of input. Its failure is printed and remembered as the status."""
        if not text.strip():
            return
        self.history.append(text)
        self.command(split(text))

    def command(self, words: Sequence[str]) -> int:
        """Run one command; its status, 0 if it succeeded. Failures are printed, not raised."""
        try:
            self._run(list(words))
            self.status = 0
        except ZkError as error:
            self.err(explain(error))
            self.status = 1
        except ShellError as error:
            self.err(error.message)
            self.status = error.status
        sys.stdout.flush()
        return self.status

    def _run(self, words: list[str]) -> None:
        name, rest = words[0], words[1:]
        if name in OWN_COMMANDS:
            self._own(name, rest)
            return
        if name == "close":
            self.client.close()
            return
        command = COMMANDS.get(name)
        if command is None:
            self.err(usage())
            raise ShellError(f"Command not found: Command not found {name}", NOT_FOUND)
        if self.as_json and not command.reads:
            raise ShellError(f"{name} has no answer in JSON: leave --json out")
        arguments = Arguments(rest, command.options)
        if len(arguments.words) < command.arguments:
            raise ShellError(command.usage_line)
        if name != "version" and not self.client.wait_connected(self.connect_timeout_s):
            raise ShellError(f"no connection to {self.hosts} within {self.connect_timeout_s:g} s")
        command.run(self, arguments)

    def _own(self, name: str, rest: list[str]) -> None:
        if name in ("quit", "exit"):
            raise Quit
        if name == "help":
            self.out(usage(rest[0] if rest else None))
        elif name == "connect":
            self.connect(rest[0] if rest else self.hosts)
        elif name == "printwatches":
            if rest:
                self.print_watches = rest[0] == "on"
            else:
                self.out(f"printwatches is {'on' if self.print_watches else 'off'}")
        elif name == "history":
            first = max(0, len(self.history) - HISTORY_SHOWN)
            for number, text in enumerate(self.history[first:], first):
                self.out(f"{number} - {text}")
        else:
            self._redo(rest)

    def _redo(self, rest: list[str]) -> None:
        try:
            number = int(rest[0])
        except (IndexError, ValueError):
            raise ShellError("redo cmdno") from None
        if not 0 <= number < len(self.history) - 1:
            raise ShellError("Command index out of range")
        words = split(self.history[number])
        if words[0] == "redo":
            raise ShellError("No redoing redos")
        self.history[-1] = self.history[number]
        self._run(words)


def names() -> list[str]:
    """All commands, in alphabetical order."""
    return sorted([*COMMANDS, *OWN_COMMANDS, "close"])


def usage(name: str | None = None) -> str:
    """How to write one command, or all. Raises ShellError for a name that is none."""
    if name is None:
        rows = ["ZooKeeper -server host:port cmd args"]
        return "\n".join(rows + [f"\t{_usage_line(one)}" for one in names()])
    if name not in names():
        raise ShellError(f"Command not found: Command not found {name}", NOT_FOUND)
    command = COMMANDS.get(name)
    about = f"\n\t{command.run.__doc__}" if command and command.run.__doc__ else ""
    return _usage_line(name) + about


def _usage_line(name: str) -> str:
    command = COMMANDS.get(name)
    return (command.usage_line if command else f"{name} {OWN_COMMANDS.get(name, '')}").rstrip()


def run_lines(shell: Shell, lines: Iterable[str]) -> int:
    """Run lines that are not typed by a person; the status of the last command."""
    try:
        for text in lines:
            shell.line(text.rstrip("\n"))
    except Quit:
        pass
    return shell.status
