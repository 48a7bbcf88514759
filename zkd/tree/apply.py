"""Replay: a committed transaction's bytes become changes of a `TreeState`.

Nothing is checked again: the transaction was validated where it was prepared. What the tree already
holds is skipped as Apache ZooKeeper does, since a snapshot that was taken while the server worked
may hold more than its name says.

Source: `DataTree.processTxn` of Apache ZooKeeper; spec txn-and-storage-formats section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zkd.jute.codec import Malformed, Reader
from zkd.jute.protocol import Err, Op
from zkd.jute.txn import HEADER, HEADER_BYTES, has_paths, read_digest
from zkd.tree import acl as acls
from zkd.tree.effects import Effect
from zkd.tree.ephemeral import CONTAINER_OWNER, MAX_TTL_MS, ttl_owner
from zkd.tree.paths import ROOT

if TYPE_CHECKING:
    from zkd.tree.state import TreeState

_WORLD_SIZE: Final = len(acls.WORLD_ALL)
_cversion: Final = Struct(">36xi28x").unpack

Result = tuple[Any, ...]
"""(type, path, stat) of one operation of a multi, or (-1, err)."""


class Applied(NamedTuple):
    """A transaction that was applied. `digest` is the one it carries."""

    session: int
    cxid: int
    zxid: int
    time_ms: int
    type: int
    err: int
    effects: list[Effect]
    results: list[Result] | None
    digest: int | None


class _Txn(NamedTuple):
    session: int
    zxid: int
    time_ms: int


def process(state: TreeState, body: bytes) -> Applied:
    """Apply one transaction. Raises Malformed, and then has changed nothing."""
    if len(body) < HEADER_BYTES:
        raise Malformed(f"a transaction of {len(body)} bytes has no header")
    session, cxid, zxid, time_ms, kind = HEADER.unpack_from(body)
    txn = _Txn(session, zxid, time_ms)
    reader = Reader(body, HEADER_BYTES, len(body))
    effects: list[Effect] = []
    err = 0
    results: list[Result] | None = None
    if kind == Op.MULTI:
        results = _multi(state, reader, txn, effects)
    elif kind == Op.ERROR:
        err = reader.int_()
    elif kind == Op.CREATE_SESSION:
        state.create_session(session, reader.int_(), effects)
    elif kind == Op.CLOSE_SESSION:
        paths = reader.vector(Reader.string) if has_paths(body) else None
        state.close_session(session, [one for one in paths or () if one], zxid, effects)
    elif kind in _APPLIERS and kind != Op.CHECK:
        _APPLIERS[kind](state, reader, txn, effects)
    else:
        raise Malformed(f"no transaction has the type {kind}")
    digest = None if kind == Op.ERROR else read_digest(reader)
    return Applied(session, cxid, zxid, time_ms, kind, err, effects, results, digest)


def _multi(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> list[Result]:
    """The operations of a multi; if one of them is an error, none is applied."""
    parts = reader.vector(_part) or []
    failed = next((i for i, (kind, _) in enumerate(parts) if kind == Op.ERROR), None)
    if failed is not None:
        results: list[Result] = [(Op.ERROR, Err.OK)] * failed
        for kind, data in parts[failed:]:
            rewritten = kind != Op.ERROR
            code = Err.RUNTIME_INCONSISTENCY if rewritten else Reader(data).int_()
            results.append((Op.ERROR, code))
        return results
    if not all(kind in _IN_MULTI for kind, _ in parts):
        raise Malformed("a multi holds what it may not")
    state.begin()
    try:
        results = [_APPLIERS[kind](state, _sub(data), txn, effects) for kind, data in parts]
    except Malformed:
        state.rollback()
        raise
    state.commit()
    return results


def _part(reader: Reader) -> tuple[int, bytes]:
    return reader.int_(), reader.buffer() or b""


def _sub(data: bytes) -> Reader:
    return Reader(data, 0, len(data))


def _path(reader: Reader) -> tuple[str, str]:
    """A path and its parent's."""
    path = reader.string()
    if path is None or (slash := path.rfind("/")) < 0:
        raise Malformed("a transaction without a path")
    return path, path[:slash] or ROOT


