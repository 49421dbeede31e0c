"""``voxface train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import Misuse
from contracts.files import require_space
from flows import train as flow
from flows.commands.options import Address, Chosen, Dataset, ParamsFile, System, command
from flows.params import TrainParams, read_params
from flows.running import Run


@command("train", dry=True)
def train(
    run: Run,
    system: System,
    dataset: Dataset = None,
    selection: Chosen = None,
    preset: Annotated[str | None, typer.Option(help="paper, small or tiny [default: params].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Training workers [default: params].")] = None,
    loaders: Annotated[
        int | None, typer.Option(min=0, help="Processes per worker that decode ahead [default: params].")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this stage; may be given again.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one setting of a stage.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random [default: params].")] = None,
    address: Address = "local",
    params: ParamsFile = None,
) -> None:
    """Train the stages of a system that are not done yet; the same line resumes after any interruption.

    Example: voxface train see_the_speaker --preset tiny --workers 2 --set conre.steps=40
    """
    settings = read_params(params).train.get(system, TrainParams())
    given = {"preset": preset, "workers": workers, "loaders": loaders, "seed": seed}
    settings = TrainParams.read(
        settings.model_dump()
        | {name: value for name, value in given.items() if value is not None}
        | {"set": merged(settings.set, changes(change or []))},
        "train",
    )
    job = _job(run, system, settings, dataset, selection, only, address)
    run.finish(_train(run, job))


def _job(
    run: Run,
    system: str,
    settings: TrainParams,
    dataset: Path | None,
    selection: Path | None,
    only: list[str] | None,
    address: str,
) -> flow.TrainJob:
    from contracts.selection import RECORD_FILE
    from flows.code import code_version
    from training.agenda import TrainRequest

    chosen = selection or run.places.selection
    if not (chosen / RECORD_FILE).is_file():
        raise Misuse(f"{chosen} holds no selection: make one by voxface dataset select")
    request = TrainRequest(
        system=system,
        preset=settings.preset,
        dataset=dataset or run.places.dataset,
        selection=chosen,
        out=run.places.training(system),
        workers=settings.workers,
        loaders=settings.loaders,
        seed=settings.seed,
        changes=settings.set,
        only=only or None,
        code=code_version(),
    )
    return flow.TrainJob(request=request, address=address, tracking_uri=run.places.tracking_uri)


def _train(run: Run, job: flow.TrainJob) -> dict[str, Any]:
    from training.agenda import pending

    todo = pending(job.request)
    if run.dry:
        return {
            "system": job.request.system,
            "to_train": todo,
            "estimated_seconds": flow.TINY_STAGE_SECONDS * len(todo),
            "estimated_bytes": flow.CHECKPOINT_BYTES if todo else 0,
        }
    if not todo:
        run.note("nothing to do: every stage stands, made from this dataset, selection and settings")
        if sent := flow.send_rest(job):
            run.note(f"{sent} points sent to MLflow that an interrupted run had kept back")
        page = str(job.request.out / "report.html")
        return {
            "system": job.request.system,
            "trained": [],
            "stages": flow.stages_done(job.request.out),
            "report": page,
        }
    require_space(job.request.out, flow.CHECKPOINT_BYTES)
    with run.progress(f"train {job.request.system}") as progress:
        return flow.train(job, todo, progress)


def changes(texts: list[str]) -> dict[str, dict[str, Any]]:
    """Settings changed on the command line: ``conre.steps=40`` becomes ``{"conre": {"steps": 40}}``.

    Values are read as YAML. Raises ``Misuse`` for another form.
    """
    import yaml

    result: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        stage, dot, key = name.partition(".")
        if not (equals and dot and stage and key):
            raise Misuse(f"--set {text}: expected STAGE.KEY=VALUE, such as conre.steps=40")
        try:
            result.setdefault(stage, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise Misuse(f"--set {text}: {value!r} is not a value") from None
    return result


def merged(base: dict[str, dict[str, Any]], over: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """``base`` with the settings of ``over`` in their place."""
    return {stage: base.get(stage, {}) | over.get(stage, {}) for stage in sorted({*base, *over})}
