"""The writes of clients, one by one: checks, the change, and the record of the transaction.

A record comes in two pieces: most of the request's bytes, and a new tail. Nothing is changed before
the last check has passed. The order of checks is Apache ZooKeeper's.
Source: `PrepRequestProcessor.pRequest2Txn`; spec client-protocol section 8,
txn-and-storage-formats section 9.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import Final, NamedTuple

from zkd.jute.codec import INT, Malformed, Reader, string, wrap_int
from zkd.jute.protocol import Err, Op, Perm
from zkd.jute.txn import DIGEST_BYTES, HEADER_BYTES
from zkd.tree import acl as acls
from zkd.tree.acl import AclRegistry, Identity
from zkd.tree.effects import Effect
from zkd.tree.ephemeral import CONTAINER_OWNER, MAX_TTL_MS, NORMAL, kind, ttl_owner
from zkd.tree.errors import ClientRefusal
from zkd.tree.paths import ROOT, SPECIAL, is_valid
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

_REMEMBERED: Final = 1000

_int: Final = INT.unpack_from
_int_pack: Final = INT.pack
_long: Final = Struct(">q").unpack_from
_create_tail: Final = Struct(">?i").pack  # ephemeral, parentCVersion
_ttl_tail: Final = Struct(">iq").pack  # parentCVersion, ttl
_parent_fields: Final = Struct(">36xi4xq16x").unpack  # cversion, ephemeralOwner
_version: Final = Struct(">32xi32x").unpack
_aversion: Final = Struct(">40xi24x").unpack
_owner: Final = Struct(">44xq16x").unpack

_WORLD: Final = acls.WORLD_ALL
_WORLD_SIZE: Final = len(_WORLD)
_SEQUENTIAL: Final = frozenset({2, 3, 6})


class Refusal(NamedTuple):
    """A request whose transaction would be too large. `size` in bytes; `path` None for a multi."""

    session: int
    op: int
    path: str | None
    size: int


class QuotaExceeded(NamedTuple):
    """A write beyond a limit of the quota on `prefix`; it was refused if `hard`."""

    session: int
    path: str
    prefix: str
    hard: bool


class Ask:
    """Who asks, and what a transaction's changes are stamped with."""

    __slots__ = ("identities", "session", "session_error", "time_ms", "zxid")

    session: int
    identities: tuple[Identity, ...]
    zxid: int
    time_ms: int
    session_error: int


Record = tuple[bytes, bytes]
"""A transaction's record in two pieces: most of the request, and a new tail."""


