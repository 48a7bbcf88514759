"""Conversations written by hand: what a random run would hardly do, one short script each.

Each is a list of steps as in `steps`; run on fresh servers, so zxids count from one. What 3.9.5
answers to them is in `recorded`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.conformance import wire
from tests.conformance.shadow import SUPER, digest_id
from tests.conformance.steps import Drop, Open, Send, Step

Scenario = Callable[[], list[Step]]
SCENARIOS: dict[str, Scenario] = {}
JUTE_MAXBUFFER = 0xFFFFF
_xid = 0


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def opened(slot: int, number: int, **more: object) -> Open:
    return Open(slot, number, 30000, **more)  # type: ignore[arg-type]


def sent(slot: int, *requests: tuple[int, bytes], alone: bool = False) -> Send:
    """Requests (opcode, body) with xids that count up."""
    global _xid
    payloads = []
    for op, body in requests:
        _xid += 1
        payloads.append(wire.request(_xid, op, body))
    return Send(slot, tuple(payloads), alone)


def create(path: wire.Text, flags: int = 0, data: bytes | None = b"x") -> tuple[int, bytes]:
    return wire.CREATE2, wire.create(path, data, wire.OPEN, flags)


def read(path: wire.Text, watch: int = 0) -> tuple[int, bytes]:
    return wire.GET_DATA, wire.watched(path, watch)


def listed(path: wire.Text, watch: int = 0) -> tuple[int, bytes]:
    return wire.GET_CHILDREN2, wire.watched(path, watch)


def written(path: wire.Text, data: bytes | None, version: int = -1) -> tuple[int, bytes]:
    return wire.SET_DATA, wire.set_data(path, data, version)


def deleted(path: wire.Text, version: int = -1) -> tuple[int, bytes]:
    return wire.DELETE, wire.versioned(path, version)


@scenario
def old_clients_get_no_read_only_byte() -> list[Step]:
    return [
        opened(0, 1, read_only=b""),
        sent(0, create("/a"), read("/a")),
        opened(1, 2, resume=1, read_only=b""),
        opened(2, 3, read_only=b"\1"),
    ]


@scenario
def session_moves_between_connections() -> list[Step]:
    """The ephemeral stays, the watches of the old connection are gone, the old one is closed."""
    return [
        opened(0, 1),
        sent(0, create("/a"), create("/a/e", 1), read("/a", 1), listed("/a", 1)),
        opened(1, 2, resume=1),
        sent(1, written("/a", b"y"), read("/a/e"), (wire.GET_EPHEMERALS, wire.text("/"))),
        opened(2, 3, resume=1, password="wrong"),
        opened(1, 4, resume=1),
        sent(1, (wire.GET_EPHEMERALS, wire.text("/"))),
    ]


@scenario
def close_session_ends_what_is_behind_it() -> list[Step]:
    return [
        opened(0, 1),
        opened(1, 2),
        sent(1, listed("/", 1), (wire.EXISTS, wire.watched("/e", 1))),
        sent(0, create("/e", 1)),
        sent(1, (wire.EXISTS, wire.watched("/e", 1)), listed("/", 1)),
        sent(0, (wire.CLOSE_SESSION, b""), alone=True),
        opened(2, 3, resume=1),
        sent(1, read("/e"), listed("/")),
    ]


@scenario
def session_ends_without_its_connection() -> list[Step]:
    """An ephemeral outlives the connection, not the session."""
    return [
        opened(0, 1),
        opened(1, 2),
        sent(0, create("/e", 1)),
        Drop(0),
        sent(1, read("/e", 1)),
        opened(0, 3, resume=1),
        sent(0, read("/e")),
        sent(0, (wire.CLOSE_SESSION, b""), alone=True),
        sent(1, read("/e")),
    ]


@scenario
def longest_request_is_accepted() -> list[Step]:
    """A payload of jute.maxbuffer bytes, header and path and ACL included; then it is read."""
    empty = len(wire.request(0, *create("/a", data=b"")))
    return [
        opened(0, 1),
        sent(0, create("/a", data=bytes(JUTE_MAXBUFFER - empty))),
        sent(0, read("/a")),
        opened(1, 2),
        Send(1, (bytes(JUTE_MAXBUFFER + 1),), alone=True),
        sent(0, read("/a")),
    ]


@scenario
def many_children() -> list[Step]:
    """A listing of 300,000 bytes, in no order."""
    names = [f"/p/{number:0100d}" for number in range(3000)]
    batches = [names[at : at + 500] for at in range(0, len(names), 500)]
    ops = [[(wire.CREATE, wire.create(name, b"", wire.OPEN, 0)) for name in b] for b in batches]
    return [
        opened(0, 1),
        sent(0, create("/p"), *((wire.MULTI, wire.multi(batch)) for batch in ops)),
        sent(0, listed("/p"), (wire.GET_ALL_CHILDREN_NUMBER, wire.text("/"))),
        sent(0, (wire.GET_CHILDREN, wire.watched("/p", 1)), create("/p/last")),
    ]


@scenario
def deep_tree() -> list[Step]:
    paths = ["/d" * depth for depth in range(1, 201)]
    return [
        opened(0, 1),
        sent(0, *(create(path) for path in paths)),
        sent(0, (wire.ADD_WATCH, wire.versioned("/d", 1)), written(paths[-1], b"y")),
        sent(0, (wire.GET_ALL_CHILDREN_NUMBER, wire.text("/d")), listed(paths[100])),
        sent(0, *(deleted(path) for path in reversed(paths[1:]))),
        sent(0, listed("/d")),
    ]


@scenario
def long_path() -> list[Step]:
    name = "/" + "n" * 100000
    return [
        opened(0, 1),
        sent(0, create(name), read(name, 1), written(name, b"y"), listed("/"), deleted(name)),
    ]


@scenario
def sequence_counts_every_child() -> list[Step]:
    return [
        opened(0, 1),
        sent(0, create("/p"), create("/p/a"), create("/p/s-", 2), deleted("/p/a")),
        sent(0, create("/p/", 2), create("/p/e", 3), create("/p/s-", 3), listed("/p")),
        sent(0, *(deleted(f"/p/{name}") for name in ("s-0000000001", "0000000002")), listed("/p")),
        sent(0, create("/p/s-", 2), listed("/p")),
        sent(0, (wire.CREATE, wire.create("/", b"", wire.OPEN, 2)), listed("/")),
    ]


@scenario
def versions() -> list[Step]:
    return [
        opened(0, 1),
        sent(0, create("/a"), written("/a", b"1", 1), written("/a", b"1", 0), written("/a", None)),
        sent(0, deleted("/a", 1), deleted("/a", -2), read("/a"), written("/a", b"", 2)),
        sent(0, create("/a/b"), deleted("/a", 1), deleted("/a", 3), deleted("/a")),
        sent(0, (wire.SET_ACL, wire.set_acl("/a", wire.OPEN, 1))),
        sent(0, (wire.SET_ACL, wire.set_acl("/a", wire.OPEN, 0))),
        sent(0, (wire.SET_ACL, wire.set_acl("/a", wire.OPEN, -1)), read("/a")),
    ]


@scenario
def special_nodes() -> list[Step]:
    config, quota = "/zookeeper/config", "/zookeeper/quota"
    return [
        opened(0, 1),
        sent(0, *(read(path) for path in ("/", "/zookeeper", config, quota))),
        sent(0, *((wire.GET_ACL, wire.text(path)) for path in ("/", "", config, quota))),
        sent(0, *(deleted(path) for path in ("/", "", "/zookeeper", config, quota))),
        sent(0, written(config, b"x"), create("/zookeeper"), create(config), create("/")),
        sent(0, create("/zookeeper/mine"), create(config + "/c"), create(quota + "/a")),
        sent(0, (wire.AUTH, wire.auth("digest", SUPER)), alone=True),
        sent(0, read(config, 1), written(config, b"x"), read(config), deleted(config)),
        sent(0, written("/", b"root"), read(""), written("", b"no"), create("", data=b"no")),
    ]


@scenario
def super_user_passes_every_acl() -> list[Step]:
    secret: tuple[wire.Acl, ...] = ((1, "digest", digest_id(b"ann:one")),)
    return [
        opened(0, 1),
        sent(0, (wire.CREATE2, wire.create("/a", b"x", secret, 0)), read("/a"), listed("/a")),
        sent(0, (wire.GET_ACL, wire.text("/a")), (wire.EXISTS, wire.watched("/b", 1))),
        sent(0, (wire.AUTH, wire.auth("digest", b"ann:one")), alone=True),
        sent(0, read("/a"), written("/a", b"y"), (wire.GET_ACL, wire.text("/a"))),
        sent(0, (wire.AUTH, wire.auth("digest", SUPER)), alone=True),
        sent(0, (wire.WHO_AM_I, b""), written("/a", b"y"), (wire.GET_ACL, wire.text("/a"))),
        sent(0, create("/a/b"), (wire.SET_ACL, wire.set_acl("/a", wire.OPEN, -1)), deleted("/a/b")),
        sent(0, (wire.CREATE, wire.create("/s", b"", ((31, "super", ""),), 0))),
    ]


@scenario
def auth_scheme_takes_the_identities_of_the_connection() -> list[Step]:
    mine: tuple[wire.Acl, ...] = ((31, "auth", "whatever"),)
    return [
        opened(0, 1),
        sent(0, (wire.CREATE, wire.create("/a", b"", mine, 0))),
        sent(0, (wire.AUTH, wire.auth("digest", b"ann:one")), alone=True),
        sent(0, (wire.AUTH, wire.auth("digest", b"ann:one")), alone=True),
        sent(0, (wire.CREATE, wire.create("/a", b"", mine, 0)), (wire.GET_ACL, wire.text("/a"))),
        sent(0, (wire.AUTH, wire.auth("digest", b"bob:two")), alone=True),
        sent(0, (wire.CREATE, wire.create("/b", b"", mine, 0)), (wire.GET_ACL, wire.text("/b"))),
        sent(0, (wire.WHO_AM_I, b"")),
        opened(1, 2),
        sent(1, read("/a"), (wire.GET_ACL, wire.text("/a")), (wire.EXISTS, wire.watched("/a"))),
    ]


@scenario
def multi_sees_its_own_changes() -> list[Step]:
    ops: Sequence[tuple[int, bytes]] = (
        create("/m"),
        create("/m/s-", 2),
        create("/m/s-", 3),
        (wire.CHECK, wire.versioned("/m", 0)),
        written("/m", b"1", 0),
        (wire.CHECK, wire.versioned("/m", 1)),
        deleted("/m/s-0000000000"),
        create("/m/s-", 2),
    )
    failing = (*ops[4:5], deleted("/m"), create("/m/x"))
    return [
        opened(0, 1),
        opened(1, 2),
        sent(1, (wire.ADD_WATCH, wire.versioned("/", 1)), listed("/", 1)),
        sent(0, (wire.MULTI, wire.multi(ops)), listed("/m"), read("/m")),
        sent(0, (wire.MULTI, wire.multi(failing)), listed("/m"), create("/m/s-", 2)),
        sent(0, (wire.MULTI, wire.multi(())), (wire.MULTI_READ, wire.multi(()))),
    ]


@scenario
def check_alone() -> list[Step]:
    return [
        opened(0, 1),
        sent(0, create("/a")),
        sent(0, (wire.CHECK, wire.versioned("/a", 0)), alone=True),
        opened(0, 2, resume=1),
        sent(0, (wire.CHECK, wire.versioned("/a", 5)), alone=True),
        opened(0, 3, resume=1),
        sent(0, read("/a")),
    ]


@scenario
def create_session_from_a_client() -> list[Step]:
    """Answered like a handshake; the session goes on."""
    return [
        opened(0, 1),
        sent(0, (wire.CREATE_SESSION, wire.int_(30000)), alone=True),
        sent(0, create("/a"), read("/a")),
    ]


@scenario
def ipv6_acls() -> list[Step]:
    names = ("::1", "::1/128", "::/0", "::1/129", "1::2::3", "::ffff:127.0.0.1", "fe80::1%lo")
    acls: list[tuple[wire.Acl, ...]] = [
        ((31, "ip", name), (1, "world", "anyone")) for name in names
    ]
    return [
        opened(0, 1),
        *(
            sent(0, (wire.CREATE, wire.create(f"/{number}", b"", acl, 0)), create(f"/{number}/c"))
            for number, acl in enumerate(acls)
        ),
    ]


@scenario
def watches_fire_once_and_in_order() -> list[Step]:
    return [
        opened(0, 1),
        opened(1, 2),
        sent(0, create("/w"), create("/w/c")),
        sent(1, read("/w", 1), listed("/w", 1), (wire.EXISTS, wire.watched("/w/new", 1))),
        sent(0, written("/w", b"1"), written("/w", b"2"), create("/w/new"), deleted("/w/c")),
        sent(1, read("/w", 1), listed("/w", 1), (wire.EXISTS, wire.watched("/w", 1))),
        sent(0, deleted("/w/new"), deleted("/w"), create("/w")),
        sent(0, (wire.SET_ACL, wire.set_acl("/w", wire.OPEN, -1))),
    ]


@scenario
def watches_of_all_kinds_on_one_path() -> list[Step]:
    kinds = [(wire.CHECK_WATCHES, wire.versioned("/w", kind)) for kind in range(7)]
    return [
        opened(0, 1),
        opened(1, 2),
        sent(0, create("/w")),
        sent(1, read("/w", 1), listed("/w", 1), (wire.ADD_WATCH, wire.versioned("/w", 0))),
        sent(1, (wire.ADD_WATCH, wire.versioned("/w", 1)), *kinds),
        sent(0, written("/w", b"1"), create("/w/c"), written("/w/c", b"1"), deleted("/w/c")),
        sent(1, *kinds, (wire.REMOVE_WATCHES, wire.versioned("/w", 4)), *kinds),
        sent(0, written("/w", b"2"), create("/w/c"), deleted("/w/c")),
        sent(1, (wire.REMOVE_WATCHES, wire.versioned("/w", 5)), *kinds),
        sent(0, written("/w", b"3"), deleted("/w")),
    ]


@scenario
def set_watches_tells_what_was_missed() -> list[Step]:
    data = ("/a", "/b", "/gone", "/never")
    exist = ("/a", "/never")
    child = ("/a", "/b", "/gone")
    return [
        opened(0, 1),
        sent(0, create("/a"), create("/b"), create("/gone"), written("/a", b"1")),
        sent(0, create("/a/c"), deleted("/gone")),
        opened(1, 2),
        Send(1, (wire.request(-8, wire.SET_WATCHES, wire.set_watches(4, (data, exist, child))),)),
        sent(0, written("/b", b"1"), create("/never"), create("/b/c"), written("/a", b"2")),
        Send(
            1,
            (
                wire.request(
                    -8,
                    wire.SET_WATCHES2,
                    wire.set_watches(99, (data, exist, child, ("/a", "/zz"), ("/b", "/zz"))),
                ),
            ),
        ),
        sent(0, written("/b", b"2"), create("/b/d"), written("/a", b"2"), create("/zz")),
    ]


@scenario
def ephemerals_have_no_children() -> list[Step]:
    return [
        opened(0, 1),
        sent(0, create("/e", 1), create("/e/c"), create("/e/c", 1), read("/e")),
        sent(0, (wire.CREATE_CONTAINER, wire.create("/c", b"", wire.OPEN, 4)), create("/c/e", 1)),
        sent(0, (wire.CREATE_TTL, wire.create_ttl("/t", b"", wire.OPEN, 5, 10**6)), create("/t/x")),
        sent(
            0, read("/c"), read("/t"), read("/c/e"), deleted("/t"), deleted("/t/x"), deleted("/t")
        ),
        sent(0, (wire.GET_EPHEMERALS, wire.text("/c")), (wire.GET_EPHEMERALS, wire.text(" "))),
    ]
