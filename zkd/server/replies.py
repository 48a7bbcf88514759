"""The bytes of replies and events (spec: client protocol sections 4, 6, 7, 8.6, 12)."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from zkd.jute.codec import utf8
from zkd.jute.protocol import Op

_HEADER: Final = Struct(">iiqi")
_CONNECT: Final = Struct(">iiiqi")
_EVENT: Final = Struct(">iiqiiii")
_INT: Final = Struct(">i")
_MULTI: Final = Struct(">i?i")
MULTI_END: Final = _MULTI.pack(-1, True, -1)
NULL: Final = b"\xff\xff\xff\xff"
SYNC_CONNECTED: Final = 3
CREATES_WITH_STAT: Final = frozenset({Op.CREATE2, Op.CREATE_CONTAINER, Op.CREATE_TTL})
OP_LABELS: Final[dict[int, str]] = {
    Op.NOTIFICATION: "NOTI", Op.CREATE: "CREA", Op.CREATE2: "CRE2", Op.CREATE_TTL: "CRET",
    Op.CREATE_CONTAINER: "CREC", Op.DELETE: "DELE", Op.DELETE_CONTAINER: "DELC",
    Op.EXISTS: "EXIS", Op.GET_DATA: "GETD", Op.SET_DATA: "SETD", Op.GET_ACL: "GETA",
    Op.SET_ACL: "SETA", Op.GET_CHILDREN: "GETC", Op.GET_CHILDREN2: "GETC", Op.SYNC: "SYNC",
    Op.PING: "PING", Op.CHECK: "CHEC", Op.MULTI: "MULT", Op.MULTI_READ: "MLTR",
    Op.RECONFIG: "RECO", Op.CHECK_WATCHES: "CHKW", Op.REMOVE_WATCHES: "REMW",
    Op.SET_WATCHES: "SETW", Op.SET_WATCHES2: "STW2", Op.ADD_WATCH: "ADDW",
    Op.GET_EPHEMERALS: "GETE", Op.GET_ALL_CHILDREN_NUMBER: "GETACN", Op.WHO_AM_I: "HOMI",
    Op.CLOSE_SESSION: "CLOS", Op.CREATE_SESSION: "SESS",
}  # fmt: skip
"""What `cons` calls the last operation."""


def header(size: int, xid: int, zxid: int, err: int) -> bytes:
    """Length and ReplyHeader of a reply whose body has size bytes."""
    return _HEADER.pack(16 + size, xid, zxid, err)


def connect_response(
    timeout_ms: int, session: int, password: bytes, with_read_only: bool, read_only: bool = False
) -> bytes:
    """A framed ConnectResponse; the readOnly byte only for those who sent one."""
    body = _CONNECT.pack(37 if with_read_only else 36, 0, timeout_ms, session, 16) + password
    return body + bytes((read_only,)) if with_read_only else body


def string(text: str) -> bytes:
    """A ustring."""
    raw = utf8(text)
    return _INT.pack(len(raw)) + raw


def strings(texts: list[str]) -> bytes:
    """A vector of ustrings."""
    parts = [_INT.pack(len(texts))]
    pack = _INT.pack
    for text in texts:
        raw = text.encode("utf-8")
        parts += (pack(len(raw)), raw)
    return b"".join(parts)


def buffer(data: bytes | None) -> bytes:
    """A buffer; None is null."""
    return NULL if data is None else _INT.pack(len(data)) + data


def event(kind: int, path: str, zxid: int) -> bytes:
    """A framed watch notification (xid -1)."""
    raw = utf8(path)
    return _EVENT.pack(28 + len(raw), -1, zxid, 0, kind, SYNC_CONNECTED, len(raw)) + raw


def of_write(
    op: int, xid: int, txn: tuple[Any, ...], client_stat: Callable[[bytes], bytes]
) -> bytes:
    """The framed reply to a write whose transaction has been applied."""
    zxid, err, effects, results = txn[0], txn[4], txn[6], txn[7]
    if results is not None and op == Op.MULTI:
        body = _multi(results, client_stat)
    elif err:
        return _HEADER.pack(16, xid, zxid, err)
    elif op == Op.SET_DATA or op == Op.SET_ACL:
        body = client_stat(effects[0][2])
    elif op == Op.CREATE:
        body = string(effects[0][1])
    elif op in CREATES_WITH_STAT:
        body = string(effects[0][1]) + client_stat(effects[0][2])
    else:
        body = b""
    return _HEADER.pack(16 + len(body), xid, zxid, 0) + body


def _multi(results: list[tuple[Any, ...]], client_stat: Callable[[bytes], bytes]) -> bytes:
    """MultiResponse: a header and a result for each operation."""
    parts = []
    for result in results:
        kind = result[0]
        if kind == -1:
            err = result[1]
            parts.append(_MULTI.pack(-1, False, err) + _INT.pack(err))
            continue
        parts.append(_MULTI.pack(kind, False, 0))
        path, stat = result[1], result[2]
        if path is not None:
            parts.append(string(path))
        if stat is not None:
            parts.append(client_stat(stat))
    parts.append(MULTI_END)
    return b"".join(parts)
