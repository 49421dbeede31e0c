"""The Ray Serve application: replicas that each hold one verified bundle and generate in batches."""

# no "from __future__ import annotations" here: Serve moves the routes, and FastAPI could not resolve them any more

import asyncio
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from contracts.errors import Corrupt, Misuse, Reject, Transient, VoxfaceError
from contracts.settings import Settings, canonical_json
from serving.http import BodyLimit, read_request, status_of
from serving.jobs import Job, Outcome, Refused, check_jobs
from serving.loader import check_bundle, load_pipeline
from serving.policy import ServingLimits, admit
from serving.provenance import sidecar_path
from serving.render import BATCH, Progress, Renderer

LOOPBACK = "127.0.0.1"
ONGOING = 2 * BATCH  # requests that one replica takes: one batch rendering, one waiting
QUEUED = 64  # requests that wait for a replica; further ones are answered 429
STALLED_S = 600.0  # a render without a new frame for so long has hung: the replica is replaced
DEPLOY_S = 300.0
ATTEMPTS = 3  # of a job whose replica dies: jobs are idempotent
MARK = "voxface-error:"  # before the JSON of our own errors in Serve's text of a failed deployment

LIMITS = ServingLimits()
door = FastAPI(title="voxface", description="Speech in, talking-face video out.")
door.add_middleware(BodyLimit, limit=LIMITS.upload_bytes + LIMITS.portrait_bytes + 65_536)
log = logging.getLogger(__name__)


@serve.deployment(
    max_ongoing_requests=ONGOING,
    max_queued_requests=QUEUED,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=5),
    max_constructor_retry_count=1,  # a bundle that does not fit will not fit the second time
    health_check_period_s=10,
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=30,
)
@serve.ingress(door)
class Generator:
    """One loaded bundle. The constructor verifies every digest before a tensor is read."""

    def __init__(self, bundle: str, store: str, device: str) -> None:
        import torch

        torch.set_num_threads(1)
        try:
            pipeline, self.bundle = load_pipeline(Path(bundle), device)
        except VoxfaceError as error:
            raise RuntimeError(MARK + canonical_json([type(error).__name__, *map(str, error.args)])) from None
        self.store = Path(store)
        self.renderer = Renderer(pipeline, self.bundle, limits=LIMITS)
        self._thread = ThreadPoolExecutor(1, "render")  # always the same: mediapipe's graphs must not change theirs
        self.progress: tuple[int, int, str] = (0, 0, "")
        self._moved: float | None = None  # monotonic seconds of the last frame, while rendering

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.05)
    async def generate(self, jobs: list[Job]) -> list[Outcome]:
        """Outcomes of jobs whose paths are absolute. Batches run one after another, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._render, jobs)

    def _render(self, jobs: list[Job]) -> list[Outcome]:
        self._moved = time.monotonic()
        try:
            return self.renderer.render(jobs, self._move)
        except Misuse:
            if len(jobs) == 1:
                raise
            # clients who do not know of each other asked for one place: the later one has it
            return [outcome for job in jobs for outcome in self.renderer.render([job], self._move)]
        finally:
            self._moved = None

    def _move(self, done: int, total: int, note: str) -> None:
        self._moved = time.monotonic()
        self.progress = (done, total, note)

    async def watch(self) -> tuple[int, int, str]:
        """Frames done, frames in all, and names, of the batch that renders now (or the last)."""
        return self.progress

    def check_health(self) -> None:
        """Raise where a render hangs; Serve then replaces the replica."""
        moved = self._moved
        if moved is not None and time.monotonic() - moved > STALLED_S:
            raise RuntimeError(f"no frame for {STALLED_S:.0f} s")

    @door.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Answers once the bundle is loaded and verified."""
        return {"status": "ok", "bundle": self.bundle.digest}

    @door.get("/model")
    async def model(self) -> dict[str, Any]:
        """The system, the bundle's digest and the stages that are served."""
        stages = {
            name: {"artifact": stage.digest, "dataset": stage.lineage.dataset, "measures": stage.measures}
            for name, stage in self.bundle.stages.items()
        }
        return {
            "system": self.bundle.system,
            "preset": self.bundle.preset,
            "bundle": self.bundle.digest,
            "stages": stages,
        }

    @door.post("/generate")
    async def post(self, request: Request) -> FileResponse:
        """A multipart form (file ``sound``; optional file ``portrait`` with text ``consent``; ``seed``,
        ``steps``, ``size``) becomes an mp4; its sidecar is at the address in the header ``Link``."""
        async with read_request(request, LIMITS) as asked:
            try:
                inputs = await asyncio.to_thread(admit, asked, self.bundle.digest)
            except Reject as error:
                refusal = Refused(state="rejected", out=asked.out, code=error.reason, detail=error.detail)
                raise HTTPException(status_of(refusal), str(error)) from None
            job = asked.model_copy(update={"out": self.store / f"{inputs.job}.mp4"})
            outcome: Outcome = await self.generate(job)
        if isinstance(outcome, Refused):
            raise HTTPException(status_of(outcome), f"{outcome.code}: {outcome.detail}")
        link = f'<generated/{outcome.job}.json>; rel="describedby"'
        headers = {"Link": link, "X-Voxface-Job": outcome.job, "X-Voxface-Video": outcome.video}
        return FileResponse(outcome.out, media_type="video/mp4", headers=headers)

    @door.get("/generated/{job}.json")
    async def sidecar(self, job: str) -> FileResponse:
        """The sidecar of a generated video, by its job's digest."""
        path = sidecar_path(self.store / f"{job}.mp4")
        if not re.fullmatch(r"[0-9a-f]{64}", job) or not path.is_file():
            raise HTTPException(404, "there is no such job here")
        return FileResponse(path, media_type="application/json")


