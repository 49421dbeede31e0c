"""Where the files that rows name lie: a folder, any store that fsspec knows, and hosts that were allowed by name."""

from __future__ import annotations

import errno
import hashlib
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from contracts.errors import Misuse, Reject, Transient
from contracts.files import reading, sha256_file
from contracts.limits import Limits
from contracts.plan import PlannedRow
from contracts.reasons import Reason
from preprocessing import web
from preprocessing.copies import private_copy
from preprocessing.media.path import SCHEME, safe_path

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
CHUNK = 4 << 20  # bytes held of an object that streams by
THREADS = 8  # of planning: hashing waits on the disk or the store
TRIES = 3
WAIT_S = 0.5  # before the second try, four times that before the third, and up to half as much again
NETWORK = frozenset({"aiobotocore", "botocore", "aiohttp", "urllib3", "requests", "google", "azure", "asyncio"})
# of a store: the request itself is wrong, and will be the next time
PERMANENT = frozenset({errno.EINVAL, errno.ENAMETOOLONG, errno.EPERM, errno.ENOSYS, errno.EMSGSIZE, errno.ENOENT})

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A source that is there: its place, its size in bytes, and what changes when it does (empty: nothing known)."""

    place: str
    bytes: int
    mark: tuple[int | str, ...]


@dataclass(frozen=True)
class Sources:
    """The data root, and what else rows may name. Nothing here writes to it.

    ``root`` is a folder or an address such as ``s3://bucket/prefix``; credentials are those of the environment.
    ``hosts`` are the ones whose http(s) addresses rows may name; by default none. ``most_bytes`` is the largest source
    that is copied from elsewhere.
    """

    root: str
    hosts: tuple[str, ...] = ()
    most_bytes: int = Limits().fetched_bytes

    @classmethod
    def of(cls, root: Path | str | Sources) -> Sources:
        """``root`` as sources. Raises ``Misuse`` for an address that is none, or holds a user name or password."""
        if isinstance(root, Sources):
            return root
        text = str(root)
        if isinstance(root, Path) or "://" not in text:
            return cls(str(Path(text).resolve()))
        parts = urlsplit(text)
        if "@" in parts.netloc or not ADDRESS.match(text):
            raise Misuse("--data-root: give a plain address; credentials come from the environment")
        if parts.scheme in ("file", "local"):
            return cls(str(Path(unquote(parts.netloc + parts.path)).resolve()))
        return cls(text.rstrip("/"))

    @property
    def folder(self) -> Path | None:
        """The data root where it is a folder of this machine."""
        return None if ADDRESS.match(self.root) else Path(self.root)

    def check(self) -> None:
        """Raise ``Misuse`` where there is no such folder, or nothing in the store; ``Transient`` without an answer."""
        if self.folder is not None:
            if not self.folder.is_dir():
                raise Misuse(f"{self.root} is not a folder: check --data-root")
        elif self._web_root is None:
            try:
                _again(lambda: self._info(""))
            except Reject as error:
                if error.reason is Reason.MISSING_FILE:
                    raise Misuse(f"{self.root} holds nothing: check --data-root") from None
                log.warning("%s cannot be listed; its objects may still be read", self.root)

    def look(self, name: str) -> Found:
        """The source that ``name`` stands for, without reading it.

        Raises ``Reject``: URL_REFUSED, PATH_ESCAPE, MISSING_FILE, NOT_A_FILE, UNREADABLE or EMPTY_FILE; ``Transient``
        where a store or host does not answer, three times.
        """
        url = self.address(name)
        if url is not None:
            return _again(lambda: self._asked(url))
        if self.folder is not None:
            path = safe_path(self.folder, name)
            status = path.stat()
            return Found(str(path), status.st_size, (status.st_mtime_ns, status.st_ino))
        info = _again(lambda: self._info(self._inside(name)))
        if info["type"] != "file":
            raise Reject(Reason.NOT_A_FILE, f"{name!r} is a folder, device, pipe or socket")
        size = int(info["size"] or 0)
        if size == 0:
            raise Reject(Reason.EMPTY_FILE, f"{name!r} has zero bytes")
        self._bounded(name, size)
        marks = (info.get(key) for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "created"))
        return Found(f"{self.root}/{name}", size, tuple(str(mark) for mark in marks if mark))

    def digest(self, name: str, found: Found) -> tuple[str, int]:
        """SHA-256 (hex) and size of the source, read in blocks and kept nowhere.

        Raises as :meth:`look` does, ``Transient`` also where the disk fails, three times.
        """
        if self.folder is not None and self.address(name) is None:
            return _again(lambda: _read(Path(found.place))), found.bytes

        def streamed() -> tuple[str, int]:
            digest, size = hashlib.sha256(), 0
            for chunk in self._chunks(name):
                digest.update(chunk)
                size += len(chunk)
            if size == 0:
                raise Reject(Reason.EMPTY_FILE, f"{name!r} has zero bytes")
            return digest.hexdigest(), size

        return _again(streamed)

    @contextmanager
    def held(self, planned: PlannedRow) -> Iterator[Path]:
        """The planned row's source as a file: itself where it is one, else a private copy that is gone afterwards.

        Raises ``Reject(HASH_MISMATCH)`` where it no longer holds the planned bytes, and as :meth:`look` does.
        """
        name = planned.values.file
        if self.folder is not None and self.address(name) is None:
            path = safe_path(self.folder, name)
            if path.stat().st_size != planned.bytes or _again(lambda: _read(path)) != planned.sha256:
                raise Reject(Reason.HASH_MISMATCH, f"{name} has changed since it was planned")
            yield path
            return
        self._bounded(name, planned.bytes)
        with ExitStack() as stack:

            def copied() -> Path:
                return stack.enter_context(private_copy(self._chunks(name), name, planned.bytes, planned.sha256))

            yield _again(copied)

    def address(self, name: str) -> str | None:
        """The http(s) address to ask for ``name``, or ``None`` where it is no such thing.

        Raises ``Reject(URL_REFUSED)`` for any address that is not allowed.
        """
        if SCHEME.match(name):
            web.allowed(name, self.hosts)
            return name
        if self._web_root is not None:
            return f"{self.root}/{quote(self._inside(name))}"
        return None

    @property
    def _web_root(self) -> str | None:
        """The host of the data root where that is an http(s) address."""
        parts = urlsplit(self.root)
        return parts.netloc if parts.scheme in ("http", "https") else None

    def _allowed(self) -> tuple[str, ...]:
        return (*self.hosts, self._web_root) if self._web_root else self.hosts

    def _inside(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not name or name.startswith("/") or ".." in parts or "\0" in name:
            raise Reject(Reason.PATH_ESCAPE, f"{name!r} leads out of the data root")
        return name

    def _bounded(self, name: str, size: int) -> None:
        if size > self.most_bytes:
            raise Reject(Reason.UNREADABLE, f"{name!r} has {size} bytes, {self.most_bytes} are allowed (fetched_bytes)")

    def _asked(self, url: str) -> Found:
        with web.answer(url, self._allowed(), "HEAD") as response:
            length = response.getheader("Content-Length") or ""
            marks = (response.getheader(key) for key in ("ETag", "Last-Modified"))
            size = int(length) if length.isdigit() else 0
            self._bounded(url, size)
            return Found(url, size, tuple(mark for mark in marks if mark) if size else ())

    def _info(self, name: str) -> dict[str, Any]:
        store, base = _store(self.root)
        with _judged(name or self.root):
            info: dict[str, Any] = store.info(f"{base}/{name}" if name else base)
            return info

    def _chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of the source, in blocks. Raises as :meth:`look` does, also half-way."""
        url = self.address(name)
        if url is not None:
            with web.answer(url, self._allowed()) as response:
                yield from web.body(response, self.most_bytes)
            return
        store, base = _store(self.root)
        left = self.most_bytes
        with _judged(name), store.open(f"{base}/{self._inside(name)}", "rb", block_size=CHUNK) as file:
            while chunk := file.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise Reject(Reason.UNREADABLE, f"{name!r} has more than {self.most_bytes} bytes (fetched_bytes)")
                yield chunk