class Operations:
    """The checks and changes of single operations; `Preparer` makes transactions of them."""

    def __init__(self, state: TreeState, settings: TreeSettings, registry: AclRegistry) -> None:
        self.state = state
        self.settings = settings
        self.registry = registry
        self.refusals: deque[Refusal] = deque(maxlen=_REMEMBERED)
        """Requests that would make too large a transaction, the latest last: for the log."""
        self.quota_exceeded: deque[QuotaExceeded] = deque(maxlen=_REMEMBERED)
        """Writes beyond a quota, the latest last: for the log."""
        self._record_max = settings.txn_max_bytes - HEADER_BYTES - DIGEST_BYTES
        self._checks_acl = not settings.skip_acl
        self._enforces = settings.enforce_quota
        self._fixed: dict[bytes, bytes | None] = {}

    def _create(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        size = _int(body)[0]
        path_end = 4 + size
        data_size = _int(body, path_end)[0] if size >= -1 else -2
        data_start = path_end + 4
        if size == -1:
            path_end, data_start = 4, 8
            data_size = _int(body, 4)[0]
        acl_start = data_start + (data_size if data_size > 0 else 0)
        if data_size < -1 or acl_start > len(body):
            raise Malformed("create")
        if body.startswith(_WORLD, acl_start):
            entries = None
            acl_end = acl_start + _WORLD_SIZE
        else:
            reader = Reader(body, acl_start, len(body))
            entries = acls.read(reader)
            acl_end = reader.pos
        flags = _int(body, acl_end)[0]
        ttl = _long(body, acl_end + 4)[0] if op == Op.CREATE_TTL else -1

        if flags or op == Op.CREATE_TTL or ask.session_error:
            self._check_mode(op, flags, ttl, ask)
        if size < 0:
            raise ClientRefusal(Err.MARSHALLING_ERROR)
        raw_path = body[4:path_end]
        try:
            path = raw_path.decode()
        except UnicodeDecodeError:
            path = raw_path.decode("utf-8", "replace")
        slash = path.rfind("/")
        if slash < 0 or "\0" in path:
            raise ClientRefusal(Err.BAD_ARGUMENTS)
        acl = None
        if entries is not None:
            acl = self._fix_up(body[acl_start:acl_end], entries, ask.identities)

        state = self.state
        parent_path = path[:slash] or ROOT
        parent = state.get(parent_path)
        if parent is None:
            raise ClientRefusal(Err.NO_NODE)
        if parent.acl is not None and self._checks_acl:
            self._permit(parent.acl, Perm.CREATE, ask.identities)
        cversion, parent_owner = _parent_fields(parent.stat)
        if flags in _SEQUENTIAL:
            path += f"{cversion:010d}"
        if not is_valid(path):
            raise ClientRefusal(Err.BAD_ARGUMENTS)
        if path == ROOT or state.exists_below(parent, parent_path, path):
            raise ClientRefusal(Err.NODE_EXISTS)
        if parent_owner and kind(parent_owner, self.settings) == NORMAL:
            raise ClientRefusal(Err.NO_CHILDREN_FOR_EPHEMERALS)
        data = body[data_start:acl_start] if data_size >= 0 else None
        if self._enforces and state.book.limits:
            self._check_quota(path, 1, len(data or b""), ask.session)
        cversion = cversion + 1 if cversion != 0x7FFFFFFF else -0x80000000

        head = body[:acl_end]
        if entries is not None or flags in _SEQUENTIAL:
            head = string(path) + body[path_end:acl_start] + acls.expand(acl)
        if op == Op.CREATE_CONTAINER:
            raw_owner, tail = CONTAINER_OWNER, _int_pack(cversion)
        elif op == Op.CREATE_TTL:
            raw_owner, tail = ttl_owner(ttl), _ttl_tail(cversion, ttl)
        else:
            ephemeral = flags == 1 or flags == 3
            raw_owner = ask.session if ephemeral else 0
            tail = _create_tail(ephemeral, cversion)
        if len(head) + len(tail) > self._record_max:
            self._refuse(op, path, len(head) + len(tail), ask.session)
        state.create(
            path,
            parent_path,
            parent,
            data,
            acl,
            raw_owner,
            cversion,
            ask.zxid,
            ask.time_ms,
            effects,
        )
        return head, tail

    def _check_mode(self, op: int, flags: int, ttl: int, ask: Ask) -> None:
        """Flags and ttl, then the session."""
        if not 0 <= flags <= 6:
            raise ClientRefusal(Err.BAD_ARGUMENTS)
        if flags >= 5:
            if not self.settings.extended_types_enabled:
                raise ClientRefusal(Err.UNIMPLEMENTED)
            if not 0 < ttl <= MAX_TTL_MS:
                raise ClientRefusal(Err.BAD_ARGUMENTS)
        elif op == Op.CREATE_TTL:
            raise ClientRefusal(Err.BAD_ARGUMENTS)
        error = ask.session_error
        if flags == 1 or flags == 3:
            if error == Err.UNKNOWN_SESSION:
                error = Err.SESSION_EXPIRED
        elif error == Err.EPHEMERAL_ON_LOCAL_SESSION:
            error = 0
        if error:
            raise ClientRefusal(error)

    def _set_data(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        size = _int(body)[0]
        path_end = 4 + size if size >= 0 else 4
        data_size = _int(body, path_end)[0]
        data_start = path_end + 4
        data_end = data_start + data_size if data_size > 0 else data_start
        expected = _int(body, data_end)[0]
        if size < -1 or data_size < -1:
            raise Malformed("setData")
        if ask.session_error:
            self._check_session(ask)
        raw_path = body[4:path_end]
        try:
            path = raw_path.decode()
        except UnicodeDecodeError:
            raise ClientRefusal(Err.BAD_ARGUMENTS) from None
        state = self.state
        node = state.get(path)
        if node is None:
            raise ClientRefusal(Err.NO_NODE if is_valid(path) else Err.BAD_ARGUMENTS)
        if node.acl is not None and self._checks_acl:
            self._permit(node.acl, Perm.WRITE, ask.identities)
        if self._enforces and state.book.limits:
            grown = data_end - data_start - int.from_bytes(node.stat[52:56])
            self._check_quota(path, 0, grown, ask.session)
        version = _version(node.stat)[0]
        if expected != -1 and expected != version:
            raise ClientRefusal(Err.BAD_VERSION)
        if data_end + 4 > self._record_max:
            self._refuse(op, path, data_end + 4, ask.session)
        version = version + 1 if version != 0x7FFFFFFF else -0x80000000
        data = body[data_start:data_end] if data_size >= 0 else None
        state.set_data(path, node, data, version, ask.zxid, ask.time_ms, effects)
        return body[:data_end], _int_pack(version)

    def _delete(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        size = _int(body)[0]
        end = 4 + size if size >= 0 else 4
        expected = _int(body, end)[0]
        if ask.session_error and size >= -1:
            self._check_session(ask)
        if size < 0:
            if size != -1:
                raise Malformed("delete")
            raise ClientRefusal(Err.MARSHALLING_ERROR)
        path, parent_path = self._deletable(body[4:end])
        state = self.state
        parent = state.get(parent_path)
        if parent is None:
            raise ClientRefusal(Err.NO_NODE)
        if parent.acl is not None and self._checks_acl:
            self._permit(parent.acl, Perm.DELETE, ask.identities)
        node = state.get(path)
        if node is None:
            raise ClientRefusal(Err.NO_NODE)
        if expected != -1 and expected != _version(node.stat)[0]:
            raise ClientRefusal(Err.BAD_VERSION)
        if node.stat[56:60] != b"\0\0\0\0":
            raise ClientRefusal(Err.NOT_EMPTY)
        state.delete(path, node, parent_path, parent, ask.zxid, effects)
        return body[:end], b""

    def _delete_container(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        if ask.session:
            raise ClientRefusal(Err.NO_AUTH)
        size = _int(body)[0]
        if size < 0 or 4 + size > len(body):
            raise ClientRefusal(Err.MARSHALLING_ERROR)
        path, parent_path = self._deletable(body[4 : 4 + size])
        state = self.state
        node = state.get(path)
        if node is None:
            raise ClientRefusal(Err.NO_NODE)
        if node.stat[56:60] != b"\0\0\0\0":
            raise ClientRefusal(Err.NOT_EMPTY)
        if kind(_owner(node.stat)[0], self.settings) == NORMAL:
            raise ClientRefusal(Err.BAD_VERSION)
        parent = state.get(parent_path)
        if parent is None:
            raise ClientRefusal(Err.NO_NODE)
        state.delete(path, node, parent_path, parent, ask.zxid, effects)
        return body[: 4 + size], b""

    def _set_acl(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        reader = Reader(body, 0, len(body))
        path = reader.string()
        path_end = reader.pos
        entries = acls.read(reader)
        raw_acl = body[path_end : reader.pos]
        expected = reader.int_()
        self._check_session(ask)
        if path is None or not is_valid(path):
            raise ClientRefusal(Err.BAD_ARGUMENTS)
        acl = self._fix_up(raw_acl, entries, ask.identities)
        node = self.state.get(path)
        if node is None:
            raise ClientRefusal(Err.NO_NODE)
        if node.acl is not None and self._checks_acl:
            self._permit(node.acl, Perm.ADMIN, ask.identities)
        aversion = _aversion(node.stat)[0]
        if expected != -1 and expected != aversion:
            raise ClientRefusal(Err.BAD_VERSION)
        aversion = wrap_int(aversion + 1)
        head = body[:path_end] + acls.expand(acl)
        if len(head) + 4 > self._record_max:
            self._refuse(op, path, len(head) + 4, ask.session)
        self.state.set_acl(path, node, acl, aversion, ask.zxid, effects)
        return head, _int_pack(aversion)

    def _check(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        reader = Reader(body, 0, len(body))
        path = reader.string()
        end = reader.pos
        expected = reader.int_()
        self._check_session(ask)
        if path is None or not is_valid(path):
            raise ClientRefusal(Err.BAD_ARGUMENTS)
        node = self.state.get(path)
        if node is None:
            raise ClientRefusal(Err.NO_NODE)
        if node.acl is not None and self._checks_acl:
            self._permit(node.acl, Perm.READ, ask.identities)
        version = _version(node.stat)[0]
        if expected != -1 and expected != version:
            raise ClientRefusal(Err.BAD_VERSION)
        return body[:end], _int_pack(wrap_int(version + 1))

    def _reconfig(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        """What a standalone server answers."""
        reader = Reader(body, 0, len(body))
        for _ in range(3):
            reader.string()
        reader.long()
        if not self.settings.reconfig_enabled:
            raise ClientRefusal(Err.RECONFIG_DISABLED)
        self._check_session(ask)
        raise ClientRefusal(Err.UNIMPLEMENTED)

    def _create_session(self, op: int, body: bytes, ask: Ask, effects: list[Effect]) -> Record:
        self.state.create_session(ask.session, _int(body)[0], effects)
        return body[:4], b""

    # ---- parts of the checks

    def _check_session(self, ask: Ask) -> None:
        error = ask.session_error
        if error and error != Err.EPHEMERAL_ON_LOCAL_SESSION:
            raise ClientRefusal(error)

    def _permit(self, acl: bytes, perm: int, identities: tuple[Identity, ...]) -> None:
        if not acls.check(acl, perm, identities, self.registry):
            raise ClientRefusal(Err.NO_AUTH)

    def _fix_up(
        self, raw: bytes, entries: list[acls.AclEntry], identities: tuple[Identity, ...]
    ) -> bytes | None:
        """The list as it is stored. What does not depend on who asks is remembered."""
        try:
            return self._fixed[raw]
        except KeyError:
            acl = acls.fix_up_entries(entries, identities, self.registry)
        if len(raw) <= 256 and not any(scheme == "auth" for _, scheme, _ in entries):
            if len(self._fixed) >= 1024:
                self._fixed.clear()
            self._fixed[raw] = acl
        return acl

    def _check_quota(self, path: str, count: int, size: int, session: int) -> None:
        found = self.state.book.check(path, count, size)
        if found is not None:
            prefix, limit = found
            hard = limit == "hard"
            self.quota_exceeded.append(QuotaExceeded(session, path, prefix, hard))
            if hard:
                raise ClientRefusal(Err.QUOTA_EXCEEDED)

    def _deletable(self, raw: bytes) -> tuple[str, str]:
        path = raw.decode("utf-8", "replace")
        slash = path.rfind("/")
        if slash < 0 or path in SPECIAL or "\0" in path:
            raise ClientRefusal(Err.BAD_ARGUMENTS)
        return path, path[:slash] or ROOT

    def _refuse(self, op: int, path: str | None, record_bytes: int, session: int) -> None:
        size = record_bytes + HEADER_BYTES + DIGEST_BYTES
        self.refusals.append(Refusal(session, op, path, size))
        raise ClientRefusal(Err.MARSHALLING_ERROR)
