"""A standing Prefect server: commands that find none start one each, which costs more than their work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

from faults.material import until
from faults.row import MARK

STANDING = "VOXFACE_FAULT_SERVER"  # in the environment of rows: the address of one for all of them


def start_server(folder: Path, mark: str, *, ui: bool = False) -> str:
    """Start Prefect's server on a free port: the address at which it will answer. ``kill_marked(mark)`` ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    own = {MARK: mark, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    own["PREFECT_UI_API_URL"] = address  # which the page asks: by default that of port 4200
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    words.append("--ui" if ui else "--no-ui")
    subprocess.Popen(
        [sys.executable, *words], env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return address


def answering(address: str, seconds: float = 300.0) -> str:
    """``address`` once the server answers there. Raises ``RuntimeError`` where it does not in time."""

    def answers() -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(f"{address}/health", timeout=2).status == 200
        return False

    if not until(answers, seconds):
        raise RuntimeError("Prefect's server does not answer")
    return address
