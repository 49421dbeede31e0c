"""What the service did, a JSON line each, with the ids of jobs: for programs that read logs. Nothing about people."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

FOLDER = "log"  # under the service's
BYTES, OLDER = 16 * 2**20, 3  # of a file, and how many before it are kept
KEPT_S = 30 * 24 * 3600.0  # a file of a process that is gone


class Journal:
    """The file of one process: ``log/<kind>-<host>-<pid>.jsonl``. A disk that is full costs lines, and no video."""

    def __init__(self, root: Path, kind: str) -> None:
        folder = root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.jsonl*"):
            if time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink(missing_ok=True)
        path = folder / f"{kind}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._handler = RotatingFileHandler(path, maxBytes=BYTES, backupCount=OLDER, delay=True, encoding="utf-8")
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]

    def write(self, event: str, **fields: Any) -> None:
        """A line: when (UTC), what, and ``fields``: ids, digests, counts, states and codes alone."""
        told = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        line = json.dumps(told, separators=(",", ":"))
        self._handler.handle(logging.LogRecord("voxface", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        self._handler.close()
