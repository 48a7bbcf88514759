"""Transactions as Apache ZooKeeper 3.9.5 wrote them, taken apart and put together again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zkd.jute import records as rec
from zkd.jute import txn
from zkd.jute.codec import Malformed, Reader, int_
from zkd.jute.protocol import Op

VECTORS = Path(__file__).parents[2] / "vectors" / "txns.json"


def signed(text: str) -> int:
    value = int(text, 16)
    return value - (1 << 64) if value >> 63 else value


def as_vector(record: rec.Record | None) -> Any:
    """A record in the vectors' way."""
    if record is None:
        return None
    found: dict[str, Any] = {}
    for name in record.__dataclass_fields__:
        value = getattr(record, name)
        if isinstance(value, bytes):
            value = value.hex()
        elif name == "acl" and value is not None:
            value = [[one.perms, one.id.scheme, one.id.id] for one in value]
        elif name == "txns":
            value = [
                {
                    "type": one.type,
                    "data": one.data.hex(),
                    "decoded": as_vector(txn.decode_record(one.type, Reader(one.data))),
                }
                for one in value
            ]
        elif isinstance(value, tuple):
            value = list(value)
        found[name] = value
    return found


@pytest.mark.parametrize(
    "vector", json.loads(VECTORS.read_text()), ids=lambda one: one["name"].replace(" ", "-")
)
def test_recorded_transactions(vector: dict[str, Any]) -> None:
    entry = bytes.fromhex(vector["entryHex"])
    expected = vector["decoded"]
    decoded = txn.decode(entry)
    header = expected["header"]
    assert decoded.header == txn.TxnHeader(
        signed(header["clientId"]),
        header["cxid"],
        int(header["zxid"], 16),
        header["time"],
        header["type"],
    )
    assert as_vector(decoded.record) == expected["txn"]
    digest = expected.get("digest")
    assert decoded.digest == (None if digest is None else int(digest["treeDigest"], 16))
    assert txn.encode(decoded.header, decoded.record, decoded.digest) == entry


HEADER = txn.TxnHeader(5, 1, 2, 3, Op.CLOSE_SESSION)


@pytest.mark.parametrize(
    ("tail", "record", "digest"),
    [
        (b"", None, None),
        (txn.DIGEST.pack(2, 1 << 63), None, 1 << 63),
        (int_(0), rec.CloseSessionTxn(()), None),
        (int_(0) + txn.DIGEST.pack(2, 9), rec.CloseSessionTxn(()), 9),
        (int_(1) + int_(4) + b"/abc", rec.CloseSessionTxn(("/abc",)), None),
        (int_(1) + int_(4) + b"/abc" + txn.DIGEST.pack(2, 9), rec.CloseSessionTxn(("/abc",)), 9),
    ],
)
def test_forms_of_closesession(tail: bytes, record: rec.Record | None, digest: int | None) -> None:
    assert txn.decode(HEADER.encode() + tail) == txn.DecodedTxn(HEADER, record, digest)


def test_an_old_create_gets_the_counter_of_minus_one() -> None:
    header = txn.TxnHeader(5, 1, 2, 3, Op.CREATE)
    body = txn.encode(header, rec.CreateTxnV0("/a", None, rec.WORLD_ALL, True))
    assert txn.decode(body).record == rec.CreateTxn("/a", None, rec.WORLD_ALL, True, -1)


@pytest.mark.parametrize("kind", [Op.CHECK, Op.GET_DATA, 99])
def test_types_that_no_log_has(kind: int) -> None:
    body = txn.TxnHeader(5, 1, 2, 3, kind).encode() + rec.CheckVersionTxn("/", 1).encode()
    with pytest.raises(Malformed):
        txn.decode(body)


def test_a_digest_of_another_version_is_none() -> None:
    body = txn.encode(txn.TxnHeader(5, 1, 2, 3, Op.DELETE), rec.DeleteTxn("/a"))
    assert txn.decode(body + txn.DIGEST.pack(1, 5)).digest is None
