"""Every message that the processes of one server send each other, and how it is coded.

A message is one frame: a marshalled tuple whose first item is the kind. marshal is used for
its speed; both ends are forks of one supervisor, in a private directory, so they run the same
interpreter and trust each other.

Who sends what to whom:

    front-end -> peer      JOIN, REQUESTS, TOUCH, CONN_CLOSED
    front-end -> storage   JOIN
    peer      -> storage   OPEN, TXNS
                           in an ensemble also COMMITTED, EPOCHS, TRUNCATE, INSTALL
    peer      -> front-end BEGIN, TXNS, ANSWERS, GRANT, CLOSE_CONN, REJOIN
                           in an ensemble also COMMITTED
    storage   -> peer      OPENED, DURABLE, FAILED
                           in an ensemble also SAVED, TRUNCATED, INSTALLED
    storage   -> front-end DURABLE
    admin     -> storage   JOIN, if there are commit observers
    storage   -> admin     DURABLE with what is committed, ten times a second at most
    front-end -> front-end COUNTS
    anyone    -> anyone    QUERY, REPLY (statistics for four-letter words, metrics, the console)

Lives: every start of a process has a number from the supervisor, and its inbox is named after it,
so nothing that was meant for an earlier life reaches a later one. Incarnations: see peer.py.
"""

from __future__ import annotations

import marshal
from typing import Any, Final

JOIN: Final = 1
"""(JOIN, name, life, connections): connections = [(conn, session, identities)] that live on."""
REQUESTS: Final = 2
"""(REQUESTS, life, sent_ms, items): items = [(conn, xid, op, payload)], see the codes below;
sent_ms of CLOCK_MONOTONIC."""
TOUCH: Final = 3
"""(TOUCH, life, sent_ms, [(session, heard_ms)]): sessions heard of since the last one; ms of
CLOCK_MONOTONIC. It is also the front-end's sign of life."""
CONN_CLOSED: Final = 4
"""(CONN_CLOSED, life, conn): the answer to CLOSE_CONN."""
OPEN: Final = 5
"""(OPEN, peer_life): begin a new incarnation."""
TXNS: Final = 6
"""(TXNS, incarnation, seq, [txn]): one drained batch, the same bytes to storage and front-ends."""
BEGIN: Final = 7
"""(BEGIN, incarnation, peer_life, committed, seq, alone, deadline, writes, forget, pending): what a
front-end holds above committed is dropped, pending = [txn] takes its place; the next TXNS has the
number seq. forget: unanswered requests will never be answered; close their connections.

alone: what storage says is durable is committed. Otherwise COMMITTED says it, and each role begins
with a BEGIN of its own, in the same incarnation; it ends with a GRANT of NO_GRANT."""
ANSWERS: Final = 8
"""(ANSWERS, incarnation, seq, [(conn, xid, after_zxid, kind, payload)]): without a transaction."""
GRANT: Final = 9
"""(GRANT, incarnation, deadline, writes): serve until this instant of CLOCK_MONOTONIC."""
NO_GRANT: Final = 0.0
"""The deadline of a GRANT that ends a role: all clients are closed at once, nothing that is not
answered will be; nobody is served before the next BEGIN. (A deadline that has merely passed may
have waited in the inbox behind a better one.)"""
REFUSE: Final = 0
ACCEPT: Final = 1
HOLD: Final = 2
READ_ONLY: Final = 3
"""What a GRANT says of writes. HOLD: read no more of them from clients until it ends. READ_ONLY:
the server is cut off; clients that do not ask for this are sent away, writes are NOTREADONLY."""
CLOSE_CONN: Final = 10
"""(CLOSE_CONN, conn, reason): close this connection and say CONN_CLOSED."""
REJOIN: Final = 11
"""(REJOIN, incarnation): the peer does not know this front-end; JOIN again."""
OPENED: Final = 12
"""(OPENED, peer_life, incarnation, durable, tree_zxid, generation, accepted, current,
must_synchronise, committed): what is on the disk. The last four are for an ensemble: both epochs;
why this server may not vote before a snapshot has come ("" if it may; then durable may be below
committed: the log has lost its end); committed is at least tree_zxid, and not kept over a restart
of storage."""
DURABLE: Final = 13
"""(DURABLE, incarnation, seq, durable, tree_zxid, turn): readers of the tree should move on when
turn has changed.

In an ensemble the peer hears it after each commit of the log, front-ends only when turn has
changed: for them it commits nothing. TRUNCATED and INSTALLED come before the first DURABLE that
speaks of the log as it is then."""
FAILED: Final = 14
"""(FAILED, peer_life, incarnation, durable, reason): this incarnation accepts nothing more."""
QUERY: Final = 15
"""(QUERY, ident, what, reply_to): reply_to = (name, life)."""
REPLY: Final = 16
"""(REPLY, ident, name, payload)."""

