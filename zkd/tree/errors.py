"""A refusal is an ordinary answer to a client: it has a code, it is not logged."""

from __future__ import annotations


class ClientRefusal(Exception):
    """The request cannot be done; `code` (one of `Err`) goes to the client."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
