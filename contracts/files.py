"""How a file becomes visible: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from contracts.errors import Misuse, Transient

TEMPORARY = ".tmp-"
LOCK_FILE = ".lock"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_FAULTS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT})  # of a disk, or of one across a network

log = logging.getLogger(__name__)


@contextmanager
def commit(path: Path) -> Iterator[BinaryIO]:
    """Yield a writable file that appears at ``path`` only once it is complete and on disk.

    Raises ``Transient`` where the disk is full or fails. On any error nothing is visible at ``path``.
    """
    with _told(path), _committing(path) as file:
        yield file


def commit_written(path: Path, write: Callable[[Any], object]) -> str:
    """Commit what ``write`` writes to the file that it is given; return its SHA-256 (hex).

    The bytes are read back and compared before they become visible: a digest never vouches for a torn file. Where the
    disk fails, ``write`` is called a second time. Raises ``Transient`` naming ``path`` where that fails too.
    """
    with _told(path):
        try:
            return _write(path, write)
        except OSError as error:
            if error.errno not in DISK_FAULTS:
                raise
            log.warning("%s: %s: trying once more", path, error)
        return _write(path, write)


def commit_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` by :func:`commit_written`."""
    commit_written(path, lambda file: file.write(data))


@contextmanager
def _committing(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # unique, so that two writers of the same bytes cannot tear each other's file
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A full or failing disk under ``path`` as ``Transient``, naming the folder or the file."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Transient(f"NO_SPACE: {path.parent}: free some space, then run the same command again") from error
        if error.errno in DISK_FAULTS:
            raise Transient(
                f"{path} cannot be written: {error}: look at its disk, then run the same command"
            ) from error
        raise


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A disk that fails while ``path`` is read, as ``Transient`` that names it; every other error goes through."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL | DISK_FAULTS:
            raise Transient(
                f"{path} cannot be read: {error.strerror}: look at its disk, then run the same command again"
            ) from error
        raise


class _Digesting:
    """A file that is written front to back, and the digest of what was meant to be in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _write(path: Path, write: Callable[[Any], object]) -> str:
    with _committing(path) as file:
        meant = _Digesting(file)
        write(meant)
        file.flush()
        if sha256_file(Path(file.name)) != meant.sha256:
            raise OSError(errno.EIO, "the disk holds other bytes than were written", str(path))
    return meant.sha256


@contextmanager
def commit_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that appears at ``path`` only once all its files are on disk.

    An older folder at ``path`` is replaced as a whole.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with _told(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        os.fsync(file.fileno())
                sync_folder(Path(folder))
            if path.exists():
                old = path.with_name(f"{TEMPORARY}old-{path.name}.{secrets.token_hex(4)}")
                path.rename(old)
                temporary.rename(path)
                shutil.rmtree(old)
            else:
                temporary.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> int:
    """Remove what killed writers left in ``folder``; return how many entries went.

    Call it only while holding the folder's :func:`lock`.
    """
    leftovers = list(folder.glob(f"{TEMPORARY}*"))
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(files: dict[str, str]) -> str:
    """One digest for a set of files, from their relative names and SHA-256 digests."""
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` alone. A dead holder's lock is free at once (the kernel drops it).

    Raises ``Misuse`` naming the holder's process where another run holds it.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Misuse(f"{folder} is locked by process {holder}: wait for it, or stop it") from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise ``Transient`` unless ``folder``'s disk has ``needed_bytes`` free."""
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise Transient(
            f"NO_SPACE: {folder} needs about {needed_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            "free some space or choose another folder"
        )
