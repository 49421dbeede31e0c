"""The Ray Serve applications: replicas that each hold one verified bundle, and the HTTP door to their ledger.

They know each other through the ledger alone: a replica of either kind may die, or be added, at any time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from pydantic import Field
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from contracts.errors import Misuse, Transient
from contracts.settings import Settings
from serving.certificate import Identity
from serving.handle import ONGOING, Client
from serving.jobs import Job, Outcome
from serving.journal import Journal
from serving.loader import check_bundle, load_pipeline
from serving.orders import QUEUE_LIMIT
from serving.policy import ServingLimits
from serving.publish import own_signer
from serving.queue import LEASE_S
from serving.refusals import MARK, marked, own_error
from serving.render import BATCH, Progress, Renderer, Watch
from serving.rows import Models
from serving.scaling import UNFINISHED, scaling
from serving.service import Service
from serving.worker import Worker

LOOPBACK = "127.0.0.1"
HANDS = 2  # batches of one replica: one streams, the other's videos are encoded and published
QUEUED = 64  # requests that wait for a replica; further ones are answered 429
ASKING = 64  # HTTP requests that one door answers at once
STALLED_S = 600.0  # a render without a new frame for so long has hung: the replica is replaced
STOPPING_S = 10.0  # that a replica has to leave its batch
DEPLOY_S = 900.0  # a replica that fails says so at once; one that only loads slowly, on a busy machine, may take long

LIMITS = ServingLimits()
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
BACKPRESSURE = BackpressureConfig(status_code=429, retry_after_s=5)


@serve.deployment(
    max_ongoing_requests=ONGOING,
    max_queued_requests=QUEUED,
    backpressure_config=BACKPRESSURE,
    max_constructor_retry_count=1,  # a bundle that does not fit will not fit the second time
    health_check_period_s=10,
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=30,
)
class Generator:
    """One loaded bundle. The constructor verifies every digest before a tensor is read.

    With a ``root`` it works off that service's queue; either way it renders what it is handed.
    """

    def __init__(
        self,
        bundle: str,
        device: str,
        root: str | None = None,
        url: str | None = None,
        identity: Identity | None = None,
        lease_s: float = LEASE_S,
        batch: int = BATCH,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        with marked():
            pipeline, self.bundle = load_pipeline(Path(bundle), device)
            self.renderer = Renderer(pipeline, self.bundle, batch=batch, limits=LIMITS, identity=identity)
            self.service = None if root is None else Service(Path(root), url=url, lease_s=lease_s)
        self._thread = ThreadPoolExecutor(1, "render")  # always the same: mediapipe's graphs must not change theirs
        self.progress: tuple[int, int, str] = (0, 0, "")
        self._moved: float | None = None  # monotonic seconds of the last frame, while rendering
        self._stop = threading.Event()
        self._workers: list[Worker] = []
        self._pullers: list[threading.Thread] = []
        if self.service is not None:
            queue, results, turn = self.service.queue, self.service.results, threading.Lock()
            journal = Journal(Path(str(root)), "model")
            self._workers = [
                Worker(queue, self.bundle.digest, results, self._in_turn, batch, self.renderer.take, turn, journal)
                for _ in range(HANDS)
            ]
            self._pullers = [
                threading.Thread(target=worker.run, args=(self._stop,), name="pull", daemon=True)
                for worker in self._workers
            ]
            for puller in self._pullers:
                puller.start()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.05)
    async def generate(self, jobs: list[Job]) -> list[Outcome]:
        """Outcomes of jobs whose paths are absolute. Batches run one after another, beside the event loop."""
        finish = await asyncio.get_running_loop().run_in_executor(self._thread, self._begin, jobs, None, None)
        return await asyncio.to_thread(finish)

    async def watch(self) -> tuple[int, int, str]:
        """Frames done, frames in all, and names, of the batch that renders now (or the last)."""
        return self.progress

    def check_health(self) -> None:
        """Raise where a render hangs, or nothing is pulled any more; Serve then replaces the replica."""
        moved = self._moved
        if moved is not None and time.monotonic() - moved > STALLED_S:
            raise RuntimeError(f"no frame for {STALLED_S:.0f} s")
        if not all(puller.is_alive() for puller in self._pullers):
            raise RuntimeError("the worker has ended")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What :class:`serving.scaling.ByQueue` decides by."""
        if self.service is None:
            return {}
        depth = await asyncio.to_thread(self.service.queue.depth, self.bundle.digest)
        return {UNFINISHED: depth.get("queued", 0) + depth.get("running", 0)}

    def __del__(self) -> None:
        """Serve's call on stopping: batches in hand go back to the queue at once, and cost nobody a try."""
        pullers: list[threading.Thread] = getattr(self, "_pullers", [])  # none: the constructor failed
        if pullers:
            self._stop.set()
            for worker in self._workers:
                worker.abandon.set()
            end = time.monotonic() + STOPPING_S
            for puller in pullers:
                puller.join(max(0.0, end - time.monotonic()))

    def _in_turn(
        self, jobs: Sequence[Job], progress: Progress | None, watch: Watch | None, streamed: Callable[[], None]
    ) -> list[Outcome]:
        finish = self._thread.submit(self._begin, jobs, progress, watch).result()
        streamed()
        return finish()

    def _begin(
        self, jobs: Sequence[Job], progress: Progress | None, watch: Watch | None
    ) -> Callable[[], list[Outcome]]:
        def move(done: int, total: int, note: str) -> None:
            self._moved = time.monotonic()
            self.progress = (done, total, note)
            if progress is not None:
                progress(done, total, note)

        self._moved = time.monotonic()
        try:
            return self.renderer.begin(jobs, move, watch)
        except Misuse:
            if len(jobs) == 1:
                raise
            # callers who do not know of each other asked for one place: the later one has it
            outcomes = [outcome for job in jobs for outcome in self.renderer.render([job], move, watch)]
            return lambda: outcomes
        finally:
            self._moved = None


