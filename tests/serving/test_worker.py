"""Workers publish before they record; killed at any point they lose nothing and make nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from contracts.bundle import read_bundle
from contracts.errors import Transient
from serving.jobs import Job
from serving.keys import Keys
from serving.ledger import Ledger, executions, sqlite_url
from serving.loader import load_pipeline
from serving.orders import Item, Orders, item_place
from serving.policy import admit
from serving.provenance import inspect
from serving.queue import Queue
from serving.render import Renderer
from serving.worker import Lost, Worker

pytestmark = pytest.mark.timeout(300)

# a worker that publishes by the real code, but draws nothing: it is there within a second, to be killed
CHILD = """
import sys, time
from pathlib import Path
from threading import Event
from contracts.bundle import read_bundle
from serving.jobs import Result
from serving.ledger import Ledger
from serving.policy import admit
from serving.provenance import describe, sidecar_path
from serving.publish import draft, publish, published
from serving.queue import Queue
from serving.worker import Worker
url, folder, results = sys.argv[1:]
bundle = read_bundle(Path(folder))

def render(jobs, progress, watch, streamed):
    outcomes = []
    for job in jobs:
        inputs = admit(job, bundle.digest)
        made = published(job.out, inputs.job)
        reused = made is not None
        if not reused:
            with draft(job.out) as path, path.open("wb") as file:
                # an mp4 without pictures: one box of type and one of data
                file.write(bytes.fromhex("0000001c6674797069736f6d0000020069736f6d69736f326d703431"))
                file.write((640_008).to_bytes(4, "big") + b"mdat")
                for frame in range(10):
                    file.write(inputs.job.encode() * 1000)
                    file.flush()
                    time.sleep(0.004)
                    watch(job.out, frame, 10)
                    progress(frame, 10, "")
                made = publish(
                    path,
                    job.out,
                    None,
                    lambda video, _: describe(bundle, inputs, frames=10, seconds=0.4, video=video, portrait=None),
                )
        told = dict(frames=10, seconds=0.4, job=inputs.job, video=made.video, reused=reused)
        outcomes.append(Result(out=job.out, sidecar=sidecar_path(job.out), portrait=None, **told))
    return outcomes

