"""Private copies of sources that lie elsewhere: one row's at a time, gone after it, swept where a worker died."""

from __future__ import annotations

import atexit
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from contracts.errors import Misuse, Reject, Transient
from contracts.reasons import Reason

HELD = ".held"  # locked by the process that the folder belongs to, for as long as it lives
YOUNG_S = 60.0  # a folder without that file may be one that is being made
_held: dict[Path, BinaryIO] = {}  # keeps the locks


@contextmanager
def private_copy(chunks: Iterable[bytes], name: str, size: int, sha256: str) -> Iterator[Path]:
    """A file, readable by us alone, with the bytes of ``chunks``; it is removed at the end.

    ``name`` is the source's: its suffix is kept. ``size`` and ``sha256`` are what was planned, and no byte beyond
    ``size`` is written. Raises ``Reject(HASH_MISMATCH)`` where the bytes are others, ``Transient`` for a full disk.
    """
    suffix = "".join(re.findall(r"\.[A-Za-z0-9]{1,8}$", name))
    handle, place = tempfile.mkstemp(suffix=suffix, dir=_own(os.getpid()))
    path = Path(place)
    try:
        with open(handle, "wb") as file:
            digest, written = hashlib.sha256(), 0
            for chunk in chunks:
                written += len(chunk)
                if written > size:
                    break
                digest.update(chunk)
                _write(file, chunk, path)
        if written != size or digest.hexdigest() != sha256:
            raise Reject(Reason.HASH_MISMATCH, f"{name} has changed since it was planned")
        yield path
    finally:
        path.unlink(missing_ok=True)


def sweep_copies() -> int:
    """Remove the copies of processes that are no more; return how many processes left some."""
    base = _base()
    return sum(_swept(folder) for folder in base.iterdir()) if base.exists() else 0


def _write(file: BinaryIO, chunk: bytes, path: Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Transient(f"NO_SPACE: {path.parent}: free some space, or set TMPDIR to another disk") from error
        raise


def _base() -> Path:
    return Path(tempfile.gettempdir()) / f"voxface-copies-{os.getuid()}"


@cache
def _own(pid: int) -> Path:
    """The folder of this process, made when first asked for. Raises ``Misuse`` where its parent is not ours."""
    base = _base()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise Misuse(f"{base} is not a folder of ours alone: remove it, or set TMPDIR to another disk")
    sweep_copies()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{pid}-", dir=base))
        file = (folder / HELD).open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if (folder / HELD).exists():  # no sweeper was quicker than the lock
            _held[folder] = file
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder
        file.close()


def _swept(folder: Path) -> bool:
    """Whether ``folder`` was that of a dead process, and is gone."""
    if folder in _held:
        return False
    try:
        with (folder / HELD).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        return True
    except FileNotFoundError:
        try:
            old = time.time() - folder.stat().st_mtime > YOUNG_S
        except FileNotFoundError:
            return False
        if old:
            shutil.rmtree(folder, ignore_errors=True)
        return old
    except OSError:  # held by a process that lives
        return False
