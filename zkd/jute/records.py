"""Declarative records of the client protocol, the transactions and what they share.

A record is a frozen dataclass; its annotations say how each field is encoded. For tests, tools and
slow paths: the hot paths of the server slice bytes instead.
Source: `zookeeper.jute` of Apache ZooKeeper; spec client-protocol sections 3 to 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from zkd.jute import codec
from zkd.jute.codec import Reader

R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class Codec:
    """How one kind of field is written and read."""

    write: Callable[[Any], bytes]
    read: Callable[[Reader], Any]


Int = Annotated[int, Codec(codec.int_, Reader.int_)]
Long = Annotated[int, Codec(codec.long, Reader.long)]
Bool = Annotated[bool, Codec(codec.boolean, Reader.boolean)]
Buffer = Annotated[bytes | None, Codec(codec.buffer, Reader.buffer)]
UString = Annotated[str | None, Codec(codec.string, Reader.string)]


def _write_strings(value: tuple[str | None, ...] | None) -> bytes:
    return codec.vector(None if value is None else map(codec.string, value))


def _read_strings(reader: Reader) -> tuple[str | None, ...] | None:
    strings = reader.vector(Reader.string)
    return None if strings is None else tuple(strings)


Strings = Annotated[tuple[str | None, ...] | None, Codec(_write_strings, _read_strings)]


_known: dict[type[Record], tuple[tuple[str, Codec], ...]] = {}


def _codecs(cls: type[Record]) -> tuple[tuple[str, Codec], ...]:
    found = _known.get(cls)
    if found is None:
        hints = get_type_hints(cls, include_extras=True)
        found = tuple((field.name, _codec_of(hints[field.name])) for field in fields(cls))
        _known[cls] = found
    return found


def _codec_of(hint: Any) -> Codec:
    if get_origin(hint) is Annotated:
        found = get_args(hint)[1]
        assert isinstance(found, Codec)
        return found
    if isinstance(hint, type) and issubclass(hint, Record):
        return Codec(lambda value: value.encode(), hint.decode)
    item = get_args(get_args(hint)[0])[0]  # tuple[item, ...] | None
    inner = _codec_of(item)

    def write(value: tuple[Any, ...] | None) -> bytes:
        return codec.vector(None if value is None else map(inner.write, value))

    def read(reader: Reader) -> tuple[Any, ...] | None:
        items = reader.vector(inner.read)
        return None if items is None else tuple(items)

    return Codec(write, read)


@dataclass(frozen=True, slots=True)
class Record:
    """What all records can do."""

    def encode(self) -> bytes:
        """The record's bytes."""
        return b"".join(one.write(getattr(self, name)) for name, one in _codecs(type(self)))

    @classmethod
    def decode(cls: type[R], reader: Reader) -> R:
        """Read one record. Raises Malformed."""
        return cls(*(one.read(reader) for _, one in _codecs(cls)))

    @classmethod
    def from_bytes(cls: type[R], data: bytes) -> R:
        """Read one record; what follows it is ignored, as Apache ZooKeeper does."""
        return cls.decode(Reader(data))


# ---- shared


@dataclass(frozen=True, slots=True)
class Id(Record):
    scheme: UString
    id: UString


@dataclass(frozen=True, slots=True)
class ACL(Record):
    perms: Int
    id: Id


WORLD_ALL = (ACL(31, Id("world", "anyone")),)


@dataclass(frozen=True, slots=True)
class Stat(Record):
    czxid: Long
    mzxid: Long
    ctime: Long
    mtime: Long
    version: Int
    cversion: Int
    aversion: Int
    ephemeralOwner: Long
    dataLength: Int
    numChildren: Int
    pzxid: Long


@dataclass(frozen=True, slots=True)
class ClientInfo(Record):
    authScheme: UString
    user: UString


@dataclass(frozen=True, slots=True)
class RequestHeader(Record):
    xid: Int
    type: Int


@dataclass(frozen=True, slots=True)
class ReplyHeader(Record):
    xid: Int
    zxid: Long
    err: Int


@dataclass(frozen=True, slots=True)
class MultiHeader(Record):
    type: Int
    done: Bool
    err: Int


# ---- requests


@dataclass(frozen=True, slots=True)
class ConnectRequest(Record):
    """Clients before 3.4 and some of today leave `readOnly` out: see `from_bytes`."""

    protocolVersion: Int
    lastZxidSeen: Long
    timeOut: Int
    sessionId: Long
    passwd: Buffer
    readOnly: Bool = False

    @classmethod
    def decode(cls, reader: Reader) -> ConnectRequest:
        """Read one; a missing `readOnly` is false. Raises Malformed."""
        head = (reader.int_(), reader.long(), reader.int_(), reader.long(), reader.buffer())
        return cls(*head, reader.remaining() > 0 and reader.boolean())


@dataclass(frozen=True, slots=True)
class PathRequest(Record):
    """sync, getACL, deleteContainer, getAllChildrenNumber, getEphemerals (a prefix)."""

    path: UString


@dataclass(frozen=True, slots=True)
class ReadRequest(Record):
    """exists, getData, getChildren, getChildren2."""

    path: UString
    watch: Bool


@dataclass(frozen=True, slots=True)
class CreateRequest(Record):
    path: UString
    data: Buffer
    acl: tuple[ACL, ...] | None
    flags: Int


@dataclass(frozen=True, slots=True)
class CreateTTLRequest(Record):
    path: UString
    data: Buffer
    acl: tuple[ACL, ...] | None
    flags: Int
    ttl: Long


@dataclass(frozen=True, slots=True)
class DeleteRequest(Record):
    path: UString
    version: Int


