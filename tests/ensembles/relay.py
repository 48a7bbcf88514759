"""Passes Ethernet frames on between two interfaces, in both directions, each after a delay.

    python -m tests.ensembles.relay INTERFACE INTERFACE MILLISECONDS

Says "ready" once it does. The frames keep what the kernel notes beside them (checksums still to be
made, segments still to be cut: packet(7), PACKET_VNET_HDR), so that links need no change for it.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3
_FRAME_MAX = 10 + 14 + 65536


def _open(interface: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    wire.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    wire.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    wire.bind((interface, 0))
    wire.setblocking(False)
    return wire


def run(one: str, other: str, delay_s: float) -> None:
    """Pass frames on for ever."""
    wires = [_open(one), _open(other)]
    across = {wires[0]: wires[1], wires[1]: wires[0]}
    late: deque[tuple[float, socket.socket, bytes]] = deque()
    print("ready", flush=True)
    while True:
        wait = max(late[0][0] - time.monotonic(), 0) if late else None
        readable, _, _ = select.select(wires, [], [], wait)
        now = time.monotonic()
        for wire in readable:
            try:
                while True:
                    late.append((now + delay_s, across[wire], wire.recv(_FRAME_MAX)))
            except BlockingIOError:
                pass
        while late and late[0][0] <= now:
            _, wire, frame = late.popleft()
            try:
                wire.send(frame)
            except OSError:
                pass  # a full queue or a link that is down: the frame is lost, as on any network


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000)