def _acl(reader: Reader) -> bytes | None:
    start = reader.pos
    if reader.buf.startswith(acls.WORLD_ALL, start):
        reader.pos = start + _WORLD_SIZE
        return None
    acls.read(reader)
    return reader.buf[start : reader.pos]


def _create(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    return _create_node(state, reader, txn, effects, Op.CREATE)


def _create2(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    return _create_node(state, reader, txn, effects, Op.CREATE2)


def _container(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    return _create_node(state, reader, txn, effects, Op.CREATE_CONTAINER)


def _ttl(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    return _create_node(state, reader, txn, effects, Op.CREATE_TTL)


def _create_node(
    state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect], kind: int
) -> Result:
    path, parent_path = _path(reader)
    data = reader.buffer()
    acl = _acl(reader)
    cversion: int | None
    if kind == Op.CREATE_CONTAINER:
        raw, cversion = CONTAINER_OWNER, reader.int_()
    elif kind == Op.CREATE_TTL:
        cversion = reader.int_()
        ttl_ms = reader.long()
        if not 0 < ttl_ms <= MAX_TTL_MS:
            raise Malformed(f"a TTL of {ttl_ms} ms")
        raw = ttl_owner(ttl_ms)
    else:
        raw = txn.session if reader.boolean() else 0
        old_form = kind == Op.CREATE and reader.remaining() == 0
        cversion = None if old_form else reader.int_()
    parent = state.get(parent_path)
    shown = path if kind == Op.CREATE else None
    if parent is None:
        return Op.CREATE, shown, None
    if cversion is None or cversion == -1:
        cversion = _cversion(parent.stat)[0] + 1
    node = state.get(path)
    if node is None:
        state.create(
            path, parent_path, parent, data, acl, raw, cversion, txn.zxid, txn.time_ms, effects
        )
        stat = None if kind == Op.CREATE else state.own[path].stat
        return (Op.CREATE if stat is None else Op.CREATE2), path, stat
    stat = node.stat
    state.set_acl(path, node, acl, _aversion(stat)[0], txn.zxid, effects)
    if kind == Op.CREATE:
        state.raise_cversion(parent_path, parent, cversion, txn.zxid, effects)
        return Op.CREATE, path, None
    return Op.CREATE2, path, stat


_aversion: Final = Struct(">40xi24x").unpack


def _delete(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    path, parent_path = _path(reader)
    parent = state.get(parent_path)
    node = state.get(path)
    if parent is not None:
        if node is None or node is parent:
            state.raise_pzxid(parent_path, parent, txn.zxid, effects)
        else:
            state.delete(path, node, parent_path, parent, txn.zxid, effects)
    return Op.DELETE, None, None


def _set_data(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    path = _path(reader)[0]
    data = reader.buffer()
    version = reader.int_()
    node = state.get(path)
    if node is None:
        return Op.SET_DATA, None, None
    state.set_data(path, node, data, version, txn.zxid, txn.time_ms, effects)
    return Op.SET_DATA, None, node.stat


def _set_acl(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    path = _path(reader)[0]
    acl = _acl(reader)
    aversion = reader.int_()
    node = state.get(path)
    if node is not None:
        state.set_acl(path, node, acl, aversion, txn.zxid, effects)
    return Op.SET_ACL, None, None


def _check(state: TreeState, reader: Reader, txn: _Txn, effects: list[Effect]) -> Result:
    _path(reader)
    reader.int_()
    return Op.CHECK, None, None


_Applier = Callable[["TreeState", Reader, _Txn, list[Effect]], Result]

_APPLIERS: Final[dict[int, _Applier]] = {
    Op.CREATE: _create,
    Op.CREATE2: _create2,
    Op.CREATE_CONTAINER: _container,
    Op.CREATE_TTL: _ttl,
    Op.DELETE: _delete,
    Op.DELETE_CONTAINER: _delete,
    Op.SET_DATA: _set_data,
    Op.RECONFIG: _set_data,
    Op.SET_ACL: _set_acl,
    Op.CHECK: _check,
}
"""By the type of the transaction, or of the part of a multi."""

_IN_MULTI: Final = frozenset(_APPLIERS) - {Op.RECONFIG, Op.SET_ACL}