@dataclass(frozen=True, slots=True)
class SetDataRequest(Record):
    path: UString
    data: Buffer
    version: Int


@dataclass(frozen=True, slots=True)
class SetACLRequest(Record):
    path: UString
    acl: tuple[ACL, ...] | None
    version: Int


@dataclass(frozen=True, slots=True)
class CheckVersionRequest(Record):
    path: UString
    version: Int


@dataclass(frozen=True, slots=True)
class WatchesRequest(Record):
    """checkWatches and removeWatches: a type code; addWatch: a mode."""

    path: UString
    type: Int


@dataclass(frozen=True, slots=True)
class ReconfigRequest(Record):
    joiningServers: UString
    leavingServers: UString
    newMembers: UString
    curConfigId: Long


@dataclass(frozen=True, slots=True)
class AuthPacket(Record):
    type: Int
    scheme: UString
    auth: Buffer


@dataclass(frozen=True, slots=True)
class SetWatches(Record):
    relativeZxid: Long
    dataWatches: Strings
    existWatches: Strings
    childWatches: Strings


@dataclass(frozen=True, slots=True)
class SetWatches2(Record):
    relativeZxid: Long
    dataWatches: Strings
    existWatches: Strings
    childWatches: Strings
    persistentWatches: Strings
    persistentRecursiveWatches: Strings


@dataclass(frozen=True, slots=True)
class SASLToken(Record):
    """Request and response of sasl."""

    token: Buffer


# ---- responses and events


@dataclass(frozen=True, slots=True)
class ConnectResponse(Record):
    """`readOnly` is left out for a client that left it out: cut off the last byte."""

    protocolVersion: Int
    timeOut: Int
    sessionId: Long
    passwd: Buffer
    readOnly: Bool = False

    @classmethod
    def decode(cls, reader: Reader) -> ConnectResponse:
        """Read one; a missing `readOnly` is false. Raises Malformed."""
        head = (reader.int_(), reader.int_(), reader.long(), reader.buffer())
        return cls(*head, reader.remaining() > 0 and reader.boolean())


@dataclass(frozen=True, slots=True)
class CreateResponse(Record):
    """Also of sync."""

    path: UString


@dataclass(frozen=True, slots=True)
class Create2Response(Record):
    path: UString
    stat: Stat


@dataclass(frozen=True, slots=True)
class StatResponse(Record):
    """exists, setData, setACL."""

    stat: Stat


@dataclass(frozen=True, slots=True)
class GetDataResponse(Record):
    data: Buffer
    stat: Stat


@dataclass(frozen=True, slots=True)
class GetACLResponse(Record):
    acl: tuple[ACL, ...] | None
    stat: Stat


@dataclass(frozen=True, slots=True)
class GetChildrenResponse(Record):
    """Also of getEphemerals."""

    children: Strings


@dataclass(frozen=True, slots=True)
class GetChildren2Response(Record):
    children: Strings
    stat: Stat


@dataclass(frozen=True, slots=True)
class GetChildrenPageRequest(Record):
    """zkd's own (docs/extensions.md)."""

    path: UString
    after: UString
    limit: Int


@dataclass(frozen=True, slots=True)
class GetChildrenPageResponse(Record):
    """zkd's own (docs/extensions.md)."""

    children: Strings
    more: Bool
    stat: Stat


@dataclass(frozen=True, slots=True)
class IntResponse(Record):
    """getAllChildrenNumber: a number; addWatch and failures in a multi: an error code."""

    value: Int


@dataclass(frozen=True, slots=True)
class WhoAmIResponse(Record):
    clientInfo: tuple[ClientInfo, ...] | None


@dataclass(frozen=True, slots=True)
class WatcherEvent(Record):
    type: Int
    state: Int
    path: UString


# ---- transactions


@dataclass(frozen=True, slots=True)
class CreateTxn(Record):
    path: UString
    data: Buffer
    acl: tuple[ACL, ...] | None
    ephemeral: Bool
    parentCVersion: Int


@dataclass(frozen=True, slots=True)
class CreateTxnV0(Record):
    path: UString
    data: Buffer
    acl: tuple[ACL, ...] | None
    ephemeral: Bool


@dataclass(frozen=True, slots=True)
class CreateContainerTxn(Record):
    path: UString
    data: Buffer
    acl: tuple[ACL, ...] | None
    parentCVersion: Int


@dataclass(frozen=True, slots=True)
class CreateTTLTxn(Record):
    path: UString
    data: Buffer
    acl: tuple[ACL, ...] | None
    parentCVersion: Int
    ttl: Long


@dataclass(frozen=True, slots=True)
class DeleteTxn(Record):
    path: UString


@dataclass(frozen=True, slots=True)
class SetDataTxn(Record):
    path: UString
    data: Buffer
    version: Int


@dataclass(frozen=True, slots=True)
class SetACLTxn(Record):
    path: UString
    acl: tuple[ACL, ...] | None
    version: Int


@dataclass(frozen=True, slots=True)
class CheckVersionTxn(Record):
    path: UString
    version: Int


@dataclass(frozen=True, slots=True)
class CreateSessionTxn(Record):
    timeOut: Int


@dataclass(frozen=True, slots=True)
class CloseSessionTxn(Record):
    paths2Delete: Strings


@dataclass(frozen=True, slots=True)
class ErrorTxn(Record):
    err: Int


@dataclass(frozen=True, slots=True)
class Txn(Record):
    """A part of a multi: a type and its record."""

    type: Int
    data: Buffer


@dataclass(frozen=True, slots=True)
class MultiTxn(Record):
    txns: tuple[Txn, ...] | None
