"""One process of a server without its supervisor: `child.py NAME LIFE CONFIG RUNTIME_DIR FD`.

FD is the control channel, which the test holds at its other end. What the process arms of fail
points comes from the environment, as ever.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from zkd import config as configuration
from zkd.bus.places import listen
from zkd.errors import OperatorError
from zkd.server import logs, ports
from zkd.server.process import Board, Child, SupervisorGone, quiet_collector


def main() -> int:
    name, life, path, runtime_dir, fd = sys.argv[1:]
    config = configuration.load(Path(path))
    logs.setup(config.log_config, name, server=config.name)
    control = socket.socket(fileno=int(fd))
    control.setblocking(False)
    child = Child(
        name=name,
        life=int(life),
        config=config,
        control=control,
        runtime_dir=Path(runtime_dir),
        board=Board(1),
        direct=listen(Path(runtime_dir), name, int(life)),
    )
    if name == "storage":
        from zkd.server.storage import main as run
    else:
        from zkd.server.frontend import main as run

        child.listener = ports.listen(config)[0]
    quiet_collector()
    try:
        run(child)
    except SupervisorGone:
        return 0
    except OperatorError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