def application(bundle: Path, *, store: Path, replicas: int = 1, device: str = "cpu") -> serve.Application:
    """The application that serves the bundle at ``bundle``; videos asked for over HTTP are kept in ``store``.

    The bundle is checked here already, so that a damaged one stops before anything is started. Raises
    ``Corrupt`` naming the file and both digests, ``Misuse`` where there is no bundle.
    """
    check_bundle(bundle)
    variables = {name: os.environ[name] for name in ("VOXFACE_SYSTEMS_PATH",) if name in os.environ}
    options = {
        "num_cpus": 1,
        "num_gpus": 0 if device == "cpu" else 1,
        "runtime_env": {"env_vars": {"HF_HUB_OFFLINE": "1", **variables}},
    }
    deployment: Any = Generator  # the decorator made a Deployment of the class
    deployment = deployment.options(num_replicas=replicas, ray_actor_options=options)
    bound: serve.Application = deployment.bind(str(bundle.absolute()), str(store.absolute()), device)
    return bound


class Arguments(Settings):
    """What ``infra/serve.yaml`` gives to :func:`build`."""

    bundle: Path
    store: Path = Path("generated")
    replicas: int = 1
    device: str = "cpu"


def build(arguments: Arguments) -> serve.Application:
    """:func:`application` for ``serve deploy`` and ``serve run`` (``import_path: serving.app:build``)."""
    values = arguments.model_dump()
    return application(values.pop("bundle"), **values)


class Client:
    """Speaks to a deployed application from the same Ray cluster and file system."""

    def __init__(self, handle: Any, name: str, url: str, replicas: int) -> None:
        self.url, self._handle, self._name, self._replicas = url, handle, name, replicas

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
        """Whether Serve calls the application running."""
        found = serve.status().applications.get(self._name)
        return found is not None and found.status == "RUNNING"

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


@contextmanager
def run_local(
    bundle: Path, *, store: Path | None = None, replicas: int = 1, device: str = "cpu", port: int | None = None
) -> Iterator[Client]:
    """Serve ``bundle`` inside the Ray that the caller has started, on 127.0.0.1, as long as the block lasts.

    ``port`` None takes a free one; ``store`` (videos asked for over HTTP) defaults to ``generated`` in the
    working folder. Yields once the application is healthy. Raises ``Corrupt`` or ``Misuse`` for a bundle
    that cannot be served, ``Transient`` where it is not healthy within five minutes. A Serve that ran
    already in that Ray is left running.
    """
    app = application(bundle, store=store or Path("generated"), replicas=replicas, device=device)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    standing = _serve_runs()
    name = f"voxface-{secrets.token_hex(4)}" if standing else "voxface"
    prefix = f"/{name}" if standing else "/"
    number = port or _free_port()
    try:
        if not standing:
            serve.start(
                proxy_location="HeadOnly", http_options={"host": LOOPBACK, "port": number}, logging_config=quiet
            )
        target = serve.RunTarget(target=app, name=name, route_prefix=prefix, logging_config=quiet)
        (handle,) = serve.run_many([target], wait_for_applications_running=False)
        _wait_healthy(name)
        yield Client(handle, name, f"http://{LOOPBACK}:{number}{prefix}".rstrip("/"), replicas)
    finally:
        if standing:
            serve.delete(name)
        else:
            serve.shutdown()


def _wait_healthy(name: str) -> None:
    end = time.monotonic() + DEPLOY_S
    while time.monotonic() < end:
        found = serve.status().applications.get(name)
        if found is not None and found.status == "RUNNING":
            return
        if found is not None and found.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            told = "\n".join([found.message, *(deployment.message for deployment in found.deployments.values())])
            raise _own_error(told)
        time.sleep(0.1)
    raise Transient(f"the application was not healthy within {DEPLOY_S:.0f} s; are there CPUs left in the cluster?")


def _own_error(told: str) -> Exception:
    """The error that a replica's constructor marked in Serve's text, as itself again."""
    at = told.find(MARK)
    if at < 0:
        return RuntimeError(f"the application could not be deployed: {told.strip()[-2000:]}")
    (name, *args), _ = json.JSONDecoder().raw_decode(told, at + len(MARK))
    kinds: dict[str, type[VoxfaceError]] = {kind.__name__: kind for kind in (Corrupt, Misuse, Transient)}
    return kinds[name](*args)


def _serve_runs() -> bool:
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        number: int = probe.getsockname()[1]
        return number


def _absolute(job: Job) -> dict[str, Path | None]:
    return {
        "audio": job.audio.absolute(),
        "out": job.out.absolute(),
        "portrait": None if job.portrait is None else job.portrait.absolute(),
    }
