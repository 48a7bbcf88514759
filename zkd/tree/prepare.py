"""Validation of a client's request into a transaction.

One request at a time: it is checked against the state in Apache ZooKeeper's order, the state is
changed, and what the peer needs comes back: (err, transaction, effects, results). Whatever the
request, nothing is raised, and the zxid is used up: a refused request becomes an error
transaction. Nothing is accepted that a reader of the wire or of a log would refuse for its size
(`TreeSettings.txn_max_bytes`); such a request gets MARSHALLINGERROR, which every client knows, and
is named in `Preparer.refusals`.

The hot path works on slices of the request: a transaction's record is the request's bytes with
another tail.

Differences from Apache ZooKeeper: deleteContainer is the container manager's alone (NOAUTH for
clients); createTTL with flags that are no TTL mode is refused whatever its ttl (there a negative
one stops the server); what fails to decode uses a fresh zxid; quotas see what is prepared, not
only what is applied; flags 4 with create or create2 count as persistent in the digest, as the node
is.

Source: `PrepRequestProcessor.java`; spec client-protocol section 8, txn-and-storage-formats
section 9.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Final

from zkd.jute.codec import INT, Malformed, string
from zkd.jute.protocol import Err, Op
from zkd.jute.txn import DIGEST, HEADER
from zkd.tree import multi
from zkd.tree.acl import AclRegistry, Identity
from zkd.tree.apply import Result
from zkd.tree.effects import Effect
from zkd.tree.errors import ClientRefusal
from zkd.tree.operations import Ask, Operations, QuotaExceeded, Record, Refusal
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

__all__ = ["Prepared", "Preparer", "QuotaExceeded", "Refusal"]

Prepared = tuple[int, bytes, list[Effect], list[Result] | None]
"""err, transaction, effects, results of a multi."""

_header: Final = HEADER.pack
_digest: Final = DIGEST.pack
_int_pack: Final = INT.pack
_part_header: Final = Struct(">ii").pack

SubPreparer = Callable[[int, bytes, Ask, list[Effect]], Record]


class Preparer(Operations):
    """Prepares the requests of all sessions, one after the other."""

    def __init__(self, state: TreeState, settings: TreeSettings, registry: AclRegistry) -> None:
        super().__init__(state, settings, registry)
        self._digested = settings.digest_enabled
        self._ask = Ask()
        self._subs: dict[int, SubPreparer] = {
            Op.CREATE: self._create,
            Op.CREATE2: self._create,
            Op.CREATE_CONTAINER: self._create,
            Op.CREATE_TTL: self._create,
            Op.DELETE: self._delete,
            Op.SET_DATA: self._set_data,
            Op.SET_ACL: self._set_acl,
            Op.DELETE_CONTAINER: self._delete_container,
            Op.CREATE_SESSION: self._create_session,
            Op.RECONFIG: self._reconfig,
        }
        self._multi_subs = {op: self._subs[op] for op in multi.PREPARED if op in self._subs}
        self._multi_subs[Op.CHECK] = self._check

    def prepare(
        self,
        op: int,
        body: bytes,
        session: int,
        xid: int,
        identities: tuple[Identity, ...],
        zxid: int,
        time_ms: int,
        session_error: int = 0,
    ) -> Prepared:
        """Validate one request and make its change. `body` is the frame behind the RequestHeader.

        A request that cannot be decoded makes no transaction: the second item is empty and the
        zxid is free.

        `session_error` is what `SessionTracker.check` says about the session and its owner: it is
        answered at the place where Apache ZooKeeper looks at the session.
        """
        state = self.state
        effects: list[Effect] = []
        ask = self._ask
        ask.session = session
        ask.identities = identities
        ask.zxid = zxid
        ask.time_ms = time_ms
        ask.session_error = session_error
        try:
            sub = self._subs.get(op)
            if sub is not None:
                header = _header(session, xid, zxid, time_ms, op)
                head, tail = sub(op, body, ask, effects)
                if self._digested:
                    txn = b"".join((header, head, tail, _digest(2, state.digest)))
                else:
                    txn = b"".join((header, head, tail))
                state.zxid = zxid
                if zxid >= state.bucket_end:
                    state.turn()
                return 0, txn, effects, None
            if op == Op.MULTI:
                return self._multi(body, xid, ask)
            if op == Op.CLOSE_SESSION:
                return self._close_session(session, xid, zxid, time_ms)
            code = Err.UNIMPLEMENTED
        except ClientRefusal as refusal:
            code = refusal.code
        except multi.Unspent:
            return Err.MARSHALLING_ERROR, b"", effects, None
        except (Malformed, struct_error):
            code = Err.MARSHALLING_ERROR
            if op != Op.MULTI:  # as Apache ZooKeeper: what cannot be read uses no zxid
                return code, b"", effects, None
        return self.error(zxid, code, session, xid, time_ms)

    def error(
        self, zxid: int, code: int, session: int = 0, xid: int = 0, time_ms: int = 0
    ) -> Prepared:
        """An error transaction: it changes nothing, but uses up the zxid."""
        state = self.state
        state.zxid = zxid
        if zxid >= state.bucket_end:
            state.turn()
        return code, _header(session, xid, zxid, time_ms, Op.ERROR) + _int_pack(code), [], None

    def _close_session(self, session: int, xid: int, zxid: int, time_ms: int) -> Prepared:
        """Delete all ephemerals of the session. A list too large for the wire is left out."""
        state = self.state
        effects: list[Effect] = []
        paths = sorted(state.ephemerals(session))
        header = _header(session, xid, zxid, time_ms, Op.CLOSE_SESSION)
        record = _int_pack(len(paths)) + b"".join(map(string, paths))
        state.close_session(session, paths, zxid, effects)
        state.zxid = zxid
        if zxid >= state.bucket_end:
            state.turn()
        if not self.settings.close_session_txn or len(record) > self._record_max:
            return 0, header, effects, None  # a digest alone would be taken for a list
        tail = _digest(2, state.digest) if self._digested else b""
        return 0, header + record + tail, effects, None

    def _multi(self, body: bytes, xid: int, ask: Ask) -> Prepared:
        """All operations or none; a failed one leaves a transaction that says which."""
        ops = multi.split(body)
        state = self.state
        effects: list[Effect] = []
        parts: list[bytes] = []
        results: list[Result] = []
        failed = 0
        state.begin()
        try:
            for op, request in ops:
                if failed:
                    parts.append(multi.error_part(Err.RUNTIME_INCONSISTENCY))
                    results.append((Op.ERROR, Err.RUNTIME_INCONSISTENCY))
                    continue
                mark = len(effects)
                try:
                    head, tail = self._multi_subs[op](op, request, ask, effects)
                except ClientRefusal as refusal:
                    failed = refusal.code
                    state.rollback()
                    effects.clear()
                    parts.append(multi.error_part(failed))
                    results = [(Op.ERROR, Err.OK)] * len(results)
                    results.append((Op.ERROR, failed))
                else:
                    parts.append(_part_header(op, len(head) + len(tail)) + head + tail)
                    results.append(multi.result(op, effects[mark:]))
            size = 4 + sum(map(len, parts))
            if size > self._record_max:
                self._refuse(Op.MULTI, None, size, ask.session)
        except (ClientRefusal, Malformed, struct_error):
            state.rollback()
            raise
        state.commit()
        header = _header(ask.session, xid, ask.zxid, ask.time_ms, Op.MULTI)
        tail = _digest(2, state.digest) if self._digested else b""
        state.zxid = ask.zxid
        if ask.zxid >= state.bucket_end:
            state.turn()
        return 0, b"".join((header, _int_pack(len(ops)), *parts, tail)), effects, results
