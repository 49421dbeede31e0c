"""A service that stands in a Ray of its own, with the toy's bundle: what the rows break, and how they watch it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from faults.workers import ray
from sqlalchemy import select
from toys import talker

from serving.client import Client as HttpClient
from serving.ledger import Ledger, executions, sqlite_url
from serving.provenance import inspect
from serving.service import Service

LOOK_S = 0.05  # between two looks at a folder or at the ledger


@contextmanager
def toys(folder: Path) -> Iterator[Path]:
    """The toy is among the systems, a test certificate under ``folder`` signs; the toy's bundle."""
    own = {talker.PATH_VARIABLE: talker.systems_path(), "VOXFACE_CREDENTIALS": str(folder / "credentials")}
    with mock.patch.dict(os.environ, own):
        yield talker.make_bundle(folder / "toy")


@dataclass
class Standing:
    """A service over HTTP, and what only its own machine can see of it."""

    root: Path
    bundle: Path
    url: str
    key: str
    names: list[str]  # of Serve's applications
    ledger: Ledger

    @property
    def results(self) -> Path:
        return self.root / "results"

    def http(self) -> HttpClient:
        """A client with a key that may ask for much."""
        return HttpClient(self.url, self.key)

    def rows(self) -> list[Any]:
        """The executions, oldest first."""
        return executions_of(self.ledger)

    def replicas(self) -> set[int]:
        """Processes that render."""
        return processes(self.names, "Generator")

    def memory(self) -> int:
        """Bytes resident in all replicas and in Serve's own processes."""
        kinds = ("Generator", "Door", "ProxyActor", "ServeController")
        return sum(_resident(pid) for kind in kinds for pid in processes(self.names, kind))


@contextmanager
def standing(folder: Path, *, replicas: int = 1, bundle: Path | None = None, **door: Any) -> Iterator[Standing]:
    """A service of the toy under ``folder``, started and stopped; ``door``: more of ``DoorArguments``."""
    from serving.app import DoorArguments, ModelArguments, run_local
    from serving.keys import Keys

    root = folder / "service"
    with toys(folder) as made, ray(folder):
        chosen = bundle or made
        ledger = Ledger(sqlite_url(root / "ledger.db"))
        _, key = Keys(ledger).create("campaign", ["submit", "read"], daily=100_000, unfinished=100_000)
        models = [ModelArguments(bundle=chosen, root=root, replicas=replicas)]
        front = DoorArguments(root=root, models={"champion": chosen}, **door)
        try:
            with run_local(models, front) as client:
                yield Standing(root, chosen, client.url, key, list(client.names), ledger)
        finally:
            ledger.close()


def processes(names: Sequence[str], kind: str) -> set[int]:
    """Processes of our own Ray whose title speaks of ``kind``; replicas only those of the applications ``names``."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            replica = title.startswith("ray::ServeReplica") and any(name in title for name in names)
            if (replica and kind in title) or title.startswith(f"ray::{kind}"):
                found.add(process.pid)
    return found


def executions_of(ledger: Ledger) -> list[Any]:
    """All executions, oldest first."""
    with ledger.reading() as connection:
        return list(connection.execute(select(executions).order_by(executions.c.seq)).mappings())


class Publications:
    """Watches a folder of results: a video that appears twice, as another file, was published twice."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.seen: dict[str, tuple[int, int]] = {}
        self.doubled: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Publications:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        for path in self.results.glob("??/[0-9a-f]*.mp4"):
            try:
                found = path.stat()
            except FileNotFoundError:  # between two looks: seen again when it is back
                continue
            identity = (found.st_ino, found.st_mtime_ns)
            if self.seen.setdefault(path.stem, identity) != identity:
                self.doubled.add(path.stem)


def unfit(service: Service | Standing, rows: Sequence[Any]) -> int:
    """How many of those executions are not done, or their video not there, marked, signed and whole."""
    from serving.orders import item_place

    lost = 0
    for row in rows:
        video = item_place(service.results, row["digest"])
        lost += row["state"] != "done" or not video.is_file() or inspect(video).state != "fits"
    return lost


def _resident(process: int) -> int:
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
