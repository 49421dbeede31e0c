"""``voxface publish``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.bundle import ARTIFACT_FILE, read_bundle
from contracts.errors import Misuse
from contracts.files import require_space
from flows import publish as flow
from flows.commands.options import WORK, AsJson, DryRun, ParamsFile, Quiet, Work
from flows.params import read_params
from flows.running import Run, running


def publish(
    system: Annotated[str, typer.Argument(help="Which paper's system, as see_the_speaker.")],
    alias: Annotated[str | None, typer.Option(help="Name that will point to it [default: params, champion].")] = None,
    params: ParamsFile = None,
    work: Work = WORK,
    json: AsJson = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Make a bundle of the trained stages and register it in MLflow under an alias.

    Example: voxface publish see_the_speaker --alias champion
    """
    values = read_params(params)
    with running("publish", work=work, json=json, quiet=quiet, dry_run=dry_run) as run:
        job = _job(run, system, alias or values.publish.get("alias", "champion"))
        bundle = flow.bundle_of(job)
        size = sum(path.stat().st_size for folder in job.stages.values() for path in folder.rglob("*.*"))
        folder = job.bundles / bundle.digest[: flow.NAME_DIGITS]
        told = {"system": system, "bundle": str(folder), "digest": bundle.digest, "alias": job.alias}
        if dry_run:
            run.finish(told | {"stages": list(job.stages), "estimated_seconds": 30, "estimated_bytes": size})
            return
        if flow.read_published(job.record) == told and folder.is_dir() and read_bundle(folder).digest == bundle.digest:
            run.note("nothing to do: this bundle stands and has the alias")
            run.finish(told)
            return
        require_space(job.bundles, 2 * size)
        run.finish(flow.publish(job, bundle))


def _job(run: Run, system: str, alias: str) -> flow.PublishJob:
    from systems import catalogue

    out: Path = run.places.training(system)
    stages = {stage.name: out / stage.name / "artifact" for stage in catalogue.get(system).stages}
    missing = [name for name, path in stages.items() if not (path / ARTIFACT_FILE).is_file()]
    if missing:
        raise Misuse(f"{system}: {', '.join(missing)} not trained yet: voxface train {system}")
    from contracts.bundle import read_artifact

    presets = {
        str(read_artifact(path, verify=False).lineage.settings.get("preset", "custom")) for path in stages.values()
    }
    return flow.PublishJob(
        system=system,
        preset=presets.pop() if len(presets) == 1 else "mixed",
        stages=stages,
        bundles=run.places.bundles(system),
        record=run.places.published(system),
        alias=alias,
        tracking_uri=run.places.tracking_uri,
    )
