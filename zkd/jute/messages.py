"""Which record goes with which opcode, and the framing of multi.

Source: `ZooDefs.java`, `MultiOperationRecord.java`, `MultiResponse.java` of Apache ZooKeeper; spec
client-protocol sections 7, 8.6 and 8.7.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from zkd.jute import records as rec
from zkd.jute.codec import Malformed, Reader
from zkd.jute.protocol import Op

REQUESTS: Final[dict[int, type[rec.Record]]] = {
    Op.CREATE: rec.CreateRequest,
    Op.CREATE2: rec.CreateRequest,
    Op.CREATE_CONTAINER: rec.CreateRequest,
    Op.CREATE_TTL: rec.CreateTTLRequest,
    Op.DELETE: rec.DeleteRequest,
    Op.DELETE_CONTAINER: rec.PathRequest,
    Op.EXISTS: rec.ReadRequest,
    Op.GET_DATA: rec.ReadRequest,
    Op.GET_CHILDREN: rec.ReadRequest,
    Op.GET_CHILDREN2: rec.ReadRequest,
    Op.SET_DATA: rec.SetDataRequest,
    Op.GET_ACL: rec.PathRequest,
    Op.SET_ACL: rec.SetACLRequest,
    Op.SYNC: rec.PathRequest,
    Op.CHECK: rec.CheckVersionRequest,
    Op.RECONFIG: rec.ReconfigRequest,
    Op.CHECK_WATCHES: rec.WatchesRequest,
    Op.REMOVE_WATCHES: rec.WatchesRequest,
    Op.ADD_WATCH: rec.WatchesRequest,
    Op.AUTH: rec.AuthPacket,
    Op.SET_WATCHES: rec.SetWatches,
    Op.SET_WATCHES2: rec.SetWatches2,
    Op.SASL: rec.SASLToken,
    Op.GET_EPHEMERALS: rec.PathRequest,
    Op.GET_ALL_CHILDREN_NUMBER: rec.PathRequest,
    Op.GET_CHILDREN_PAGE: rec.GetChildrenPageRequest,
}
"""The body of a request; ping, whoAmI and closeSession have none, multis have their own form."""

RESPONSES: Final[dict[int, type[rec.Record]]] = {
    Op.CREATE: rec.CreateResponse,
    Op.CREATE2: rec.Create2Response,
    Op.CREATE_CONTAINER: rec.Create2Response,
    Op.CREATE_TTL: rec.Create2Response,
    Op.EXISTS: rec.StatResponse,
    Op.GET_DATA: rec.GetDataResponse,
    Op.GET_CHILDREN: rec.GetChildrenResponse,
    Op.GET_CHILDREN2: rec.GetChildren2Response,
    Op.SET_DATA: rec.StatResponse,
    Op.GET_ACL: rec.GetACLResponse,
    Op.SET_ACL: rec.StatResponse,
    Op.SYNC: rec.CreateResponse,
    Op.RECONFIG: rec.GetDataResponse,
    Op.ADD_WATCH: rec.IntResponse,
    Op.SASL: rec.SASLToken,
    Op.GET_EPHEMERALS: rec.GetChildrenResponse,
    Op.GET_ALL_CHILDREN_NUMBER: rec.IntResponse,
    Op.GET_CHILDREN_PAGE: rec.GetChildrenPageResponse,
    Op.WHO_AM_I: rec.WhoAmIResponse,
}
"""The body of a reply without error; the other opcodes have none."""

WRITE_OPS: Final = frozenset(
    {
        Op.CREATE,
        Op.CREATE2,
        Op.CREATE_CONTAINER,
        Op.CREATE_TTL,
        Op.DELETE,
        Op.SET_DATA,
        Op.CHECK,
    }
)
"""What a multi may hold."""

READ_OPS: Final = frozenset({Op.GET_DATA, Op.GET_CHILDREN})
"""What a multiRead may hold."""

_END: Final = rec.MultiHeader(-1, True, -1).encode()

_RESULTS: Final[dict[int, type[rec.Record] | None]] = {
    Op.CREATE: rec.CreateResponse,
    Op.CREATE2: rec.Create2Response,
    Op.SET_DATA: rec.StatResponse,
    Op.DELETE: None,
    Op.CHECK: None,
    Op.GET_DATA: rec.GetDataResponse,
    Op.GET_CHILDREN: rec.GetChildrenResponse,
    Op.ERROR: rec.IntResponse,
}


def encode_multi(ops: Iterable[tuple[int, rec.Record]]) -> bytes:
    """The body of a multi or multiRead."""
    parts = [rec.MultiHeader(op, False, -1).encode() + record.encode() for op, record in ops]
    return b"".join(parts) + _END


def decode_multi(reader: Reader) -> list[tuple[int, rec.Record]]:
    """The operations of a multi or multiRead. Raises Malformed, also for a mixture of both."""
    ops: list[tuple[int, rec.Record]] = []
    while not (header := rec.MultiHeader.decode(reader)).done:
        if header.type not in WRITE_OPS and header.type not in READ_OPS:
            raise Malformed(f"no multi holds the operation {header.type}")
        if ops and (header.type in READ_OPS) != (ops[0][0] in READ_OPS):
            raise Malformed("a multi mixes reads and writes")
        ops.append((header.type, REQUESTS[header.type].decode(reader)))
    return ops


def encode_multi_response(results: Iterable[tuple[int, rec.Record | None]]) -> bytes:
    """The body of a multi's reply. A failure is (-1, IntResponse(code))."""
    parts: list[bytes] = []
    for kind, record in results:
        err = record.value if kind == Op.ERROR and isinstance(record, rec.IntResponse) else 0
        parts.append(rec.MultiHeader(kind, False, err).encode())
        if record is not None:
            parts.append(record.encode())
    return b"".join(parts) + _END


def decode_multi_response(reader: Reader) -> list[tuple[int, rec.Record | None]]:
    """The results in a multi's reply. Raises Malformed."""
    results: list[tuple[int, rec.Record | None]] = []
    while not (header := rec.MultiHeader.decode(reader)).done:
        if header.type not in _RESULTS:
            raise Malformed(f"no multi has results of type {header.type}")
        kind = _RESULTS[header.type]
        results.append((header.type, None if kind is None else kind.decode(reader)))
    return results
