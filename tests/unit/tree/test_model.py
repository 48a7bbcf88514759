"""The tree against an obvious model: a dict of nodes and the rules as the documents tell them.

The model knows nothing of bytes, caches, digests or effects; it says which code a request gets and
what each node looks like afterwards.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

import pytest
from tree_support import ALICE, ANYONE, OPEN, OTHER, SESSION, Server, entry, stat_of

from zkd.jute import records as rec
from zkd.jute.messages import encode_multi
from zkd.jute.protocol import Err, Op
from zkd.tree.settings import TreeSettings

ALICES = (entry(31, "digest", "alice:hash"),)
SPECIAL = {"/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"}


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class ModelNode:
    data: bytes | None = b""
    czxid: int = 0
    mzxid: int = 0
    pzxid: int = 0
    version: int = 0
    aversion: int = 0
    creates: int = 0
    owner: int = 0
    private: bool = False
    children: set[str] = field(default_factory=set)


class Model:
    def __init__(self) -> None:
        self.nodes = {path: ModelNode() for path in SPECIAL}
        self.nodes["/"].children = {"zookeeper"}
        self.nodes["/zookeeper"].children = {"quota", "config"}

    def node(self, path: str) -> ModelNode:
        if path not in self.nodes:
            raise Refused(Err.NO_NODE)
        return self.nodes[path]

    @staticmethod
    def require(condition: bool, code: int) -> None:
        if not condition:
            raise Refused(code)

    @staticmethod
    def valid(path: str) -> bool:
        if path == "/":
            return True
        parts = path.split("/")
        return parts[0] == "" and len(parts) > 1 and not {"", ".", ".."} & set(parts[1:])

    def split(self, path: str) -> tuple[str, str]:
        self.require("/" in path, Err.BAD_ARGUMENTS)
        parent, _, name = path.rpartition("/")
        return parent or "/", name

    def create(self, op: int, who: str, session: int, record: rec.CreateRequest, zxid: int) -> str:
        path, flags, acl = record.path or "", record.flags, record.acl
        self.require(flags in range(5), Err.BAD_ARGUMENTS)
        parent_path, _ = self.split(path)
        self.require(bool(acl), Err.INVALID_ACL)
        parent = self.node(parent_path)
        self.require(not parent.private or who == "alice", Err.NO_AUTH)
        if flags in (2, 3):
            path += f"{parent.creates:010}"
        self.require(self.valid(path), Err.BAD_ARGUMENTS)
        self.require(path not in self.nodes, Err.NODE_EXISTS)
        self.require(parent.owner <= 0, Err.NO_CHILDREN_FOR_EPHEMERALS)
        owner = session if flags in (1, 3) else 0
        if op == Op.CREATE_CONTAINER:
            owner = -(1 << 63)
        self.nodes[path] = ModelNode(
            record.data, zxid, zxid, zxid, owner=owner, private=acl == ALICES
        )
        parent.children.add(path.rpartition("/")[2])
        parent.creates += 1
        parent.pzxid = zxid
        return path

    def delete(self, who: str, path: str, version: int, zxid: int) -> None:
        parent_path, name = self.split(path)
        self.require(path not in SPECIAL, Err.BAD_ARGUMENTS)
        parent = self.node(parent_path)
        self.require(not parent.private or who == "alice", Err.NO_AUTH)
        node = self.node(path)
        self.require(version in (-1, node.version), Err.BAD_VERSION)
        self.require(not node.children, Err.NOT_EMPTY)
        del self.nodes[path]
        parent.children.remove(name)
        parent.pzxid = zxid

    def set_data(self, who: str, path: str, data: bytes | None, version: int, zxid: int) -> None:
        self.require(self.valid(path), Err.BAD_ARGUMENTS)
        node = self.node(path)
        self.require(
            (not node.private or who == "alice") and path != "/zookeeper/config", Err.NO_AUTH
        )
        self.require(version in (-1, node.version), Err.BAD_VERSION)
        node.data, node.mzxid = data, zxid
        node.version += 1

    def set_acl(self, who: str, record: rec.SetACLRequest) -> None:
        path = record.path or ""
        self.require(self.valid(path), Err.BAD_ARGUMENTS)
        self.require(bool(record.acl), Err.INVALID_ACL)
        node = self.node(path)
        self.require(
            (not node.private or who == "alice") and path != "/zookeeper/config", Err.NO_AUTH
        )
        self.require(record.version in (-1, node.aversion), Err.BAD_VERSION)
        node.private = record.acl == ALICES
        node.aversion += 1

    def check(self, who: str, path: str, version: int) -> None:
        self.require(self.valid(path), Err.BAD_ARGUMENTS)
        node = self.node(path)
        self.require(not node.private or who == "alice", Err.NO_AUTH)
        self.require(version in (-1, node.version), Err.BAD_VERSION)

    def close(self, session: int, zxid: int) -> None:
        for path in [path for path, node in self.nodes.items() if node.owner == session]:
            del self.nodes[path]
            parent, _, name = path.rpartition("/")
            self.nodes[parent or "/"].children.remove(name)
            self.nodes[parent or "/"].pzxid = zxid

    def one(self, op: int, record: rec.Record, who: str, session: int, zxid: int) -> None:
        if isinstance(record, rec.CreateRequest):
            self.create(op, who, session, record, zxid)
        elif isinstance(record, rec.DeleteRequest):
            self.delete(who, record.path or "", record.version, zxid)
        elif isinstance(record, rec.SetDataRequest):
            self.set_data(who, record.path or "", record.data, record.version, zxid)
        elif isinstance(record, rec.SetACLRequest):
            self.set_acl(who, record)
        elif isinstance(record, rec.CheckVersionRequest):
            self.check(who, record.path or "", record.version)

    def multi(
        self, ops: list[tuple[int, rec.Record]], who: str, session: int, zxid: int
    ) -> list[int]:
        """The code of each operation."""
        before = copy.deepcopy(self.nodes)
        for number, (op, record) in enumerate(ops):
            kind = Op.CREATE_CONTAINER if getattr(record, "flags", 0) == 4 else op
            try:
                self.one(kind, record, who, session, zxid)
            except Refused as refused:
                self.nodes = before
                return [0] * number + [refused.code] + [-2] * (len(ops) - number - 1)
        return [0] * len(ops)


def random_op(pick: random.Random) -> tuple[int, rec.Record]:
    path = "".join("/" + pick.choice("abc") for _ in range(pick.randint(1, 3)))
    if pick.random() < 0.05:
        path = pick.choice(["/", "x", "/a/", "/a//b", "/a/..", "/zookeeper", "/zookeeper/config"])
    version = pick.choice([-1, -1, 0, 1])
    data = pick.choice([None, b"", b"data"])
    acl = pick.choice([OPEN, OPEN, OPEN, ALICES, ()])
    kind = pick.randint(0, 6)
    if kind <= 2:
        op = pick.choice([Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER])
        return op, rec.CreateRequest(path, data, acl, pick.choice([0, 0, 0, 1, 2, 3, 4]))
    if kind == 3:
        return Op.SET_DATA, rec.SetDataRequest(path, data, version)
    if kind == 4:
        return Op.SET_ACL, rec.SetACLRequest(path, acl, version)
    return Op.DELETE, rec.DeleteRequest(path, version)


def agree(server: Server, model: Model) -> None:
    for path, node in model.nodes.items():
        stat = server.stat(path)
        assert (
            stat["czxid"],
            stat["mzxid"],
            stat["pzxid"],
            stat["version"],
            stat["cversion"],
            stat["owner"],
            stat["children"],
            stat["data_length"],
        ) == (
            node.czxid,
            node.mzxid,
            node.pzxid,
            node.version,
            node.creates,
            node.owner,
            len(node.children),
            len(node.data or b""),
        ), path
    assert server.state.node_count == len(model.nodes)
    assert server.state.data_bytes == sum(
        len(path) + len(node.data or b"") for path, node in model.nodes.items()
    )


@pytest.mark.parametrize("seed", range(12))
def test_codes_and_nodes_are_the_models(seed: int) -> None:
    pick = random.Random(seed)
    server = Server(TreeSettings(digest_enabled=seed % 2 == 0))
    model = Model()
    codes: set[int] = set()
    for number in range(500):
        session = pick.choice((SESSION, OTHER))
        who = pick.choice(("alice", "anyone"))
        identities = ALICE if who == "alice" else ANYONE
        choice = pick.random()
        zxid = server.zxid + 1
        if choice < 0.02:
            assert server.ask(Op.CLOSE_SESSION, b"", session=session)[0] == 0
            model.close(session, zxid)
        elif choice < 0.2:
            ops = [random_op(pick) for _ in range(pick.randint(1, 4))]
            ops = [
                (Op.CHECK, rec.CheckVersionRequest("/a", -1)) if op == Op.SET_ACL else (op, one)
                for op, one in ops
            ]
            results = server.ask(
                Op.MULTI, encode_multi(ops), session=session, identities=identities
            )[3]
            expected = model.multi(ops, who, session, zxid)
            assert results is not None
            if any(expected):
                assert results == [(-1, code) for code in expected]
            else:
                assert all(result[0] != Op.ERROR for result in results)
            codes.update(expected)
        else:
            op, record = random_op(pick)
            code = 0
            try:
                model.one(op, record, who, session, zxid)
            except Refused as refused:
                code = refused.code
            answer = server.ask(op, record.encode(), session=session, identities=identities)
            assert answer[0] == code, (number, record)
            codes.add(code)
        if number % 50 == 49:
            agree(server, model)
    agree(server, model)
    assert {0, Err.NO_NODE, Err.NODE_EXISTS, Err.NO_AUTH, Err.BAD_VERSION} <= codes


@pytest.mark.parametrize("seed", range(6))
def test_hostile_bytes_change_nothing_and_are_answered(seed: int) -> None:
    """Requests cut, flipped and spliced: an answer each, and the tree stays whole."""
    pick = random.Random(seed)
    server = Server(TreeSettings(extended_types_enabled=True))
    ops = (*range(-11, 23), 100)
    for _ in range(1500):
        op, record = random_op(pick)
        body = bytearray(record.encode())
        if pick.random() < 0.3:
            body = bytearray(encode_multi([random_op(pick) for _ in range(pick.randint(0, 4))]))
            op = Op.MULTI
        for _ in range(pick.choice([0, 1, 1, 3])):
            if body:
                body[pick.randrange(len(body))] = pick.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
        if pick.random() < 0.2:
            body = body[: pick.randint(0, len(body))]
        if pick.random() < 0.1:
            op = pick.choice([one for one in ops if one not in (Op.CLOSE_SESSION, -10)])
        before = (server.state.digest, server.state.node_count)
        err, txn, effects, results = server.ask(op, bytes(body))
        failed = err or (results and results[0][0] == Op.ERROR)
        assert not failed or not effects
        assert not failed or (server.state.digest, server.state.node_count) == before
        assert len(txn) >= 36 or (err, txn) == (Err.MARSHALLING_ERROR, b"")
    replica = Server(server.settings)
    for one in server.log:
        assert replica.state.apply(one[1]) == one[2]
    assert replica.state.digest == server.state.digest
    assert replica.state.digest_mismatches == 0
    assert stat_of(replica.state.own["/"].stat) == server.stat("/")