COUNTS: Final = 17
"""(COUNTS, name, {address: connections}): one front-end's clients, to the other front-ends."""

# In an ensemble.
COMMITTED: Final = 18
"""(COMMITTED, incarnation, zxid): everything up to zxid, which is durable here, is committed. The
same frame to storage, which takes it into the tree, and to front-ends, which apply it."""
EPOCHS: Final = 19
"""(EPOCHS, incarnation, accepted, current): write both, not before what came before."""
SAVED: Final = 20
"""(SAVED, incarnation, accepted, current): EPOCHS is durable."""
TRUNCATE: Final = 21
"""(TRUNCATE, incarnation, zxid): drop the rows above zxid."""
TRUNCATED: Final = 22
"""(TRUNCATED, incarnation, zxid): the log ends at zxid, durably. IMPOSSIBLE instead of the zxid:
nothing was changed, because the log has no such row or the tree may hold more; only a snapshot can
bring this server back."""
IMPOSSIBLE: Final = -1
INSTALL: Final = 23
"""(INSTALL, incarnation, zxid, [(zxid, body)], accepted, current): the tree of the next generation,
which is finished at zxid, takes the place of the present one, these rows that of the whole log, and
both epochs are set: in one step. The rows are pending, until COMMITTED."""
INSTALLED: Final = 24
"""(INSTALLED, incarnation, zxid, generation): INSTALL is durable."""

# Codes of items in REQUESTS beside the client's own opcodes; negative, so that none can collide.
NEW_SESSION: Final = -10
"""payload = (timeout_ms, identities)"""
REATTACH: Final = -20
"""payload = (session, password, timeout_ms, identities)"""
IDENTITIES: Final = -21
"""payload = identities"""
CLIENT_SESSION: Final = -23
"""payload = body: a client's own createSession, which Apache ZooKeeper answers like a handshake"""
GONE: Final = -22
"""payload = reason; the connection has ended"""

# Kinds in ANSWERS.
SYNCED: Final = 1
"""payload = None: the reply to sync may go out once after_zxid is applied."""
ATTACHED: Final = 2
"""payload = (session, timeout_ms, password)"""
REFUSED: Final = 3
"""payload = None: no such session, wrong password, or closing."""
THROTTLED: Final = 5
"""payload = None: it has waited too long and was not done (throttled_op_wait_time)."""
UNREADABLE: Final = 6
"""payload = None: the request could not be decoded (or its transaction would have been too large);
it has used no zxid."""
MOVED: Final = 4
"""payload = reason: the connection is no longer the session's; close it."""
SESSION_CLOSED: Final = 7
"""payload = None: the answer to closeSession of a session that no transaction knows (local)."""
DENIED: Final = 8
"""payload = error code: not done, and no transaction says so."""

encode: Final = marshal.dumps
_loads: Final = marshal.loads


def decode(frame: bytes | memoryview) -> Any:
    """The tuple that was encoded."""
    return _loads(frame)
