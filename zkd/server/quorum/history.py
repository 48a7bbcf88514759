"""Transactions of the log for a learner that lags: a producer that reads log.db as it goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from zkd.errors import OperatorError
from zkd.jute.quorum import encode_history
from zkd.server.quorum.link import Producer, Sink
from zkd.storage.log import LOG_NAME, LogReader

BATCH_BYTES = 128 << 10


def history(log_dir: Path, after: int, upto: int, *, vfs: str = "") -> Producer:
    """PROPOSAL and COMMIT of every transaction in (after, upto]; `upto` must be durable here.

    Ends the link with LogCorrupt if rows were purged or are damaged, with OperatorError if the
    last one is not there."""

    async def produce(sink: Sink) -> None:
        log = LogReader(log_dir / LOG_NAME, vfs=vfs)
        try:
            last = after
            batch: list[tuple[int, bytes]] = []
            size = 0
            for zxid, body in log.read(after, upto):
                batch.append((zxid, body))
                size += len(body)
                last = zxid
                if size >= BATCH_BYTES:
                    await sink.write(encode_history(batch))
                    await asyncio.sleep(0)  # a fast peer must not keep the loop
                    batch, size = [], 0
            if last != upto:
                raise OperatorError(
                    f"the log ends at 0x{last:x}, a learner was to have it up to 0x{upto:x}",
                    str(log.path),
                )
            if batch:
                await sink.write(encode_history(batch))
        finally:
            log.close()

    return produce
