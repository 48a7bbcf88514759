"""Who may connect: limits per address and in all, and the connection throttle."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zkd.server.limits import ConnectionCounter, ConnectionThrottle, SessionKind

if TYPE_CHECKING:
    from zkd.config import Config


def _now_ms() -> int:
    return int(time.monotonic() * 1000)


class Admission:
    """The limits of one front-end that are decided before a session is there."""

    def __init__(self, config: Config) -> None:
        self.counter = ConnectionCounter(config)
        self.throttle = ConnectionThrottle(config, _now_ms(), random.random, share=config.frontends)
        self._others: dict[str, Mapping[str, int]] = {}
        self._told: dict[str, int] = {}

    def configure(self, config: Config) -> None:
        """Take new settings."""
        self.counter.configure(config)
        self.throttle.configure(config, share=config.frontends)

    def connect(self, address: str) -> str:
        """Count a new connection; a reason if it is one too many (then it is not counted)."""
        reason = self.counter.refusal(address)
        if not reason:
            self.counter.add(address)
        return reason

    def gone(self, address: str) -> None:
        """A counted connection has ended."""
        self.counter.remove(address)

    def admits(self, session: int) -> bool:
        """May a connect request for this session (0: a new one) go on?"""
        kind = SessionKind.RENEW if session else SessionKind.GLOBAL
        return self.throttle.admits(kind, _now_ms())

    def news(self) -> dict[str, int] | None:
        """This front-end's counts if they have changed since they were last told."""
        own = dict(self.counter.own())
        if own == self._told:
            return None
        self._told = own
        return own

    def others(self, name: str, counts: Mapping[str, int]) -> None:
        """Another front-end's counts."""
        self._others[name] = counts
        total: dict[str, int] = {}
        for one in self._others.values():
            for address, count in one.items():
                total[address] = total.get(address, 0) + count
        self.counter.set_others(total)
