"""The flow that trains a system: its stages in one worker group, mirrored to MLflow, then the page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import ARTIFACT_FILE, read_artifact
from flows.console import Progress

if TYPE_CHECKING:
    from training.agenda import TrainRequest

CHECKPOINT_BYTES = 2_000_000_000  # room for a stage's checkpoints at the presets that run on a CPU
TINY_STAGE_SECONDS = 60  # per stage at preset tiny, worker start included
MIRROR_SECONDS = 10.0  # between two looks of MLflow at a running stage


@dataclass(frozen=True)
class TrainJob:
    """A request to training, and where it runs and is tracked."""

    request: TrainRequest
    address: str
    tracking_uri: str


class Mirror:
    """Passes progress on, and sends what the stages have recorded so far to MLflow every few seconds."""

    def __init__(self, job: TrainJob, progress: Progress) -> None:
        self.job, self.progress = job, progress
        self.sent = time.monotonic()

    def __call__(self, done: int, total: int, note: str) -> None:
        """Draw the progress; mirror where it is time."""
        self.progress(done, total, note)
        if time.monotonic() - self.sent >= MIRROR_SECONDS:
            self.send()
            self.sent = time.monotonic()

    def send(self) -> None:
        """Mirror all that is recorded. MLflow being away is logged there, never raised."""
        from training.tracking import forward

        forward(self.job.request.out, tracking_uri=self.job.tracking_uri, experiment=self.job.request.system)


def send_rest(job: TrainJob) -> int:
    """Send MLflow what a run that was killed did not; return how many points that were. Quick where there is none."""
    from training.tracking import forward, unsent

    request = job.request
    if not unsent(request.out, job.tracking_uri):
        return 0
    return forward(request.out, tracking_uri=job.tracking_uri, experiment=request.system)


def stages_done(out: Path) -> list[dict[str, Any]]:
    """A line per finished stage with its artifact's digest and measures, in order of need."""
    folders = [path.parent for path in out.glob(f"*/artifact/{ARTIFACT_FILE}")]
    found = {folder.parent.name: read_artifact(folder, verify=False) for folder in sorted(folders)}
    ordered: list[str] = []
    while waiting := [name for name in found if name not in ordered]:
        ready = [name for name in waiting if not set(found[name].lineage.parents) & set(waiting)]
        ordered += ready or waiting  # artifacts that name each other as parents: in any order, but not for ever
    return [
        {"stage": name, "artifact": found[name].digest[:12], "measures": _measures(found[name].measures)}
        for name in ordered
    ]


def _measures(measures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(measures.items())) or "-"


def train(job: TrainJob, todo: list[str], progress: Progress) -> dict[str, Any]:
    """Run the flow for the stages ``todo``; what stands then. Whatever its tasks raise comes through."""
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact

    from flows.cluster import aside, cluster
    from flows.retries import RETRIES
    from flows.server import shield_server
    from training.distributed import train_system
    from training.report import write_training_report

    shield_server()

    request = job.request
    mirrored = Mirror(job, progress)

    @task(name="train stages", **RETRIES)
    def stages() -> int:
        with cluster(job.address):
            return len(aside(lambda: train_system(request, mirrored)))

    @task(name="mirror to MLflow", **RETRIES)
    def mirror() -> None:
        mirrored.send()

    @task(name="report", **RETRIES)
    def report() -> dict[str, Any]:
        page = request.out / "report.html"
        write_training_report(request.out, page)
        lines = stages_done(request.out)
        table = "\n".join(
            ["| stage | artifact | measures |", "|---|---|---|"]
            + [f"| {line['stage']} | {line['artifact']} | {line['measures']} |" for line in lines]
        )
        create_markdown_artifact(table, key=f"stages-{request.system.replace('_', '-')}", description=request.system)
        return {"system": request.system, "trained": todo, "stages": lines, "report": str(page)}

    @flow(name="train", validate_parameters=False)
    def run(system: str, preset: str, todo: list[str]) -> dict[str, Any]:
        stages()
        mirror()
        return report()

    result: dict[str, Any] = run(request.system, request.preset, todo)
    return result