def count_sources(sources: Sources, names: list[str]) -> tuple[dict[str, int], Counter[Reason]]:
    """Bytes of each source that ``names`` stand for, and how many of ``names`` are refused, by reason.

    Nothing is read. An address on an allowed host is not asked: 0 bytes.
    """

    def look(name: str) -> int | Reason:
        try:
            return 0 if SCHEME.match(name) and sources.address(name) else sources.look(name).bytes
        except Reject as error:
            return error.reason

    times = Counter(names)
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(times, pool.map(look, times)))
    refused: Counter[Reason] = Counter()
    for name, how in found.items():
        if isinstance(how, Reason):
            refused[how] += times[name]
    return {name: how for name, how in found.items() if isinstance(how, int)}, refused


@cache
def _store(root: str) -> tuple[Any, str]:
    """The fsspec file system of ``root``, without caches of what is in it, and the path of ``root`` there."""
    from fsspec.core import url_to_fs

    try:
        store, base = url_to_fs(root, use_listings_cache=False)
    except ImportError as error:
        raise Misuse(f"--data-root {root}: {error}") from None
    except ValueError as error:
        raise Misuse(f"--data-root {root}: {error}") from None
    return store, base.rstrip("/")


@contextmanager
def _judged(name: str) -> Iterator[None]:
    """What a store raises, as ``Reject`` where it will not change, else as ``Transient``. No words of the store's own:
    they may hold a signed address."""
    try:
        yield
    except (Reject, Transient, Misuse):
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise Reject(Reason.MISSING_FILE, f"{name!r} is not under the data root") from None
    except IsADirectoryError:
        raise Reject(Reason.NOT_A_FILE, f"{name!r} is a folder, device, pipe or socket") from None
    except PermissionError:
        raise Reject(Reason.UNREADABLE, f"{name!r}: no permission to read it") from None
    except (ValueError, TypeError):
        raise Reject(Reason.UNREADABLE, f"{name!r}: the store has no such name") from None
    except OSError as error:
        if error.errno in PERMANENT:
            raise Reject(Reason.UNREADABLE, f"{name!r}: the store refuses it") from None
        raise Transient(f"the store broke off at {name!r}: {type(error).__name__}") from error
    except Exception as error:
        if "Credentials" in type(error).__name__:
            raise Misuse("the store asks for credentials: set them in the environment (docs/corpora.md)") from None
        if type(error).__module__.split(".")[0] not in NETWORK:
            raise
        raise Transient(f"the store broke off at {name!r}: {type(error).__name__}") from error


def _read(path: Path) -> str:
    """SHA-256 (hex) of a file on disk. Raises ``Transient`` where the disk fails."""
    with reading(path):
        return sha256_file(path)


def _again(work: Callable[[], T]) -> T:
    """The result of ``work``, tried again twice where it raises ``Transient``; a full disk is not."""
    for tried in range(1, TRIES):
        try:
            return work()
        except Transient as error:
            if str(error).startswith("NO_SPACE"):
                raise
            wait = WAIT_S * 4 ** (tried - 1) * random.uniform(1.0, 1.5)  # noqa: S311
            log.warning("%s; again in %.1f s", error, wait)
            time.sleep(wait)
    return work()
