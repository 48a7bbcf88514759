"""A refusal is an ordinary answer to a client: it has a code, it is not logged."""

from __future__ import annotations


class ClientRefusal(Exception):  # noqa: N818 - a refusal, not a fault of ours
    """The request cannot be done; `code` (one of `Err`) goes to the client."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
