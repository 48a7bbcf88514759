"""A well-behaved client beside the bad ones: it must not notice them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from tests.conformance import wire


class Witness(threading.Thread):
    """Writes and reads its own node without a pause until told to stop.

    `slowest_s` is the longest round trip; `fault` is what went wrong, if anything did.
    """

    def __init__(self, port: int) -> None:
        super().__init__(name="witness", daemon=True)
        self.client = wire.Client(port)
        self.rounds = 0
        self.slowest_s = 0.0
        self.fault = ""
        self._stop_event = threading.Event()
        err, _ = self.client.call(wire.CREATE, wire.create("/witness", b"", wire.OPEN, 1))
        if err:
            raise AssertionError(f"the witness could not make its node: {err}")

    def run(self) -> None:
        try:
            while not self._stop_event.is_set():
                self._round()
        except (OSError, ValueError, wire.ServerSilent) as error:
            self.fault = repr(error)

    def _round(self) -> None:
        self.rounds += 1
        data = str(self.rounds).encode()
        begin = time.monotonic()
        err, _ = self.client.call(wire.SET_DATA, wire.set_data("/witness", data, -1))
        read_err, body = self.client.call(wire.GET_DATA, wire.watched("/witness"))
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
        if err or read_err or body[4 : 4 + len(data)] != data:
            self.fault = f"round {self.rounds}: {err}, {read_err}, {body[:40]!r}"
            self._stop_event.set()

    def end(self) -> None:
        self._stop_event.set()
        self.join(30)
        if not self.fault:
            self.client.close()


@contextlib.contextmanager
def watching(port: int, bound_s: float = 2.0) -> Iterator[Witness]:
    """A witness at work; at the end it must have worked, each round trip within the bound."""
    witness = Witness(port)
    witness.start()
    try:
        yield witness
    finally:
        witness.end()
    assert not witness.fault, witness.fault
    assert witness.rounds > 0
    assert witness.slowest_s < bound_s, f"a round trip took {witness.slowest_s:.2f} s"