print("ready", flush=True)
Worker(Queue(Ledger(url), lease_s=1.0), bundle.digest, Path(results), render, 2).run(Event())
"""


@pytest.fixture(scope="module")
def renderer(bundle: Path) -> Renderer:
    return Renderer(*load_pipeline(bundle))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(sqlite_url(tmp_path / "ledger.db"))
    yield ledger
    ledger.close()


def ask(ledger: Ledger, bundle: Path, jobs: Sequence[Job]) -> list[str]:
    digest = read_bundle(bundle).digest
    asked = [Item(str(number), admit(job, digest), job) for number, job in enumerate(jobs)]
    Orders(ledger).submit(Keys(ledger).local(), asked)
    return [each.inputs.job for each in asked if each.inputs]


def jobs_of(speech: Callable[..., Path], seeds: range, samples: int = 16_000) -> list[Job]:
    sound = speech("talk.wav", samples)
    return [Job(audio=sound, out=Path("x.mp4"), seed=seed) for seed in seeds]


def rows(ledger: Ledger) -> list[Any]:
    with ledger.reading() as connection:
        return list(connection.execute(select(executions).order_by(executions.c.seq)).mappings())


def test_videos_are_named_by_content_and_recorded(
    store: Ledger, renderer: Renderer, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    digests = ask(store, bundle, jobs_of(speech, range(5)))
    worker = Worker(Queue(store), renderer.bundle_digest, tmp_path / "results", renderer.render)
    assert [worker.work(), worker.work(), worker.work()] == [4, 1, 0]
    for row, digest in zip(rows(store), digests, strict=True):
        video = item_place(tmp_path / "results", digest)
        found = inspect(video)
        assert (found.state, row["state"], row["rendered"]) == ("fits", "done", 1)
        assert found.sidecar is not None
        assert (found.sidecar.job, found.sidecar.video) == (digest, row["result"])
        assert (row["frames"], row["done"]) == (25, 25)


def test_what_was_published_but_not_recorded_is_not_rendered_again(
    store: Ledger, renderer: Renderer, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    (digest,) = ask(store, bundle, jobs_of(speech, range(1)))
    queue = Queue(store, lease_s=-1.0)  # leases that have ended as soon as they are given
    job = queue.claim(renderer.bundle_digest, "killed", 1)[0].job
    renderer.render([job.model_copy(update={"out": item_place(tmp_path / "results", digest)})])
    made = item_place(tmp_path / "results", digest).stat().st_mtime_ns
    Worker(Queue(store), renderer.bundle_digest, tmp_path / "results", renderer.render).work()
    (row,) = rows(store)
    assert (row["state"], row["rendered"]) == ("done", 0)  # reused
    assert item_place(tmp_path / "results", digest).stat().st_mtime_ns == made


def test_an_input_that_changed_since_is_refused(
    store: Ledger, renderer: Renderer, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    first, second, third = jobs_of(speech, range(3))
    second = second.model_copy(update={"audio": speech("other.wav", 16_000)})
    third = third.model_copy(update={"audio": speech("gone.wav", 16_000)})
    ask(store, bundle, [first, second, third])
    speech("other.wav", 17_000)
    third.audio.unlink()
    Worker(Queue(store), renderer.bundle_digest, tmp_path / "results", renderer.render).work()
    assert [(row["state"], row["code"]) for row in rows(store)] == [
        ("done", None),
        ("rejected", "HASH_MISMATCH"),
        ("rejected", "MISSING_FILE"),
    ]


def test_transient_goes_back_to_the_queue(
    store: Ledger, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    def full(*_: object) -> list:
        raise Transient("NO_SPACE: free some")

    ask(store, bundle, jobs_of(speech, range(2)))
    Worker(Queue(store), read_bundle(bundle).digest, tmp_path, full).work()
    assert [(row["state"], row["tries"], row["claim"]) for row in rows(store)] == [("queued", 1, None)] * 2


@pytest.mark.parametrize(("error", "crashes"), [(KeyboardInterrupt, 0), (RuntimeError, 1)])
def test_a_worker_that_ends_gives_its_batch_back(
    store: Ledger,
    bundle: Path,
    speech: Callable[..., Path],
    tmp_path: Path,
    error: type[BaseException],
    crashes: int,
) -> None:
    def broken(*_: object) -> list:
        raise error

    ask(store, bundle, jobs_of(speech, range(2)))
    worker = Worker(Queue(store), read_bundle(bundle).digest, tmp_path, broken)
    with pytest.raises(error):
        worker.work()
    assert len(worker.queue.claim(worker.bundle, "next", 4)) == (2 if crashes == 0 else 1)  # alone, where it may be why
    assert rows(store)[0]["crashes"] == crashes


def test_a_cancelled_batch_is_left_and_nothing_is_published(
    store: Ledger, renderer: Renderer, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    ask(store, bundle, jobs_of(speech, range(2)))
    orders, local = Orders(store), Keys(store).local()
    ((job, *_), _) = orders.page(local, 1)
    ended = []

    def slow(asked: Sequence[Job], progress: Any, watch: Any, streamed: Any) -> list:
        assert orders.cancel(local, job.job)

        def paced(done: int, total: int, note: str) -> None:
            time.sleep(0.15)
            progress(done, total, note)

        try:
            return renderer.render(asked, paced, watch)
        except Lost:
            ended.append("lost")
            raise

    Worker(Queue(store, lease_s=0.4), renderer.bundle_digest, tmp_path / "results", slow).work()
    assert ended == ["lost"]
    assert [path for path in (tmp_path / "results").rglob("*") if path.is_file()] == []
    assert [row["state"] for row in rows(store)] == ["cancelled"] * 2


def test_a_job_deleted_while_it_renders_leaves_no_file(
    store: Ledger, renderer: Renderer, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    ask(store, bundle, jobs_of(speech, range(1)))
    orders, local = Orders(store), Keys(store).local()
    ((job, *_), _) = orders.page(local, 1)

    def deleted(asked: Sequence[Job], progress: Any, watch: Any, streamed: Any) -> list:
        outcomes = renderer.render(asked, progress, watch)
        assert orders.forget(local, job.job, lambda *_: None)
        return outcomes

    Worker(Queue(store), renderer.bundle_digest, tmp_path / "results", deleted).work()
    assert [path for path in (tmp_path / "results").rglob("*") if path.is_file()] == []


def test_progress_is_told_per_item(
    store: Ledger, renderer: Renderer, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    ask(store, bundle, jobs_of(speech, range(1), 32_000))
    seen = []

    def paced(asked: Sequence[Job], progress: Any, watch: Any, streamed: Any) -> list:
        def wait(done: int, total: int, note: str) -> None:
            time.sleep(0.3)
            seen.append((rows(store)[0]["done"], rows(store)[0]["frames"]))

        return renderer.render(asked, wait, watch)

    Worker(Queue(store, lease_s=0.6), renderer.bundle_digest, tmp_path / "results", paced).work()
    assert any(0 < done < 50 and frames == 50 for done, frames in seen)


def test_killed_workers_lose_nothing_and_make_nothing_twice(
    store: Ledger, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    """F31 in small: eight kills of the only worker over 40 videos, a little later each time."""
    digests = ask(store, bundle, jobs_of(speech, range(40), 8_000))
    arguments = [sys.executable, "-c", CHILD, store.url, str(bundle), str(tmp_path / "results")]
    queue = Queue(store)
    published: dict[str, int] = {}

    def start() -> subprocess.Popen:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def remember() -> None:
        for digest in digests:
            video = item_place(tmp_path / "results", digest)
            if video.is_file():
                made = video.stat().st_mtime_ns
                assert published.setdefault(digest, made) == made  # never published a second time

    for kill in range(8):
        process = start()
        before = queue.depth().get("done", 0)
        while queue.depth().get("done", 0) < before + 1 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.011 * kill)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        remember()
    process = start()
    try:
        end = time.monotonic() + 60
        while queue.depth().get("done", 0) < 40 and time.monotonic() < end:
            remember()
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    remember()
    assert queue.depth() == {"done": 40}
    assert sorted(published) == sorted(digests)
    assert all(inspect(item_place(tmp_path / "results", digest)).state == "fits" for digest in digests)
    assert max(row["rendered"] for row in rows(store)) == 1
    hidden = [path for path in (tmp_path / "results").rglob("*") if path.is_file() and ".tmp-" in path.name]
    assert len(hidden) <= 8 * 2  # at most what was in hand at a kill


def test_run_stops_when_told(store: Ledger, renderer: Renderer, tmp_path: Path) -> None:
    stop = threading.Event()
    worker = Worker(Queue(store), renderer.bundle_digest, tmp_path, renderer.render)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_one_streams_while_the_other_publishes(
    store: Ledger, renderer: Renderer, bundle: Path, speech: Callable[..., Path], tmp_path: Path
) -> None:
    digests = ask(store, bundle, jobs_of(speech, range(6)))
    turn, busy = threading.Lock(), threading.Semaphore(1)
    met = threading.Barrier(2)  # the end of one batch waits for another batch to have begun

    def render(asked: Sequence[Job], progress: Any, watch: Any, streamed: Any) -> list:
        assert busy.acquire(blocking=False), "two stream at once"
        finish = renderer.begin(asked, progress, watch)
        busy.release()
        streamed()
        if len(asked) == 2 and not met.broken:
            with suppress(threading.BrokenBarrierError):
                met.wait(60)
                met.abort()
        return finish()

    stop = threading.Event()
    workers = [Worker(Queue(store), renderer.bundle_digest, tmp_path, render, 2, turn=turn) for _ in range(2)]
    threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in workers]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 120
    while Queue(store).depth() != {"done": 6} and time.monotonic() < end:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert [(row["state"], row["rendered"]) for row in rows(store)] == [("done", 1)] * 6
    assert {inspect(item_place(tmp_path, digest)).state for digest in digests} == {"fits"}
    assert len({row["owner"] for row in rows(store)}) == 2
    assert met.broken
