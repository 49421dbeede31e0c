"""Run in a network namespace of its own: plans every address with a listener on its own loopback, prints what came."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import tempfile
from pathlib import Path

SIOCSIFFLAGS, UP = 0x8914, 1


def main(root: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:  # loopback is down in a new namespace
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", UP, b""))
    from hostile.factory import listening
    from hostile.lines import urls

    from contracts.manifest import row_from
    from preprocessing.plan import plan_dataset

    with listening() as listener, tempfile.TemporaryDirectory() as folder:
        rows = [row_from({"file": name}) for name in urls(listener.port)]
        planned = plan_dataset(Path(folder) / "D", rows, root)
        found = {"connections": listener.heard, "reasons": [str(row.reason) for row in planned]}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