@serve.deployment(
    max_ongoing_requests=ASKING,
    max_queued_requests=QUEUED,
    backpressure_config=BACKPRESSURE,
    max_constructor_retry_count=1,
    health_check_period_s=10,
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=30,
)
@serve.ingress()
class Door:
    """The HTTP interface (:mod:`serving.api`) over the service under ``root``."""

    def __init__(
        self,
        root: str,
        models: list[tuple[str, str]],
        url: str | None = None,
        allowed: str | None = None,
        limits: ServingLimits = LIMITS,
        queue_limit: int = QUEUE_LIMIT,
        follows: bool = False,
    ) -> None:
        store = None if allowed is None else Path(allowed)
        with marked():
            served = Models.read([(alias, Path(folder)) for alias, folder in models])
            more: dict[str, Any] = {"limits": limits, "queue_limit": queue_limit, "follows": follows}
            self.service = Service(Path(root), served, url=url, allowed=store, **more)
            self.service.journal = Journal(Path(root), "door")

    def __serve_build_asgi_app__(self) -> Any:
        from serving.api import create_api

        return create_api(self.service)


class ModelArguments(Settings):
    """What ``infra/serve.yaml`` gives to :func:`build_model`."""

    bundle: Path
    root: Path | None = None  # the service's folder, on a file system that all replicas share
    url: str | None = None  # the ledger's; none: SQLite in ``root``, for one machine
    replicas: int = Field(default=1, ge=1)
    most: int | None = None  # replicas, where their number is to follow the length of the queue (serving.scaling)
    device: str = "cpu"
    identity: Identity | None = None  # who signs, by files on every node; none: as the environment here says
    batch: int = Field(default=BATCH, ge=1)  # videos rendered together
    lease_s: float = Field(default=LEASE_S, gt=0)  # what a replica that fell silent had in hand is another's after it


class DoorArguments(Settings):
    """What ``infra/serve.yaml`` gives to :func:`build_door`."""

    root: Path
    models: dict[str, Path]  # bundle folders by alias; the first is what is meant where none is named
    url: str | None = None
    allowed: Path | None = None  # files under it may be named by key (``store:…``)
    limits: ServingLimits = LIMITS  # of uploads
    queue_limit: int = Field(default=QUEUE_LIMIT, ge=1)  # videos that wait; beyond it submissions are answered 429
    replicas: int = 1
    follows: bool = False  # offer what the file ``offer.json`` in ``root`` says (serving.offer), whenever it changes


def build_model(arguments: ModelArguments) -> serve.Application:
    """The application that keeps one bundle loaded (``import_path: serving.app:build_model``).

    The bundle is checked here already, so that a damaged one stops before anything is started. Raises
    ``Corrupt`` naming the file and both digests, ``Misuse`` where there is no bundle, or nobody who can sign.
    """
    check_bundle(arguments.bundle)
    identity = arguments.identity or Identity.own()
    own_signer(identity)
    root = None if arguments.root is None else str(arguments.root.absolute())
    deployment: Any = Generator  # the decorator made a Deployment of the class
    least, most = arguments.replicas, arguments.most
    number = {"num_replicas": least} if most is None else {"autoscaling_config": scaling(least, max(least, most))}
    deployment = deployment.options(**number, ray_actor_options=_actor(1, arguments.device))
    folder = str(arguments.bundle.absolute())
    bound: serve.Application = deployment.bind(
        folder, arguments.device, root, arguments.url, identity, arguments.lease_s, arguments.batch
    )
    return bound


