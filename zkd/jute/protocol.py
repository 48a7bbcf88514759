"""Numbers of ZooKeeper's client protocol.

Plain ints in namespaces (an `IntEnum` member costs several times as much to compare). Names are
those of Apache ZooKeeper in upper case. Source: `ZooDefs.java`, `KeeperException.java`,
`CreateMode.java`, `Watcher.java` of Apache ZooKeeper 3.9.5.
"""

from __future__ import annotations

from typing import Final


class Op:
    """Operation codes, of requests and of transactions."""

    NOTIFICATION: Final = 0
    CREATE: Final = 1
    DELETE: Final = 2
    EXISTS: Final = 3
    GET_DATA: Final = 4
    SET_DATA: Final = 5
    GET_ACL: Final = 6
    SET_ACL: Final = 7
    GET_CHILDREN: Final = 8
    SYNC: Final = 9
    PING: Final = 11
    GET_CHILDREN2: Final = 12
    CHECK: Final = 13
    MULTI: Final = 14
    CREATE2: Final = 15
    RECONFIG: Final = 16
    CHECK_WATCHES: Final = 17
    REMOVE_WATCHES: Final = 18
    CREATE_CONTAINER: Final = 19
    DELETE_CONTAINER: Final = 20
    CREATE_TTL: Final = 21
    MULTI_READ: Final = 22
    AUTH: Final = 100
    SET_WATCHES: Final = 101
    SASL: Final = 102
    GET_EPHEMERALS: Final = 103
    GET_ALL_CHILDREN_NUMBER: Final = 104
    SET_WATCHES2: Final = 105
    ADD_WATCH: Final = 106
    WHO_AM_I: Final = 107
    ERROR: Final = -1
    GET_CHILDREN_PAGE: Final = 0x7A6B0001
    """zkd's own: docs/extensions.md."""
    CREATE_SESSION: Final = -10
    CLOSE_SESSION: Final = -11


class Err:
    """Error codes of replies and of error transactions."""

    OK: Final = 0
    SYSTEM_ERROR: Final = -1
    RUNTIME_INCONSISTENCY: Final = -2
    DATA_INCONSISTENCY: Final = -3
    CONNECTION_LOSS: Final = -4
    MARSHALLING_ERROR: Final = -5
    UNIMPLEMENTED: Final = -6
    OPERATION_TIMEOUT: Final = -7
    BAD_ARGUMENTS: Final = -8
    UNKNOWN_SESSION: Final = -12
    NEW_CONFIG_NO_QUORUM: Final = -13
    RECONFIG_IN_PROGRESS: Final = -14
    API_ERROR: Final = -100
    NO_NODE: Final = -101
    NO_AUTH: Final = -102
    BAD_VERSION: Final = -103
    NO_CHILDREN_FOR_EPHEMERALS: Final = -108
    NODE_EXISTS: Final = -110
    NOT_EMPTY: Final = -111
    SESSION_EXPIRED: Final = -112
    INVALID_CALLBACK: Final = -113
    INVALID_ACL: Final = -114
    AUTH_FAILED: Final = -115
    SESSION_MOVED: Final = -118
    NOT_READONLY: Final = -119
    EPHEMERAL_ON_LOCAL_SESSION: Final = -120
    NO_WATCHER: Final = -121
    REQUEST_TIMEOUT: Final = -122
    RECONFIG_DISABLED: Final = -123
    SESSION_CLOSED_REQUIRE_SASL_AUTH: Final = -124
    QUOTA_EXCEEDED: Final = -125
    THROTTLED_OP: Final = -127


class Perm:
    """Permission bits of an ACL entry."""

    READ: Final = 1
    WRITE: Final = 2
    CREATE: Final = 4
    DELETE: Final = 8
    ADMIN: Final = 16
    ALL: Final = 31


class CreateMode:
    """Flags of a create request."""

    PERSISTENT: Final = 0
    EPHEMERAL: Final = 1
    PERSISTENT_SEQUENTIAL: Final = 2
    EPHEMERAL_SEQUENTIAL: Final = 3
    CONTAINER: Final = 4
    PERSISTENT_WITH_TTL: Final = 5
    PERSISTENT_SEQUENTIAL_WITH_TTL: Final = 6


class EventType:
    """Types of a watch event."""

    NONE: Final = -1
    CREATED: Final = 1
    DELETED: Final = 2
    DATA_CHANGED: Final = 3
    CHILDREN_CHANGED: Final = 4


class KeeperState:
    """Connection states in a watch event; a server sends SYNC_CONNECTED alone."""

    DISCONNECTED: Final = 0
    SYNC_CONNECTED: Final = 3
    AUTH_FAILED: Final = 4
    CONNECTED_READ_ONLY: Final = 5
    SASL_AUTHENTICATED: Final = 6
    CLOSED: Final = 7
    EXPIRED: Final = -112


class WatcherType:
    """Type codes of checkWatches and removeWatches."""

    CHILDREN: Final = 1
    DATA: Final = 2
    ANY: Final = 3
    PERSISTENT: Final = 4
    PERSISTENT_RECURSIVE: Final = 5


class AddWatchMode:
    """Modes of addWatch."""

    PERSISTENT: Final = 0
    PERSISTENT_RECURSIVE: Final = 1


class Xid:
    """Reserved request numbers."""

    NOTIFICATION: Final = -1
    PING: Final = -2
    AUTH: Final = -4
    SET_WATCHES: Final = -8


OP_NAMES: Final[dict[int, str]] = {
    Op.NOTIFICATION: "notification",
    Op.CREATE: "create",
    Op.DELETE: "delete",
    Op.EXISTS: "exists",
    Op.GET_DATA: "getData",
    Op.SET_DATA: "setData",
    Op.GET_ACL: "getACL",
    Op.SET_ACL: "setACL",
    Op.GET_CHILDREN: "getChildren",
    Op.SYNC: "sync",
    Op.PING: "ping",
    Op.GET_CHILDREN2: "getChildren2",
    Op.CHECK: "check",
    Op.MULTI: "multi",
    Op.CREATE2: "create2",
    Op.RECONFIG: "reconfig",
    Op.CHECK_WATCHES: "checkWatches",
    Op.REMOVE_WATCHES: "removeWatches",
    Op.CREATE_CONTAINER: "createContainer",
    Op.DELETE_CONTAINER: "deleteContainer",
    Op.CREATE_TTL: "createTTL",
    Op.MULTI_READ: "multiRead",
    Op.AUTH: "auth",
    Op.SET_WATCHES: "setWatches",
    Op.SASL: "sasl",
    Op.GET_EPHEMERALS: "getEphemerals",
    Op.GET_ALL_CHILDREN_NUMBER: "getAllChildrenNumber",
    Op.SET_WATCHES2: "setWatches2",
    Op.ADD_WATCH: "addWatch",
    Op.WHO_AM_I: "whoAmI",
    Op.GET_CHILDREN_PAGE: "getChildrenPage",
    Op.ERROR: "error",
    Op.CREATE_SESSION: "createSession",
    Op.CLOSE_SESSION: "closeSession",
}
