"""Session passwords: what they are derived from, and how they are compared."""

from __future__ import annotations

import hmac
import os
import secrets as _secrets
from pathlib import Path
from typing import TYPE_CHECKING

from zkd.errors import OperatorError

if TYPE_CHECKING:
    from zkd.config import Config

KEY_BYTES_MIN = 16


def session_key(config: Config) -> bytes | None:
    """The key of session passwords; None: Apache ZooKeeper's derivation, which anyone can compute.

    A server alone makes its key at the first start; a member of an ensemble uses one only if it is
    configured, since any of the others may be Apache ZooKeeper's.
    """
    path = config.session_key
    if "session.key" not in config.raw:
        if config.distributed:
            return None
        if not path.exists():
            _make(path)
    try:
        key = path.read_bytes().strip()
    except OSError as e:
        raise OperatorError(
            what=f"cannot read the session key: {e.strerror}",
            where=str(path),
            mend="make the file readable for this user",
        ) from None
    if len(key) < KEY_BYTES_MIN:
        raise OperatorError(
            what=f"the session key is too short: {len(key)} bytes",
            where=str(path),
            mend=f"write at least {KEY_BYTES_MIN} random bytes into it",
        )
    return key


def _make(path: Path) -> None:
    """Write a new key so that it is there whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, _secrets.token_hex(32).encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    draft.rename(path)


def equal(one: bytes, other: bytes) -> bool:
    """Are two secrets the same? Takes the same time whatever they are."""
    return hmac.compare_digest(one, other)
