"""Training through Ray Train: one worker group for all stages of a system, one after another."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import read_artifact
from contracts.errors import Corrupt, Misuse, Transient, VoxfaceError
from contracts.files import commit_bytes, lock, sweep
from contracts.selection import read_selection
from contracts.settings import canonical_json
from training.agenda import StageResult as StageResult
from training.agenda import TrainRequest as TrainRequest
from training.agenda import (
    artifact_folder,
    build_stage,
    lineage_of,
    mark_done,
    names,
    stands,
)
from training.agenda import pending as pending
from training.record import Record, read_record

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int, str], None]
FAILURE_FILE = "failure.json"
RESTARTS = 2  # of the worker group, after a worker or its node died
POLL_S = 0.5
CLOCK_S = 2.0  # by which the clocks of nodes may differ
GROUP_TIMEOUT_S = 24 * 3600  # rank 0 computes, validates and exports while the others wait
# read by Ray Train where it is set before a run begins, there and in its workers
RAY_TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # between looks at workers: the end of a group is seen as late
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more per start, for warnings that we do not use
    "RAY_TRAIN_METRICS_ENABLED": "0",  # for a dashboard; ours stand in metrics.jsonl
}
# for each of these Ray Train starts a process with every group: for its own data sets, for a controller that is lost
UNUSED = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
ERRORS: dict[str, type[VoxfaceError]] = {kind.__name__: kind for kind in (Misuse, Corrupt, Transient)}

logger = logging.getLogger(__name__)


def train_system(request: TrainRequest, progress: Progress) -> list[StageResult]:
    """Train the stages that are not done, through Ray Train on the cluster the caller is connected to.

    Started again after any interruption, it goes on from the last checkpoint. Raises what stopped it:
    ``Misuse`` (settings, data changed, losses not finite), ``Corrupt`` (a shard or an artifact).
    """
    from training.data import verify

    request = replace(
        request,
        dataset=request.dataset.resolve(),  # workers stand in another folder
        selection=request.selection.resolve(),
        out=request.out.resolve(),
    )
    with lock(request.out):
        wanted = names(request)
        todo = pending(request)
        if todo:
            sweep(request.out)
            verify(request.dataset, read_selection(request.selection))
            with watching(request, todo, progress):
                _fit(request, todo)
            mark_done(request, request.fingerprint(), wanted)
    results = []
    for name in wanted:
        artifact = read_artifact(artifact_folder(request.out, name))
        path = artifact_folder(request.out, name)
        results.append(StageResult(name, path, artifact.digest, name in todo, artifact.measures))
    return results


def _fit(request: TrainRequest, todo: list[str]) -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):
        """A trainer whose groups start without what is not used: each process less is seconds of a core."""

        def _create_default_callbacks(self) -> list[Any]:
            return [each for each in super()._create_default_callbacks() if type(each).__name__ not in UNUSED]

    for name, value in RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    gpu = ray.cluster_resources().get("GPU", 0) >= request.workers
    storage = request.out / ".ray"  # the controller's own notes; checkpoints are ours
    failure = request.out / FAILURE_FILE
    failure.unlink(missing_ok=True)
    trainer = Trainer(
        work,
        train_loop_config={
            "request": request,
            "stages": todo,
            "systems_path": os.environ.get("VOXFACE_SYSTEMS_PATH", ""),
        },
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo", timeout_s=GROUP_TIMEOUT_S),
        scaling_config=ScalingConfig(num_workers=request.workers, use_gpu=gpu),
        run_config=RunConfig(
            name=request.system,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=RESTARTS),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        _raise_told(failure)
        raise Transient(
            f"training stopped: {_line(error)}: run the same command again to go on from the last checkpoint"
        ) from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    _raise_told(failure)


def work(config: dict[str, Any]) -> None:
    """What each worker runs: the stages in order, rank 0 writing."""
    import ray.train
    import torch

    request: TrainRequest = config["request"]
    if (request.out / FAILURE_FILE).is_file():
        return  # the group was restarted after an error that would only come again
    if config["systems_path"]:
        os.environ["VOXFACE_SYSTEMS_PATH"] = config["systems_path"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    here = context.get_local_world_size()
    torch.set_num_threads(request.threads or max(1, len(os.sched_getaffinity(0)) // here))
    device = ray.train.torch.get_device()
    try:
        for name in config["stages"]:
            # a restarted group finds stages that the one before finished
            if not stands(request, build_stage(request, name), request.digests()):
                with noting(request.out / name, rank):
                    train_stage(request, name, rank, world, device)
            if world > 1:
                torch.distributed.barrier()
    except VoxfaceError as error:
        told = {"kind": type(error).__name__, "arguments": [str(argument) for argument in error.args]}
        commit_bytes(request.out / FAILURE_FILE, canonical_json(told).encode())
        if world > 1:  # the others may wait for this one's next step: only its end tells them
            raise


def train_stage(request: TrainRequest, name: str, rank: int, world: int, device: torch.device) -> None:
    """One stage on this worker; rank 0 leaves its artifact."""
    from systems import catalogue
    from training.feed import feed
    from training.stages import Half, Place, run_stage

    stage = build_stage(request, name)
    lineage = lineage_of(request, stage, request.digests())
    half = Half(request.dataset, read_selection(request.selection))
    place = Place(rank, world, device, feed=lambda reader, start, stop: feed(reader, start, stop, request.loaders))
    run_stage(catalogue.get(request.system), stage, lineage, half, half, request.out, place)


def _raise_told(failure: Path) -> None:
    if failure.is_file():
        told = json.loads(failure.read_bytes())
        raise ERRORS[told["kind"]](*told["arguments"])


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


class Notes(logging.Handler):
    """Warnings of a worker as lines of its stage's record, so that the driver can repeat them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(logging.WARNING)
        self.record = Record(folder)

    def emit(self, line: logging.LogRecord) -> None:
        self.record.append("note", 0, {}, text=line.getMessage())


@contextmanager
def noting(folder: Path, rank: int) -> Iterator[None]:
    """Keep rank 0's warnings in the stage's record."""
    handler = Notes(folder)
    loggers = [logging.getLogger(room) for room in ("training", "systems")] if rank == 0 else []
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)


@contextmanager
def watching(request: TrainRequest, todo: list[str], progress: Progress) -> Iterator[None]:
    """Read the stages' records while they train: steps done go to ``progress``, notes to the log."""
    steps = {name: max(1, build_stage(request, name).settings.steps) for name in todo}
    total, ended, told, began = sum(steps.values()), threading.Event(), set[str](), time.time()

    def look() -> None:
        done, note = 0, "starting workers"
        for name in todo:
            lines = [line for line in read_record(request.out / name) if line["time"] >= began - CLOCK_S]
            for line in lines:
                if line["kind"] == "note" and line["text"] not in told:
                    told.add(line["text"])
                    logger.warning("%s: %s", name, line["text"])
            moved = [line for line in lines if line["kind"] in ("start", "train", "skipped", "end")]
            if moved and moved[-1]["kind"] == "end":
                done, note = done + steps[name], f"{name} done"
            elif moved:
                at = min(moved[-1]["step"], steps[name])
                loss = [v for k, v in moved[-1]["values"].items() if k.endswith("/total")]
                note = f"{name} step {at}/{steps[name]}" + (f" loss {loss[0]:.4g}" if loss else "")
                done += at
        progress(done, total, note)

    def poll() -> None:
        while not ended.wait(POLL_S):
            look()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
        ended.set()
        thread.join()
        look()
    finally:
        ended.set()
        thread.join()
