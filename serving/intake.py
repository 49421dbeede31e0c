"""Where inputs lie: uploads under the digest of their bytes, and one folder whose files may be named by key."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from contracts.errors import Reject
from contracts.files import commit
from contracts.reasons import Reason

STORE = "store:"  # before a key of the allowed folder
SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,127}")
BLOCK = 2**20
ORPHANED_S = 3600.0  # an upload that no execution has after so long belongs to nobody


class Intake:
    """Uploads kept under ``folder``; keys looked up under ``allowed``, if there is such a folder."""

    def __init__(self, folder: Path, allowed: Path | None = None) -> None:
        self.folder, self.allowed = folder, allowed

    def keep(self, upload: IO[bytes]) -> str:
        """Store the bytes of ``upload``; their SHA-256. Bytes that are there already are not written again."""
        upload.seek(0)
        state = hashlib.sha256()
        while block := upload.read(BLOCK):
            state.update(block)
        digest = state.hexdigest()
        path = self.place(digest)
        if path.is_file():
            os.utime(path)  # young again: no sweep takes it before its job is in the ledger
            return digest
        upload.seek(0)
        with commit(path) as file:
            while block := upload.read(BLOCK):
                file.write(block)
        return digest

    def place(self, digest: str) -> Path:
        """Where the bytes of that SHA-256 lie, or would."""
        return self.folder / digest[:2] / digest

    def find(self, key: str) -> Path:
        """The file behind ``store:a/b.wav``. Raises ``Reject``: PATH_ESCAPE, MISSING_FILE."""
        if self.allowed is None:
            raise Reject(Reason.PATH_ESCAPE, "this service takes no keys: send the file itself")
        name = key.removeprefix(STORE)
        parts = name.split("/")
        if not all(SEGMENT.fullmatch(part) for part in parts) or len(parts) > 16:
            raise Reject(Reason.PATH_ESCAPE, f"{name!r} is not a key")
        path = self.allowed
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise Reject(Reason.PATH_ESCAPE, f"{name!r} is not a key")
        if not path.is_file():
            raise Reject(Reason.MISSING_FILE, f"there is nothing under the key {name!r}")
        return path

    def remove(self, digests: Iterable[str]) -> None:
        """Remove the bytes of those digests, where they are here."""
        for digest in digests:
            self.place(digest).unlink(missing_ok=True)

    def sweep(self, unused: Callable[[list[str]], list[str]]) -> int:
        """Remove old uploads that ``unused`` (of digests) says nobody has; how many went."""
        old = [
            path.name
            for path in self.folder.glob("??/*")
            if re.fullmatch(r"[0-9a-f]{64}", path.name) and time.time() - path.stat().st_mtime > ORPHANED_S
        ]
        gone = unused(old)
        self.remove(gone)
        return len(gone)
