"""F31: what renders, or the whole service, gets SIGKILL again and again; what is finished stays, the rest is made."""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from faults.material import until
from faults.row import MARK, Figure, kill_marked
from outages.standing import Publications, executions_of, toys, unfit
from toys import talker

from contracts.bundle import read_bundle
from serving.client import Client as HttpClient
from serving.jobs import Job
from serving.keys import Keys
from serving.ledger import Ledger, sqlite_url
from serving.loader import load_pipeline
from serving.orders import Item, Orders, item_place
from serving.policy import admit
from serving.queue import Queue
from serving.render import Renderer
from serving.service import Service
from serving.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 1.0
LONGEST_S = 600.0
VIDEOS = 4  # for each kill: a batch that is finished before it, and a batch that it breaks off
AT_ONCE = 30  # videos of the service that is killed


def work(root: Path, bundle: Path) -> None:
    """A worker of its own process; never returns."""
    service = Service(root, lease_s=LEASE_S)
    renderer = Renderer(*load_pipeline(bundle))
    Worker(service.queue, renderer.bundle_digest, service.results, renderer.render, batch=2).run(Event())


def kill_workers(folder: Path, count: int) -> Figure:
    """F31: the only worker gets SIGKILL at some moment of a batch; the next one goes on."""
    rng, landed, root = random.Random(31), 0, folder / "service"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "diffusers", "outages.batches"])
    with toys(folder) as bundle:
        service = Service(root, lease_s=LEASE_S)
        videos = VIDEOS * count
        whole = _ordered(service, bundle, folder, videos)
        queue, digest = service.queue, read_bundle(bundle).digest
        with Publications(service.results) as seen:
            while landed < count and queue.depth(digest).keys() - {"done"}:
                process = context.Process(target=work, args=(root, bundle))
                process.start()
                before = queue.depth().get("done", 0)
                until(lambda: not process.is_alive() or queue.depth().get("done", 0) > before, LONGEST_S)  # noqa: B023
                time.sleep(rng.uniform(0.0, 0.5))
                landed += process.is_alive() and "running" in queue.depth()
                process.kill()
                process.join()
            process = context.Process(target=work, args=(root, bundle))
            process.start()
            until(lambda: not process.is_alive() or queue.depth() == {"done": videos}, LONGEST_S)
            process.kill()
            process.join()
        rows = executions_of(service.ledger)
        lost, twice = unfit(service, rows), sum(row["rendered"] > 1 for row in rows)
        same = sum(talker.unsigned(item_place(service.results, each)) == whole[each] for each in whole if not lost)
        service.close()
    said = f"{landed} kills landed over {videos} videos: lost {lost}, published twice {len(seen.doubled)}, "
    said += f"rendered twice {twice}; frames and sound as in an unbroken run {same}/{videos}"
    return Figure(said, landed == count and not lost and not seen.doubled and same == videos)


def kill_service(folder: Path, count: int) -> Figure:
    """F31: ``voxface serve`` and all that it started get SIGKILL amid its work; the same command goes on."""
    landed, away = 0, []
    with toys(folder) as bundle, command(folder, ("--bundle", bundle, "--system", "loudmouth")) as started:
        ledger = Ledger(sqlite_url(started.root / "ledger.db"))
        _, key = Keys(ledger).create("campaign", ["submit", "read"])
        sound = talker.write_sound(folder / "talk.wav", 32_000)
        started.start()
        with HttpClient(started.url, key) as http, Publications(started.root / "results") as seen:
            items = [{"audio": "talk", "seed": seed} for seed in range(AT_ONCE)]
            job = http.submit_items(items, {"talk": sound}).job
            end = time.monotonic() + LONGEST_S
            while landed < count:
                goal = (landed + 1) * AT_ONCE // (count + 2)
                until(lambda: _done(ledger) >= goal or time.monotonic() > end, LONGEST_S)  # noqa: B023
                before = _done(ledger)
                landed += before < AT_ONCE and started.kill()
                began = time.monotonic()
                started.start()
                until(lambda: _done(ledger) > before or time.monotonic() > end, LONGEST_S)  # noqa: B023
                away.append(time.monotonic() - began)
            with suppress(TimeoutError):
                http.wait(job, timeout_s=LONGEST_S)
        service = Service(started.root)
        rows = executions_of(ledger)
        lost, twice = unfit(service, rows), sum(row["rendered"] > 1 for row in rows)
        service.close()
        ledger.close()
    said = f"{landed} kills over {AT_ONCE} videos: lost {lost}, published twice {len(seen.doubled)}, rendered twice "
    said += f"{twice}; from starting again to the next video {max(away, default=0):.0f} s at most"
    return Figure(said, landed == count and len(rows) == AT_ONCE and not lost and not seen.doubled)


@dataclass
class Command:
    """``voxface serve`` as a process of its own."""

    folder: Path
    words: Sequence[str | Path]  # what is to be served
    port: int
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def root(self) -> Path:
        return self.folder / "work" / "service"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ["serve", *self.words, "--port", self.port, "--work", self.folder / "work", "-q"]
        own = {MARK: self.mark, "RAY_TMPDIR": str(self.folder / "r"), "PYTHONPATH": str(ROOT)}
        subprocess.Popen(
            [sys.executable, "-m", "flows", *map(str, words)],
            env=os.environ | own,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        def answers() -> bool:
            with suppress(OSError):
                return urllib.request.urlopen(f"{self.url}/healthz", timeout=2).status == 200
            return False

        if not until(answers, LONGEST_S):
            raise RuntimeError("voxface serve does not answer")

    def kill(self) -> bool:
        """SIGKILL to everything that it started; whether it is gone."""
        kill_marked(self.mark)

        def gone() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return False
            return True

        return until(gone, 10)


@contextmanager
def command(folder: Path, words: Sequence[str | Path]) -> Iterator[Command]:
    """The command, with a free port; no process of it is left afterwards."""
    (folder / "r").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Command(folder, words, free.getsockname()[1])
    try:
        yield made
    finally:
        kill_marked(made.mark)


def _ordered(service: Service, bundle: Path, folder: Path, videos: int) -> dict[str, bytes]:
    """Ask for that many videos; what each is in an unbroken run, without its signature, by its digest."""
    renderer = Renderer(*load_pipeline(bundle))
    sound = talker.write_sound(folder / "talk.wav", 16_000)
    jobs = [Job(audio=sound, out=folder / "whole" / f"{seed}.mp4", seed=seed) for seed in range(videos)]
    items = [Item(str(job.seed), admit(job, renderer.bundle_digest), job) for job in jobs]
    Orders(service.ledger).submit(service.keys.local(), items)
    outcomes = renderer.render(jobs)
    return {outcome.job: talker.unsigned(outcome.out) for outcome in outcomes if outcome.state == "done"}


def _done(ledger: Ledger) -> int:
    return Queue(ledger).depth().get("done", 0)
