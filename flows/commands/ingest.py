"""``voxface ingest``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import Exit, Misuse
from contracts.files import require_space
from flows import ingest as flow
from flows.commands.options import WORK, Address, AsJson, DryRun, ParamsFile, Quiet, Work
from flows.params import read_params
from flows.running import Ended, Run, running


def ingest(
    manifest: Annotated[Path | None, typer.Option(help="Table of clips: csv, jsonl or parquet.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Instead of a manifest: every media file below a folder.")] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that the manifest's files are relative to [default: the manifest's].")
    ] = None,
    where: Annotated[str, typer.Option(help="Only these rows, as \"gender == 'f' and age > 30\".")] = "",
    out: Annotated[Path | None, typer.Option(help="Dataset folder [default: WORK/dataset].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes [default: cores].")] = None,
    address: Address = "local",
    max_rejected: Annotated[str, typer.Option(help="End with 3 where more rows are refused, as 5%.")] = "100%",
    params: ParamsFile = None,
    work: Work = WORK,
    json: AsJson = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Turn recordings into a dataset: every row kept, rejected with a reason, or failed with a code.

    Example: voxface ingest --manifest clips.csv --data-root /data --out work/dataset --workers 2
    """
    budget = share(max_rejected)
    with running("ingest", work=work, json=json, quiet=quiet, dry_run=dry_run) as run:
        job = _job(run, manifest, folder, data_root, where, out, workers, address, params)
        if dry_run:
            run.finish(flow.estimate(job))
            return
        result = _unless_done(run, job)
        run.finish(result)
        _judge(result, budget)


def _job(
    run: Run,
    manifest: Path | None,
    folder: Path | None,
    data_root: Path | None,
    where: str,
    out: Path | None,
    workers: int | None,
    address: str,
    params: Path | None,
) -> flow.IngestJob:
    source = manifest or folder
    if source is None or (manifest and folder):
        raise Misuse("name the clips by either --manifest FILE or --folder DIR")
    if not source.exists():
        raise Misuse(f"{source} does not exist: check --manifest or --folder")
    from preprocessing.corpora import read_manifest
    from preprocessing.run import IngestSettings

    root = data_root or (source if source.is_dir() else source.parent)
    if not root.is_dir():
        raise Misuse(f"{root} is not a folder: check --data-root")
    rows = read_manifest(source, root)
    chosen = flow.where(rows, where)
    if not chosen:
        raise Misuse(f"{source} has {len(rows)} rows, none of them chosen: check --where")
    settings = IngestSettings.read(read_params(params).ingest, "params.yaml: ingest")
    return flow.IngestJob(
        dataset=out or run.places.dataset,
        data_root=root,
        rows=chosen,
        settings=settings,
        workers=workers or os.cpu_count() or 1,
        address=address,
    )


def _unless_done(run: Run, job: flow.IngestJob) -> dict[str, Any]:
    """The result from the records where nothing is pending (no Prefect, no Ray), else from the flow."""
    from preprocessing.run import pending

    if flow.covers(job.dataset, job.rows):
        with run.progress("plan") as progress:
            flow.make_plan(job, progress)
        if not pending(job.dataset, job.settings):
            run.note("nothing to do: every planned row is accounted for")
            return flow.summary(job.dataset)
    require_space(job.dataset, flow.estimate(job)["estimated_bytes"])
    with run.progress("plan") as plan, run.progress("ingest") as shards:
        return flow.ingest(job, plan, shards)


def _judge(result: dict[str, Any], budget: float) -> None:
    """End with 1 where rows failed, with 3 where more were refused than the budget allows."""
    rows = result["rows"]
    failed, rejected = sum(rows["failed"].values()), sum(rows["rejected"].values())
    if failed:
        raise Ended(Exit.FAILED, f"{failed} of {rows['read']} rows failed: the ledger's column detail says how")
    if rejected > budget * rows["read"]:
        raise Ended(Exit.MISSED, f"{rejected} of {rows['read']} rows were rejected; --max-rejected allows {budget:.3g}")


def share(text: str) -> float:
    """A share from ``5%`` or ``0.05``. Raises ``Misuse`` outside 0 to 1.

    >>> share("5%")
    0.05
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Misuse(f"--max-rejected {text}: expected a share such as 5% or 0.05")
    return value
