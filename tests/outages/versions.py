"""F32: a canary, promoted and rolled back under a running service; each video by the bundle that it was asked of."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count as numbers
from pathlib import Path
from typing import Any

import httpx
from faults.material import until
from faults.row import Figure
from outages.batches import LONGEST_S, ROOT, command
from outages.standing import Publications, executions_of, toys, unfit
from toys import talker

from contracts.bundle import read_bundle
from flows.places import Places
from serving.client import Client as HttpClient
from serving.client import Refusal
from serving.keys import Keys
from serving.ledger import Ledger, sqlite_url
from serving.orders import item_place
from serving.provenance import inspect
from serving.service import Service
from training.registry import CHAMPION, point, register

CANARY = "canary"
APART_S = 0.7  # between two that are asked for
WHILE_S = 3.0  # that a champion is asked between two moves


def roll_back(folder: Path, count: int) -> Figure:
    """The champion becomes another bundle, and ``voxface rollback`` takes it back, ``count`` times; work goes on."""
    words = ("--system", "loudmouth", "--also", f"loudmouth:{CANARY}")
    with toys(folder) as bundle, command(folder, words) as started:
        other = talker.make_bundle(folder / "other", _louder)
        old, new = read_bundle(bundle).digest, read_bundle(other).digest
        ledger = Ledger(sqlite_url(started.root / "ledger.db"))
        _, key = Keys(ledger).create("campaign", ["submit", "read"], daily=100_000, unfinished=100_000)
        uri = Places(started.root.parent).tracking_uri
        register(bundle, "loudmouth", CHAMPION, uri)
        number = register(other, "loudmouth", CANARY, uri)
        started.start()
        followed, slowest = 0, 0.0
        with HttpClient(started.url, key) as http, Publications(started.root / "results") as seen:

            def serves(digest: str) -> bool:
                return http.models()[0].bundle == digest

            with Asker(started.url, key, talker.write_sound(folder / "talk.wav", 16_000)) as asker:
                for _ in range(count):
                    with asker.sure(old):
                        time.sleep(WHILE_S)
                    point("loudmouth", CHAMPION, number, uri)  # what `voxface publish` does at its end
                    followed += until(lambda: serves(new), LONGEST_S)
                    with asker.sure(new):
                        time.sleep(WHILE_S)
                    began = time.monotonic()
                    _voxface("rollback", "loudmouth", "-q", "--work", started.root.parent)
                    followed += until(lambda: serves(old), LONGEST_S)
                    slowest = max(slowest, time.monotonic() - began)
                with asker.sure(old):
                    time.sleep(WHILE_S)
            for job in asker.jobs:
                http.wait(job, timeout_s=LONGEST_S)
        service, rows = Service(started.root), executions_of(ledger)
        made = {row["request"]["seed"]: row["bundle"] for row in rows}
        lost = unfit(service, rows) + abs(len(rows) - len(asker.jobs))
        wrong = sum(made.get(seed) != new for seed in asker.canaries)
        wrong += sum(made.get(seed) != digest for seed, digest in asker.known.items())
        for row in rows:
            stated = inspect(item_place(service.results, row["digest"])).credentials
            wrong += stated is None or stated.statement is None or stated.statement.bundle != row["bundle"]
        service.close()
        ledger.close()
    said = f"{followed}/{2 * count} moves followed, a rollback in force {slowest:.0f} s after the command began; "
    said += f"{len(rows)} videos asked for meanwhile, {len(asker.canaries)} of them of the canary: lost {lost}, "
    said += f"published twice {len(seen.doubled)}, by another bundle than asked for {wrong}; {asker.refused} refused"
    held = followed == 2 * count and not lost and not seen.doubled and not wrong and not asker.refused
    return Figure(said, held and {old, new} == set(asker.known.values()) and bool(asker.canaries))


class Asker:
    """Asks, all the time, now for a video by the champion, now for one by the canary."""

    def __init__(self, url: str, key: str, sound: Path) -> None:
        self.url, self.key, self.sound = url, key, sound
        self.jobs: list[str] = []
        self.canaries: list[int] = []  # seeds
        self.known: dict[int, str] = {}  # of those asked of the champion while it was sure which one it is
        self.refused = 0
        self._sure: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ask", daemon=True)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def sure(self, digest: str) -> Iterator[None]:
        """Inside it is known which bundle the champion is."""
        self._sure = digest
        try:
            yield
        finally:
            self._sure = None

    def _run(self) -> None:
        with HttpClient(self.url, self.key) as http:
            for seed in numbers():
                alias, before = (CANARY, CHAMPION)[seed % 2], self._sure
                try:
                    self.jobs.append(http.submit(self.sound, seed=seed, model=alias).job)
                except (Refusal, httpx.TransportError):
                    self.refused += 1
                    continue
                if alias == CANARY:
                    self.canaries.append(seed)
                elif before is not None and before == self._sure:
                    self.known[seed] = before
                if self._stop.wait(APART_S):
                    return


def _voxface(*words: object) -> None:
    command = [sys.executable, "-m", "flows", *map(str, words)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)


def _louder(models: dict[str, Any]) -> None:
    models["mouth"]["gain"].gain.weight.data.fill_(9.0)
