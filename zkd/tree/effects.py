"""Effects: what one transaction did to the tree, in order, as plain tuples.

They carry states, not operations: installing one twice is harmless. They go over the bus as they
are, so they hold nothing but ints, str, bytes and None.

    (CREATED, path, stat, data, acl)    (STAT, path, stat)
    (DELETED, path, owner)              (QUOTA, path, stat, data)
    (CHANGED, path, stat, data)         (SESSION, session, timeout_ms)
    (ACL, path, stat, acl)              (CLOSED, session, digest)

`stat` is a raw stat (68 bytes), `acl` the encoded list or None for world:anyone:31, `owner` the raw
ephemeralOwner that the node had. `digest` is the tree's after the closing, 0 if it is not known: a
closeSession without its list carries none itself. The first three numbers are also the types of the
watch events that these effects fire.
"""

from __future__ import annotations

from typing import Any, Final

CREATED: Final = 1
DELETED: Final = 2
CHANGED: Final = 3
ACL: Final = 4
STAT: Final = 5
QUOTA: Final = 6
SESSION: Final = 7
CLOSED: Final = 8

Effect = tuple[Any, ...]
