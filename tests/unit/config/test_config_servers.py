"""server.N lines in all forms (quorum/QuorumPeer.java, class QuorumServer)."""

from __future__ import annotations

import pytest

from zkd.config.servers import (
    Endpoint,
    Membership,
    PeerAddress,
    ServerLine,
    faults,
    parse_group,
    parse_membership,
    parse_server,
    split_host,
)

A = PeerAddress("a", 2888, 3888)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a:2888:3888", ServerLine(1, (A,))),
        ("a:2888:3888:participant", ServerLine(1, (A,))),
        ("a:2888:3888:OBSERVER", ServerLine(1, (A,), "observer")),
        ("a:2888:3888;2181", ServerLine(1, (A,), client=Endpoint("0.0.0.0", 2181))),
        ("a:2888:3888;10.0.0.1:2181", ServerLine(1, (A,), client=Endpoint("10.0.0.1", 2181))),
        (
            "a:2888:3888:observer;[::1]:2181",
            ServerLine(1, (A,), "observer", Endpoint("::1", 2181)),
        ),
        (
            "a:2888:3888;2181;h:2281",
            ServerLine(1, (A,), "participant", Endpoint("0.0.0.0", 2181), Endpoint("h", 2281)),
        ),
        (
            "a:2888:3888;;b:2281",
            ServerLine(1, (A,), "participant", None, Endpoint("b", 2281)),
        ),
        ("[2001:db8::1]:2888:3888", ServerLine(1, (PeerAddress("2001:db8::1", 2888, 3888),))),
        (
            "a:2888:3888|b:2889:3889",
            ServerLine(1, (A, PeerAddress("b", 2889, 3889))),
        ),
        (
            "a:2888:3888:observer|b:2889:3889:observer;2181",
            ServerLine(1, (A, PeerAddress("b", 2889, 3889)), "observer", Endpoint("0.0.0.0", 2181)),
        ),
    ],
)
def test_a_server_line_is_read(text: str, line: ServerLine) -> None:
    assert parse_server(1, text, multi_address=True) == line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "form"),
        ("a", "form"),
        ("a:2888", "form"),
        ("a:2888:3888:participant:x", "form"),
        (":2888:3888", "form"),
        ("a:x:3888", "not a port"),
        ("a:2888:70000", "not a port"),
        ("a:2888:2888", "both"),
        ("a:2888:3888:leader", "neither"),
        ("a:2888:3888;2181;2281;9", "form"),
        ("a:2888:3888;b:c:d", "neither port"),
        ("[::1:2888:3888", "no ]"),
        ("[::1]2888:3888", "without a colon"),
        ("[::1]:", "no port"),
        ("a:2888:3888:observer|b:1:2:participant", "different roles"),
    ],
)
def test_a_server_line_that_is_none_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_server(1, text, multi_address=True)


def test_several_addresses_need_the_switch() -> None:
    with pytest.raises(ValueError, match=r"multiAddress\.enabled"):
        parse_server(1, "a:2888:3888|b:2889:3889")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a:2888:3888", "a:2888:3888:participant"),
        ("b:1:2|a:3:4:observer;2181", "a:3:4|b:1:2:observer;0.0.0.0:2181"),
        ("[::1]:1:2;[::1]:2181", "[::1]:1:2:participant;[::1]:2181"),
        ("a:1:2;;2281", "a:1:2:participant;;0.0.0.0:2281"),
        ("a:1:2;2181;2281", "a:1:2:participant;0.0.0.0:2181;0.0.0.0:2281"),
    ],
)
def test_the_canonical_form_is_the_references(text: str, canonical: str) -> None:
    line = parse_server(1, text, multi_address=True)
    assert str(line) == canonical
    assert str(parse_server(1, canonical, multi_address=True)) == canonical


def test_hosts_and_ports_are_split() -> None:
    assert split_host("a:1") == ["a", "1"]
    assert split_host("[::1]:1:2") == ["::1", "1", "2"]
    assert split_host("[::1]") == ["::1"]


def test_groups_are_lists_of_ids() -> None:
    assert parse_group("1:2:3") == (1, 2, 3)
    with pytest.raises(ValueError, match="list of server ids"):
        parse_group("1,2")


def member(sid: int, role: str = "participant") -> ServerLine:
    return ServerLine(sid, (A,), role)


@pytest.mark.parametrize(
    ("membership", "standalone_enabled", "fault"),
    [
        (Membership(), False, "needs at least one"),
        (Membership({1: member(1, "observer")}), True, "no participants"),
        (Membership({1: member(1), 2: member(2, "observer")}), True, "only one participant"),
        (Membership({1: member(1)}, {1: (1,), 2: (1,)}), True, "in group 1 and in group 2"),
        (Membership({1: member(1), 2: member(2)}, {1: (1,)}), True, "server 2 is in no group"),
        (Membership({1: member(1)}, {}, {1: 2}), True, "server 1 is in no group"),
    ],
)
def test_unusable_memberships_are_named(
    membership: Membership, standalone_enabled: bool, fault: str
) -> None:
    found = list(faults(membership, standalone_enabled=standalone_enabled))
    assert any(fault in one for one in found), found


def test_the_text_of_a_membership_is_that_of_zookeeper_config() -> None:
    servers = {1: parse_server(1, "a:1:2;2181"), 2: parse_server(2, "b:1:2:observer")}
    membership = Membership(servers, {1: (1,)}, {1: 5}, 0x1A)
    assert membership.text() == (
        "server.1=a:1:2:participant;0.0.0.0:2181\n"
        "server.2=b:1:2:observer\n"
        "group.1=1\n"
        "weight.1=5\n"
        "version=1a"
    )


TEXT = """server.1=a:2888:3888:participant;0.0.0.0:2181
server.2=[::1]:2888:3888:participant;[::1]:2181
server.10=b:1:2:observer|c:1:2:observer;0.0.0.0:2181;d:2281
group.1=1:2
weight.1=0
weight.2=3
version=10000002a"""


def test_the_text_of_a_configuration_is_read_back() -> None:
    found = parse_membership(TEXT)
    assert list(found.servers) == [1, 2, 10]
    assert (found.groups, found.weights, found.version) == ({1: (1, 2)}, {1: 0, 2: 3}, 0x10000002A)
    assert [line.id for line in found.observers()] == [10]
    assert parse_membership(found.text()) == found
    assert parse_membership("version = ff\r\nserver.3 : h\\:1:2").version == 255
    assert parse_membership("") == Membership()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tickTime=2000", "tickTime"),
        ("server.x=a:1:2", "server.x"),
        ("server=a:1:2", "server"),
        ("group.1=1:x", "list of server ids"),
        ("weight.1=-1", "not a weight"),
        ("weight.1=a", "not a weight"),
        ("a=\\u00", "line 1"),
        ("version=xyz", "hexadecimal"),
        ("version=-1", "hexadecimal"),
        ("version=", "hexadecimal"),
        ("server.1=a:1", "form"),
        ("server.1=\\uzzzz", "line 1"),
    ],
)
def test_other_text_than_a_configuration_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_membership(text)
