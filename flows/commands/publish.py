"""``voxface publish``."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.bundle import read_bundle
from contracts.files import require_space
from flows import publish as flow
from flows.commands.options import ParamsFile, command
from flows.params import read_params
from flows.running import Run


@command("publish", dry=True)
def publish(
    run: Run,
    system: Annotated[str, typer.Argument(help="Which paper's system, as see_the_speaker.")],
    alias: Annotated[str | None, typer.Option(help="Name that will point to it [default: params, champion].")] = None,
    params: ParamsFile = None,
) -> None:
    """Make a bundle of the trained stages and register it in MLflow under an alias.

    Example: voxface publish see_the_speaker --alias champion
    """
    values = read_params(params)
    job = flow.job_of(run.places, system, alias or values.publish.get("alias", "champion"))
    bundle = flow.bundle_of(job)
    size = sum(path.stat().st_size for folder in job.stages.values() for path in folder.rglob("*.*"))
    folder = job.bundles / bundle.digest[: flow.NAME_DIGITS]
    told = {"system": system, "bundle": str(folder), "digest": bundle.digest, "alias": job.alias}
    if run.dry:
        run.finish(told | {"stages": list(job.stages), "estimated_seconds": 30, "estimated_bytes": size})
        return
    if flow.read_published(job.record) == told and folder.is_dir() and read_bundle(folder).digest == bundle.digest:
        run.note("nothing to do: this bundle stands and has the alias")
        run.finish(told)
        return
    require_space(job.bundles, 2 * size)
    run.finish(flow.publish(job, bundle))
