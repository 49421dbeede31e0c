"""``voxface generate``."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.bundle import read_bundle
from contracts.errors import Exit, Misuse
from contracts.files import require_space
from flows import batch as batches
from flows import generate as flow
from flows.bundles import Wanted, find, resolve
from flows.commands.ingest import share
from flows.commands.options import Address, command
from flows.running import Ended, Run

if TYPE_CHECKING:
    from serving.jobs import Job

BundleFolder = Annotated[Path | None, typer.Option("--bundle", help="Bundle folder; instead of an alias.")]
Alias = Annotated[str, typer.Option(help="Alias in MLflow's registry.")]
System = Annotated[str, typer.Option(help="Which paper's system.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Ledger = Annotated[str | None, typer.Option(help="Database URL [default: SQLite under the work folder].")]
Replicas = Annotated[int, typer.Option(min=1, help="How many copies of the networks work side by side.")]


@command("generate", dry=True)
def generate(
    run: Run,
    audio: Annotated[Path | None, typer.Option(help="A sound file with speech.")] = None,
    out: Annotated[Path | None, typer.Option(help="Video (.mp4); with --manifest a folder.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Many videos: JSON Lines, see docs/serving.md.")] = None,
    portrait: Annotated[Path | None, typer.Option(help="Animate this face; needs --consent.")] = None,
    video: Annotated[Path | None, typer.Option(help="Dub this video (g4g); needs --consent.")] = None,
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
    ledger: Ledger = None,
    max_rejected: Annotated[str, typer.Option(help="End with 3 where more rows are refused, as 5%.")] = "100%",
) -> None:
    """Turn speech into talking faces. Every video is marked and signed as generated, and has a JSON sidecar.

    Example: voxface generate --audio speech.wav --out talk.mp4

    Dubbed: voxface generate --system g4g --video talk.mp4 --audio speech.wav --consent "Ada Lovelace, a greeting"

    Many, in one go and resumable: voxface generate --manifest jobs.jsonl --out talks
    """
    if (audio is None) == (manifest is None):
        raise Misuse("name the speech by either --audio FILE or --manifest FILE")
    if manifest is not None:
        alone = {"--portrait": portrait, "--video": video, "--consent": consent, "--steps": steps, "--size": size}
        if given := [name for name, value in alone.items() if value is not None] + (["--seed"] if seed else []):
            raise Misuse(f"{', '.join(given)}: with --manifest these stand in its lines")
        engine = batches.Engine(replicas, device, address, ledger)
        wanted = Wanted(system, alias, bundle)
        _generate_batch(run, manifest, out or run.places.generated, wanted, engine, share(max_rejected))
        return
    from serving.jobs import Job, check_jobs

    target = out or run.places.generated / "talk.mp4"
    values = {"audio": audio, "out": target, "portrait": portrait, "video": video, "consent": consent}
    job = Job.read(values | {"seed": seed, "steps": steps, "size": size}, "generate")
    check_jobs([job])
    run.finish({"videos": _generate(run, job, bundle or resolve(run.places, system, alias), replicas, device, address)})
    _judge(run.result["videos"])


def _generate(run: Run, job: Job, folder: Path, replicas: int, device: str, address: str) -> list[dict[str, Any]]:
    digest = read_bundle(folder).digest
    seconds = _seconds(job.audio)
    needed = _bytes(seconds)
    if run.dry:
        estimate = flow.START_SECONDS + flow.SECONDS_PER_SECOND * seconds
        told = {"video": str(job.out), "bundle": digest[:12]}
        return [told | {"estimated_seconds": estimate, "estimated_bytes": needed}]
    done = flow.standing([job], digest)  # what is wrong with the input is said now
    if done is not None:
        run.note("nothing to do: the video stands, made by this bundle from this very input")
        return done
    require_space(job.out.parent, needed)
    with run.progress("generate") as progress:
        return flow.generate(flow.GenerateJob(folder, [job], replicas, device, address), progress)


def _generate_batch(run: Run, manifest: Path, out: Path, wanted: Wanted, engine: batches.Engine, budget: float) -> None:
    from serving.service import Service

    service = Service(run.places.service, url=engine.url)
    try:
        with run.progress("inputs") as progress:
            batch = batches.look(
                manifest,
                out,
                service,
                (wanted.system, wanted.alias),
                lambda s, m: find(run.places, wanted, s, m),
                progress,
            )
        missing = batch.missing
        seconds = sum(_seconds(item.job.audio) for place in missing if (item := batch.items[place]).job is not None)
        if run.dry:
            estimate = flow.START_SECONDS + flow.SECONDS_PER_SECOND * seconds / engine.replicas if missing else 0.0
            refused = [line for line in batch.lines if line.error is not None]
            run.finish(
                {
                    "read": len(batch.lines),
                    "finished": len(batch.standing),
                    "to_make": len(missing),
                    "rejected": {f"line {line.number}": str(line.error) for line in refused},
                    "bundles": [model.digest[:12] for model in batch.models],
                    "estimated_seconds": estimate,
                    "estimated_bytes": _bytes(seconds) if missing else 0,
                }
            )
            return
        if missing:
            require_space(out, _bytes(seconds))
            with run.progress("generate") as progress:
                lines = batches.generate(batch, engine, manifest.name, progress)
        else:
            run.note("nothing to do: every video stands, made from these very inputs")
            lines = batches.write_report(batch)
    finally:
        service.close()
    told = {"report": str(out / batches.REPORT), "reused": sum(line.get("reused", False) for line in lines)}
    whole = batches.summary(lines) | told
    run.finish(whole | ({"videos": lines} if run.json else {}))
    run.result = whole
    _judge_batch(lines, out / batches.REPORT, budget)


def _judge_batch(lines: list[dict[str, Any]], report: Path, budget: float) -> None:
    """End with 75 where only the circumstances failed, with 1 where videos did, with 3 over the budget."""
    failed = [line for line in lines if line["state"] in ("failed", "cancelled")]
    if failed:
        passing = all(line.get("code") in ("EXHAUSTED", "CANCELLED") for line in failed)
        code = Exit.TRANSIENT if passing else Exit.FAILED
        raise Ended(code, f"{len(failed)} of {len(lines)} videos failed; {report} says how: {failed[0]['detail']}")
    rejected = sum(line["state"] == "rejected" for line in lines)
    if rejected > budget * len(lines):
        told = f"{rejected} of {len(lines)} lines were rejected; --max-rejected allows {budget:.3g}; see {report}"
        raise Ended(Exit.MISSED, told)


def _bytes(seconds: float) -> int:
    return round(flow.BYTES_PER_SECOND * seconds) + 10_000_000


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
