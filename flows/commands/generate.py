"""``voxface generate``, ``voxface inspect`` and ``voxface serve``."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.bundle import read_bundle
from contracts.errors import Exit, Misuse
from contracts.files import require_space
from flows import generate as flow
from flows.commands.options import WORK, Address, AsJson, DryRun, Quiet, Work
from flows.running import Ended, Run, running

if TYPE_CHECKING:
    from serving.jobs import Job

BundleFolder = Annotated[Path | None, typer.Option("--bundle", help="Bundle folder; instead of an alias.")]
Alias = Annotated[str, typer.Option(help="Alias in MLflow's registry.")]
System = Annotated[str, typer.Option(help="Which paper's system.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Replicas = Annotated[int, typer.Option(min=1, help="How many copies of the networks work side by side.")]


def generate(
    audio: Annotated[Path | None, typer.Option(help="A sound file with speech.")] = None,
    out: Annotated[Path | None, typer.Option(help="Video (.mp4); with --manifest a folder.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="JSON Lines: audio, out, portrait, consent, seed.")] = None,
    portrait: Annotated[Path | None, typer.Option(help="Animate this face; needs --consent.")] = None,
    consent: Annotated[str | None, typer.Option(help='"who, purpose": who is shown agreed, and for what.')] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another face.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps [default: the system's].")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="Side of the video in pixels [default: as made].")] = None,
    bundle: BundleFolder = None,
    alias: Alias = "champion",
    system: System = "see_the_speaker",
    replicas: Replicas = 1,
    device: Device = "cpu",
    address: Address = "local",
    work: Work = WORK,
    json: AsJson = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Turn speech into a talking face. The video is marked as generated and has a JSON sidecar.

    Example: voxface generate --audio speech.wav --out talk.mp4
    """
    with running("generate", work=work, json=json, quiet=quiet, dry_run=dry_run) as run:
        from serving.jobs import Job, check_jobs, read_jobs

        if (audio is None) == (manifest is None):
            raise Misuse("name the speech by either --audio FILE or --manifest FILE")
        if manifest is not None:
            jobs = read_jobs(manifest, out or run.places.generated)
        else:
            target = out or run.places.generated / "talk.mp4"
            values = {"audio": audio, "out": target, "portrait": portrait, "consent": consent, "seed": seed}
            jobs = [Job.read(values | {"steps": steps, "size": size}, "generate")]
            check_jobs(jobs)
        run.finish({"videos": _generate(run, jobs, bundle, alias, system, replicas, device, address)})
        _judge(run.result["videos"])


def _generate(
    run: Run,
    jobs: list[Job],
    bundle: Path | None,
    alias: str,
    system: str,
    replicas: int,
    device: str,
    address: str,
) -> list[dict[str, Any]]:
    folder = bundle or resolve(run, system, alias)
    digest = read_bundle(folder).digest
    seconds = sum(_seconds(job.audio) for job in jobs)
    needed = round(flow.BYTES_PER_SECOND * seconds) + 10_000_000
    if run.dry:
        estimate = flow.START_SECONDS + flow.SECONDS_PER_SECOND * seconds
        return [
            {"video": str(job.out), "bundle": digest[:12], "estimated_seconds": estimate, "estimated_bytes": needed}
            for job in jobs
        ]
    # one job: what is wrong with its input is said now; of many, each is answered in its own line
    done = flow.standing(jobs, digest) if len(jobs) == 1 else None
    if done is not None:
        run.note("nothing to do: the video stands, made by this bundle from this very input")
        return done
    require_space(jobs[0].out.parent, needed)
    job = flow.GenerateJob(folder, jobs, run.places.generated, replicas, device, address)
    with run.progress("generate") as progress:
        return flow.generate(job, progress)


def resolve(run: Run, system: str, alias: str) -> Path:
    """The local bundle that the alias points to. Raises ``Misuse`` where there is none."""
    from training.registry import resolve as look_up

    folder, _ = look_up(system, alias, run.places.tracking_uri)
    return Path(folder)


def _judge(lines: list[dict[str, Any]]) -> None:
    failed = [line for line in lines if line.get("state") == "failed"]
    refused = [line for line in lines if line.get("state") == "rejected"]
    if failed:
        raise Ended(Exit.FAILED, f"{len(failed)} of {len(lines)} videos failed: {failed[0]['detail']}")
    if refused and len(refused) == len(lines):
        raise Ended(Exit.MISUSE, f"no video: {refused[0]['code']}: {refused[0]['detail']}")


def _seconds(audio: Path) -> float:
    """Length of a sound for an estimate; 10 s where its header is not a plain WAV's."""
    try:
        with wave.open(str(audio), "rb") as file:
            return file.getnframes() / file.getframerate()
    except (OSError, EOFError, wave.Error, ZeroDivisionError):
        return 10.0


def inspect(video: Annotated[Path, typer.Argument(help="A video.")], work: Work = WORK, json: AsJson = False) -> None:
    """Say what made a video, and whether it is still, byte for byte, what its sidecar describes; 4 where not.

    Example: voxface inspect talk.mp4
    """
    with running("inspect", work=work, json=json) as run:
        from serving.provenance import inspect as look

        found = look(video)
        run.finish(found.model_dump(mode="json", exclude_none=True))
        if found.state != "fits":
            raise Ended(Exit.CORRUPT, found.detail)


def serve(
    bundle: BundleFolder = None,
    alias: Alias = "champion",
    system: System = "see_the_speaker",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on 127.0.0.1 [default: a free one].")] = None,
    replicas: Replicas = 1,
    device: Device = "cpu",
    address: Address = "local",
    work: Work = WORK,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Serve a bundle over HTTP on 127.0.0.1 until Ctrl-C.

    Example: voxface serve --alias champion --port 8080
    """
    with running("serve", work=work, json=json, quiet=quiet) as run:
        folder = bundle or resolve(run, system, alias)
        digest = read_bundle(folder).digest
        from flows.cluster import cluster
        from serving.app import run_local

        store = run.places.generated
        with cluster(address), run_local(folder, store=store, replicas=replicas, device=device, port=port) as client:
            run.finish({"url": client.url, "bundle": digest, "videos": str(store)})
            _until_stopped(client)


def _until_stopped(client: Any) -> None:
    import time

    while client.healthy():
        time.sleep(2.0)
    raise Ended(Exit.FAILED, "the application is no longer healthy: the log of this run says why")
