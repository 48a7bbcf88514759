"""Stands in for `java` when kazoo's tests start their ZooKeeper: runs zkd instead.

kazoo's test harness (kazoo/testing/common.py) writes a zoo.cfg and starts
`java ... -Dkey=value ... QuorumPeerMain zoo.cfg`. This takes that command line, writes the
configuration again with what was a system property as a key, and becomes `zkd serve`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# TLS and SASL come with issues of their own; the tests that need them are left out.
LEFT_OUT_KEYS = re.compile(r"secureClientPort|serverCnxnFactory|authProvider\.|ssl\.")
_PROPERTIES = ("zookeeper.DigestAuthenticationProvider.superDigest", "readonlymode.enabled")


def translate(arguments: list[str]) -> str:
    """The text of a zoo.cfg for zkd from java's command line."""
    lines = [
        line
        for line in Path(arguments[-1]).read_text().splitlines()
        if line.strip() and not LEFT_OUT_KEYS.match(line)
    ]
    for argument in arguments:
        key, equals, value = argument.removeprefix("-D").partition("=")
        if argument.startswith("-D") and equals and key in _PROPERTIES:
            lines.append(f"{key.removeprefix('zookeeper.')}={value}")
    return "\n".join(lines) + "\n"


def main() -> None:
    config = Path(sys.argv[-1]).with_name("zkd.cfg")
    config.write_text(translate(sys.argv[1:]))
    os.environ["PYTHONPATH"] = str(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "zkd", "serve", str(config)])


if __name__ == "__main__":
    main()
