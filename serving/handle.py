"""Jobs handed straight to replicas, from a process of the same Ray cluster and file system."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import ray
from ray import serve

from contracts.errors import Transient
from serving.jobs import Job, Outcome, check_jobs
from serving.render import BATCH, Progress

ONGOING = 2 * BATCH  # requests that one replica takes: one batch rendering, one waiting
PATIENCE_S = 300.0  # that a replica, killed or lost with its node, may take to be replaced where all is busy
ATTEMPTS = 3  # of a job whose replica dies: jobs are idempotent

log = logging.getLogger(__name__)


class Client:
    """Speaks to a deployed application from the same Ray cluster and file system."""

    def __init__(self, handle: Any, names: list[str], url: str, replicas: int) -> None:
        self.url, self.names, self._handle, self._replicas = url, names, handle, replicas
        self._well = time.monotonic()  # when everything was last well

    def generate(self, jobs: Sequence[Job], progress: Progress | None = None) -> list[Outcome]:
        """One outcome per job, in order; ``progress`` counts jobs and names the frames rendered.

        A job whose replica dies is given to another, up to three times. Raises ``Misuse`` where two jobs
        want one place, ``Transient`` where the disk is full or replicas keep dying.
        """
        check_jobs(jobs)
        asked = [job.model_copy(update=_absolute(job)) for job in jobs]
        pool = ThreadPoolExecutor(max_workers=max(1, self._replicas * ONGOING))
        try:
            futures: list[Future[Outcome]] = [pool.submit(self._generate, job) for job in asked]
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()  # an error ends the run at once
                if progress is not None:
                    progress(len(jobs) - len(waiting), len(jobs), self._note() if waiting else "")
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def healthy(self) -> bool:
        """Whether Serve calls every application running, or did so within ``PATIENCE_S``: it replaces what dies."""
        found = serve.status().applications
        now = time.monotonic()
        if all(name in found and found[name].status == "RUNNING" for name in self.names):
            self._well = now
        return now - self._well < PATIENCE_S

    def _generate(self, job: Job) -> Outcome:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                outcome: Outcome = self._handle.generate.remote(job).result()
                return outcome
            except ray.exceptions.RayActorError as error:
                log.warning("attempt %d of %s: the replica died (%s)", attempt, job.out, str(error).splitlines()[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
        raise Transient(f"{job.out}: its replica died {ATTEMPTS} times; see the logs of Ray, then try again")

    def _note(self) -> str:
        try:
            done, total, names = self._handle.watch.remote().result(timeout_s=1.0)
        except (TimeoutError, ray.exceptions.RayError):
            return ""
        return f"{names}: {done} of {total} frames" if total else ""


def _absolute(job: Job) -> dict[str, Path | None]:
    return {
        "audio": job.audio.absolute(),
        "out": job.out.absolute(),
        "portrait": None if job.portrait is None else job.portrait.absolute(),
    }