def build_door(arguments: DoorArguments) -> serve.Application:
    """The application that answers over HTTP (``import_path: serving.app:build_door``)."""
    models = [(alias, str(folder.absolute())) for alias, folder in arguments.models.items()]
    allowed = None if arguments.allowed is None else str(arguments.allowed.absolute())
    deployment: Any = Door
    deployment = deployment.options(num_replicas=arguments.replicas, ray_actor_options=_actor(0.2, "cpu"))
    limits = arguments.limits, arguments.queue_limit
    bound: serve.Application = deployment.bind(
        str(arguments.root.absolute()), models, arguments.url, allowed, *limits, arguments.follows
    )
    return bound


@contextmanager
def run_local(
    models: Sequence[ModelArguments], door: DoorArguments | None = None, host: str = LOOPBACK, port: int | None = None
) -> Iterator[Client]:
    """Serve ``models`` inside the Ray that the caller has started, as long as the block lasts.

    With a ``door`` also over HTTP, on ``host`` alone; ``port`` None takes a free one; where Serve stands already, it
    listens where it did. The client speaks to the first of the models. Yields once everything is healthy. Raises
    ``Corrupt`` or ``Misuse`` for a bundle that cannot be served, ``Transient`` where it is not healthy within
    ``DEPLOY_S``. A Serve that ran already in that Ray is left running.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    built = [build_model(model) for model in models]  # what is damaged stops here, before anything starts
    standing = _standing()
    tag = secrets.token_hex(4)
    prefix = f"/voxface-{tag}" if standing else "/"
    host, number = standing or (host, port or _free_port())
    names = [f"voxface-{tag}-{place}" for place in range(len(models))]
    targets = [_target(app, name) for name, app in zip(names, built, strict=True)]
    if door is not None:
        names.append(f"voxface-{tag}-door")
        targets.append(_target(build_door(door), names[-1], prefix))
    url = "" if door is None else f"http://{host}:{number}{prefix}".rstrip("/")
    try:
        if not standing:
            location = "Disabled" if door is None else "HeadOnly"
            serve.start(proxy_location=location, http_options={"host": host, "port": number}, logging_config=QUIET)
        handle, *_ = serve.run_many(targets, wait_for_applications_running=False)
        for name in names:
            _wait_healthy(name)
        yield Client(handle, names, url, models[0].replicas)
    finally:
        if standing:
            for name in names:
                serve.delete(name)
        else:
            serve.shutdown()


def load(client: Client, model: ModelArguments) -> str:
    """Keep one more bundle loaded beside those of ``client``; the name of its application, once it is healthy.

    Raises as :func:`run_local`; nothing is left of an application that does not get healthy.
    """
    name = f"voxface-{secrets.token_hex(4)}"
    built = build_model(model)
    client.names.append(name)  # whatever happens, it ends with the others
    serve.run_many([_target(built, name)], wait_for_applications_running=False)
    try:
        _wait_healthy(name)
    except BaseException:
        unload(client, name)
        raise
    return name


def unload(client: Client, name: str) -> None:
    """End an application; what it has in hand goes back to the queue."""
    serve.delete(name)
    client.names.remove(name)


def _target(app: serve.Application, name: str, prefix: str | None = None) -> serve.RunTarget:
    return serve.RunTarget(target=app, name=name, route_prefix=prefix, logging_config=QUIET)


def _wait_healthy(name: str) -> None:
    end, told = time.monotonic() + DEPLOY_S, "Serve does not know it"
    while time.monotonic() < end:
        found = serve.status().applications.get(name)
        if found is not None:
            parts = [f"{part}: {each.status} {each.message}" for part, each in found.deployments.items()]
            told = "\n".join([f"{found.status} {found.message}", *parts])
            if found.status == "RUNNING":
                return
            # a replica of ours that cannot load says so at once, whatever Serve makes of it
            if MARK in told or found.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise own_error(told)
        time.sleep(0.1)
    hint = "are there CPUs and memory left in the cluster?"
    raise Transient(f"the application was not healthy within {DEPLOY_S:.0f} s; {hint} It is {told.strip()[-1000:]}")


def _standing() -> tuple[str, int] | None:
    """Host and port of the Serve that runs in this Ray already."""
    try:
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return None
    options = ray.get(controller.get_http_config.remote())
    return options.host, options.port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        number: int = probe.getsockname()[1]
        return number


def _actor(cpus: float, device: str) -> dict[str, Any]:
    variables = {name: os.environ[name] for name in ("VOXFACE_SYSTEMS_PATH",) if name in os.environ}
    return {
        "num_cpus": cpus,
        "num_gpus": 0 if device == "cpu" else 1,
        "runtime_env": {"env_vars": {"HF_HUB_OFFLINE": "1", **variables}},
    }
