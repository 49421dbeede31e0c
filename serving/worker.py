"""A worker: claims executions of one bundle, renders them into the store of results, records how they ended."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

from contracts.errors import Reject, Transient
from contracts.reasons import Reason
from serving.jobs import Job, Outcome, Refused
from serving.journal import Journal
from serving.orders import item_place
from serving.policy import admit
from serving.provenance import portrait_path, sidecar_path
from serving.queue import Claim, Queue
from serving.render import BATCH, Progress, Watch

IDLE_S = 0.3  # between two looks at an empty queue
AWAY_S = 5.0  # before the ledger is asked again after it did not answer
BEATS = 4  # within a lease

log = logging.getLogger(__name__)


class Lost(BaseException):
    """None of the batch is ours any more: rendering stops, and nothing is published.

    No ``Exception``: the renderer must not take it for a fault of a video.
    """


class Render(Protocol):
    """How a batch is rendered: :meth:`serving.render.Renderer.render`, perhaps in a thread of its own."""

    def __call__(
        self, jobs: Sequence[Job], progress: Progress | None, watch: Watch | None, streamed: Callable[[], None]
    ) -> list[Outcome]: ...


class Worker:
    """Works for the bundle of one digest, publishing under ``results``.

    Workers that share one renderer share a ``turn``: who has it claims and streams, while another's videos are encoded
    and published. Nothing is claimed by who would only wait.
    """

    def __init__(
        self,
        queue: Queue,
        bundle: str,
        results: Path,
        render: Render,
        batch: int = BATCH,
        spent: Callable[[], Mapping[str, float]] = dict,
        turn: AbstractContextManager[Any] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.queue, self.bundle, self.results, self.render, self.batch = queue, bundle, results, render, batch
        self.spent = spent  # seconds by step since it was last asked
        self.turn = turn or threading.Lock()
        self.journal = journal
        self.abandon = threading.Event()  # set: the batch in hand goes back to the queue at once
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def run(self, stop: threading.Event, moved: Callable[[], None] = lambda: None) -> None:
        """Work until ``stop`` is set; a batch in hand is finished first. ``moved`` is called after every look."""
        while not stop.is_set():
            try:
                found = self.work()
            except Transient as error:  # the ledger is away: leases lapse by themselves, nothing is lost
                log.warning("%s; trying again in %.0f s", error, AWAY_S)
                stop.wait(AWAY_S)
                continue
            moved()
            if not found:
                stop.wait(IDLE_S)

    def work(self) -> int:
        """Claim and render one batch; how many executions were claimed."""
        with ExitStack() as turn:
            turn.enter_context(self.turn)
            claims = self.queue.claim(self.bundle, self.owner, self.batch)
            if claims:
                self._render(claims, turn.close)
        return len(claims)

    def _render(self, claims: list[Claim], streamed: Callable[[], None]) -> None:
        places = {claim.digest: item_place(self.results, claim.digest) for claim in claims}
        ready: list[Claim] = []
        for claim in claims:
            job = claim.job.model_copy(update={"out": places[claim.digest]})
            refused = _changed(job, self.bundle, claim.digest)
            if refused is None:
                ready.append(claim)
            else:
                self.queue.finish(claim, refused)
        if not ready:
            return
        asked = [claim.job.model_copy(update={"out": places[claim.digest]}) for claim in ready]
        try:
            with _Heart(self.queue, ready, self.abandon) as heart:
                outcomes = self.render(asked, heart.check, heart.watch, streamed)
        except Lost:
            log.info("%d videos were cancelled, given back or to another worker", len(ready))
            self.queue.release(ready)  # what is not ours any more is not touched
            return
        except Transient as error:
            log.warning("%s", error)
            for claim in ready:
                self.queue.again(claim, str(error))
            return
        except Exception:  # the bundle is damaged, or a bug of ours: this worker ends, and it counts as a death
            self.queue.drop(ready)
            raise
        except BaseException:
            self.queue.release(ready)
            raise
        spent = self.spent()
        for claim, outcome in zip(ready, outcomes, strict=True):
            finished = self.queue.finish(claim, outcome, spent)
            spent = {} if finished else spent
            if finished and self.journal is not None:
                self._tell(self.journal, claim, outcome)
            if not finished and not self.queue.knows(claim.digest):
                remove_result(self.results, claim.digest)  # its job was deleted meanwhile

    def _tell(self, journal: Journal, claim: Claim, outcome: Outcome) -> None:
        told: dict[str, Any] = {"execution": claim.digest, "jobs": self.queue.jobs(claim.digest), "bundle": self.bundle}
        if outcome.state == "done":
            told |= {"frames": outcome.frames, "seconds": outcome.seconds, "reused": outcome.reused}
        else:
            told |= {"code": outcome.code.value}
        journal.write("ended", state=outcome.state, worker=self.owner, **told)


def remove_result(results: Path, digest: str) -> None:
    """Remove the video of an execution and what stands beside it; the video first, so it is never unmarked."""
    video = item_place(results, digest)
    for path in (video, sidecar_path(video), portrait_path(video)):
        path.unlink(missing_ok=True)


def _changed(job: Job, bundle: str, digest: str) -> Refused | None:
    """A refusal where the inputs are gone, or not what they were when they were asked for."""
    try:
        found = admit(job, bundle).job
    except Reject as error:
        return Refused(state="rejected", out=job.out, code=error.reason, detail=error.detail)
    except OSError as error:
        return Refused(state="rejected", out=job.out, code=Reason.UNREADABLE, detail=str(error))
    if found != digest:
        detail = "an input changed after it was asked for"
        return Refused(state="rejected", out=job.out, code=Reason.HASH_MISMATCH, detail=detail)
    return None


class _Heart:
    """Beats for a batch while it renders, and notices when it is no longer ours."""

    def __init__(self, queue: Queue, claims: Sequence[Claim], abandon: threading.Event) -> None:
        self.queue, self.claims, self.abandon = queue, list(claims), abandon
        self._moved: dict[str, tuple[int, int]] = {}
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def __enter__(self) -> _Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self, done: int, total: int, note: str) -> None:
        """The renderer's progress. Raises :class:`Lost`."""
        if self._lost.is_set() or self.abandon.is_set():
            raise Lost

    def watch(self, out: Path, done: int, frames: int) -> None:
        """Frames of one video, known by its place."""
        self._moved[out.stem] = (done, frames)

    def _run(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self.queue.lease_s / BEATS):
            try:
                ours = self.queue.beat(self.claims, dict(self._moved))
                renewed = time.monotonic()
            except Transient:
                ours = {claim.digest for claim in self.claims}
            if not ours or time.monotonic() - renewed > self.queue.lease_s:
                self._lost.set()
                return
