"""The text of a configuration as servers tell it to each other.

NEWLEADER, the notifications of an election, `/zookeeper/config` and the dynamic file hold the same
form: the lines `server.N`, `group.G`, `weight.N` and `version` (hexadecimal), read as Java
properties, so the last line of a key counts. `Membership.text` writes it. Several addresses of one
server are always read: who sends them has them in use, whatever the setting here says.

Source: `QuorumPeerConfig.parseDynamicConfig` of Apache ZooKeeper; spec zab-quorum-protocol 13.1.
"""

from __future__ import annotations

from zkd.config import properties
from zkd.config.servers import Membership, parse_group, parse_server


def parse_membership(text: str) -> Membership:
    """Read a configuration; ValueError, with a sentence, for anything that is none."""
    entries, bad = properties.parse(text)
    if bad:
        raise ValueError(bad[0].what)
    lines = {entry.key.strip(): entry.value.strip() for entry in entries}
    version = lines.pop("version", "0")
    servers, groups, weights = {}, {}, {}
    for key, value in lines.items():
        name, _, number = key.partition(".")
        if name == "server":
            sid = _number(key, number)
            servers[sid] = parse_server(sid, value, multi_address=True)
        elif name == "group":
            groups[_number(key, number)] = parse_group(value)
        elif name == "weight":
            weights[_number(key, number)] = _number(key, value)
        else:
            raise ValueError(f"'{key}' has no place in the configuration of an ensemble")
    return Membership(servers, groups, weights, _number("version", version, 16))


def _number(key: str, text: str, base: int = 10) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise ValueError(f"'{text}' in '{key}' is not a number") from None
