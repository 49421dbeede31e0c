"""F34: the machine's clock is set back, changes its zone, passes 2038: order, names and videos stay what they are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from faults.row import Figure
from outages.standing import executions_of, toys
from toys import talker

from serving.jobs import Job
from serving.ledger import Ledger, sqlite_url
from serving.loader import load_pipeline
from serving.orders import Item, Orders, item_place
from serving.policy import admit
from serving.provenance import sidecar_path
from serving.queue import Queue
from serving.render import Renderer
from serving.worker import Worker

START = 1_700_000_000.0
HOUR_S = 3600.0
VIDEOS = 4


class Clock:
    """Seconds since 1970 that go on by themselves, and can be set."""

    def __init__(self, start: float) -> None:
        self.ahead = start - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def set_clock(folder: Path, count: int) -> Figure:
    """The same two jobs, and one whose worker died, under an even clock and under ``count`` others."""
    others = [_set_back, _other_zone, _past_2038]
    with toys(folder) as bundle:
        renderer = Renderer(*load_pipeline(bundle))
        sound = talker.write_sound(folder / "talk.wav", 8_000)
        even = _made(folder / "even", renderer, sound, START, _nothing)
        different = []
        for turn in others[:count]:
            start = 2.0**31 - 1.0 if turn is _past_2038 else START
            found = _made(folder / turn.__name__, renderer, sound, start, turn)
            different += [f"{turn.__name__}: {what}" for what in even if even[what] != found[what]]
    said = f"clock set back by an hour, zone changed, 2038 passed: differences {len(different)}"
    return Figure(said + (f" ({', '.join(different)})" if different else ""), not different)


def _made(folder: Path, renderer: Renderer, sound: Path, start: float, turn: Any) -> dict[str, Any]:
    """What can be told of two jobs between which the clock turns, while a dead worker holds the first video."""
    clock = Clock(start)
    ledger = Ledger(sqlite_url(folder / "ledger.db"), clock)
    orders, queue = Orders(ledger), Queue(ledger, lease_s=0.5)
    from serving.keys import Keys

    caller = replace(Keys(ledger).local(), pepper="00" * 32)  # else it is drawn anew for each ledger

    def ask(seeds: range) -> str:
        jobs = [Job(audio=sound, out=Path("x.mp4"), seed=seed) for seed in seeds]
        items = [Item(str(job.seed), admit(job, renderer.bundle_digest), job) for job in jobs]
        return orders.submit(caller, items).job

    order: list[str] = []

    def render(jobs: Any, progress: Any, watch: Any, streamed: Any) -> Any:
        order.extend(job.out.stem for job in jobs)
        return renderer.render(jobs, progress, watch)

    ids = [ask(range(VIDEOS))]
    queue.claim(renderer.bundle_digest, "a worker that died", 1)
    with turn(clock):
        ids.append(ask(range(VIDEOS, 2 * VIDEOS)))
        time.sleep(0.6)  # the dead worker's lease
        worker = Worker(queue, renderer.bundle_digest, folder / "results", render)
        while worker.work():
            pass
        listed = [job.job for job in orders.page(caller, 10)[0]]
    rows = executions_of(ledger)
    videos = [item_place(folder / "results", row["digest"]) for row in rows]
    ledger.close()
    return {
        "ids": ids,
        "the list, newest first": listed == ids[::-1],
        "digests": [row["digest"] for row in rows],
        "states": [row["state"] for row in rows],
        "the order of rendering": order,
        "videos": [talker.unsigned(video) for video in videos if video.is_file()],
        "sidecars": [_without_salt(sidecar_path(video)) for video in videos if video.is_file()],
    }


def _without_salt(sidecar: Path) -> Any:
    import json

    said = json.loads(sidecar.read_bytes())
    return {name: value for name, value in said.items() if name != "video"}  # a signature is salted


@contextmanager
def _nothing(clock: Clock) -> Iterator[None]:
    yield


@contextmanager
def _set_back(clock: Clock) -> Iterator[None]:
    clock.ahead -= HOUR_S
    yield


@contextmanager
def _other_zone(clock: Clock) -> Iterator[None]:
    """From winter in Berlin to the hour that is there twice."""
    with mock.patch.dict(os.environ, {"TZ": "Europe/Berlin"}):
        time.tzset()
        clock.ahead += 1_729_990_800.0 - clock()  # 2024-10-27, 01:00 UTC
        try:
            yield
        finally:
            pass
    time.tzset()


@contextmanager
def _past_2038(clock: Clock) -> Iterator[None]:
    """2³¹ seconds are over within a second."""
    yield
