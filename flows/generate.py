"""The flow that turns speech into videos through Ray Serve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.console import Progress

if TYPE_CHECKING:
    from serving.jobs import Job, Outcome

SECONDS_PER_SECOND = 15.0  # of speech, on one core at preset tiny
START_SECONDS = 60.0  # Ray, Serve and the networks
BYTES_PER_SECOND = 400_000  # of video


@dataclass(frozen=True)
class GenerateJob:
    """Videos to make with one bundle."""

    bundle: Path
    jobs: list[Job]
    replicas: int
    device: str
    address: str


def standing(jobs: list[Job], digest: str) -> list[dict[str, Any]] | None:
    """The results where every video stands already, made by the bundle of ``digest`` from these very inputs.

    ``None`` where any is missing. Needs neither Ray nor torch. Raises ``Reject`` for an input that is refused.
    """
    from serving.policy import admit
    from serving.provenance import portrait_path, sidecar_path
    from serving.publish import published

    lines = []
    for job in jobs:
        sidecar = published(job.out, admit(job, digest).job)
        if sidecar is None:
            return None
        lines.append(
            {
                "state": "done",
                "video": str(job.out),
                "frames": sidecar.frames,
                "sidecar": str(sidecar_path(job.out)),
                "portrait": str(portrait_path(job.out)) if sidecar.portrait else None,
            }
        )
    return lines


def told(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """A line per outcome, for people and for ``--json``."""
    lines: list[dict[str, Any]] = []
    for outcome in outcomes:
        if outcome.state == "done":
            lines.append(
                {
                    "state": "done",
                    "video": str(outcome.out),
                    "frames": outcome.frames,
                    "sidecar": str(outcome.sidecar),
                    "portrait": str(outcome.portrait) if outcome.portrait else None,
                }
            )
        else:
            lines.append(
                {
                    "state": outcome.state,
                    "video": str(outcome.out),
                    "code": str(outcome.code),
                    "detail": outcome.detail,
                }
            )
    return lines


def generate(job: GenerateJob, progress: Progress) -> list[dict[str, Any]]:
    """Run the flow; a line per job. Whatever its tasks raise comes through."""
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact

    from flows.cluster import cluster
    from flows.retries import RETRIES
    from flows.server import shield_server

    shield_server()

    @task(name="render", **RETRIES)
    def render() -> list[dict[str, Any]]:
        from serving.app import ModelArguments, run_local

        model = ModelArguments(bundle=job.bundle, replicas=job.replicas, device=job.device)
        with cluster(job.address), run_local([model]) as client:
            return told(client.generate(job.jobs, progress))

    @flow(name="generate", validate_parameters=False)
    def run(bundle: str, videos: list[str]) -> list[dict[str, Any]]:
        lines = render()
        counts = Counter(line["state"] for line in lines)
        rows = [f"| {line['video']} | {line['state']} | {line.get('code', '')} |" for line in lines]
        create_markdown_artifact(
            "\n".join(["| video | state | code |", "|---|---|---|", *rows]),
            key="generated",
            description=", ".join(f"{count} {state}" for state, count in sorted(counts.items())),
        )
        return lines

    result: list[dict[str, Any]] = run(str(job.bundle), [str(each.out) for each in job.jobs])
    return result
