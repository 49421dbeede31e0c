"""``voxface dataset``: verify, report, select, funnel."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import Misuse
from contracts.files import lock
from flows.commands.options import WORK, AsJson, ParamsFile, Quiet, Work
from flows.params import SelectionParams, read_params
from flows.running import running

Dataset = Annotated[Path, typer.Argument(help="Dataset folder, as ingest made it.")]
SelectionFolder = Annotated[Path | None, typer.Option("--selection", help="Selection [default: WORK/selection].")]


def verify(dataset: Dataset, work: Work = WORK, json: AsJson = False, quiet: Quiet = False) -> None:
    """Check every byte of every shard against its record; silent where all is well, 4 where not.

    Example: voxface dataset verify work/dataset
    """
    with running("dataset verify", work=work, json=json, quiet=quiet) as run:
        from preprocessing.run import verify as check

        found = asdict(check(dataset))
        run.result = found
        if json:
            run.finish(found)


def report(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="Page to write [default: DATASET/report.html].")] = None,
    selection: SelectionFolder = None,
    work: Work = WORK,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the dataset's page: counts by reason, histograms, contact sheets, people.

    Example: voxface dataset report work/dataset
    """
    with running("dataset report", work=work, json=json, quiet=quiet) as run:
        _exists(dataset)
        from contracts.selection import read_record
        from preprocessing.report import write_dataset_report

        folder = selection or run.places.selection
        if selection and read_record(folder) is None:
            raise Misuse(f"{folder} holds no selection: make one by voxface dataset select")
        page = out or dataset / "report.html"
        write_dataset_report(dataset, page, folder if read_record(folder) else None)
        run.finish({"report": str(page)})


def select(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="Selection folder [default: WORK/selection].")] = None,
    where: Annotated[str | None, typer.Option(help="Only these samples [default: params].")] = None,
    params: ParamsFile = None,
    work: Work = WORK,
    json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    quiet: Quiet = False,
) -> None:
    """Choose samples by the scores in the ledger and split the speakers. Nothing is decoded.

    Example: voxface dataset select work/dataset --where "sync_geometry > 0.2"
    """
    # a second of work on one table: a Prefect flow around it would only add its start-up
    with running("dataset select", work=work, json=json, quiet=quiet, dry_run=dry_run) as run:
        _exists(dataset)
        settings = read_params(params).selection
        if where is not None:
            settings = SelectionParams.model_validate(settings.model_dump() | {"where": where})
        run.finish(select_samples(dataset, out or run.places.selection, settings, dry=dry_run))


def select_samples(dataset: Path, folder: Path, settings: SelectionParams, *, dry: bool = False) -> dict[str, Any]:
    """Choose, write unless ``dry`` or unchanged, and refresh the dataset's page; the counts."""
    from contracts.selection import read_record, write_selection
    from flows.choice import choose

    selection, refused = choose(dataset, settings)
    before = read_record(folder)
    unchanged = before is not None and (before.digest, before.refused, before.rules) == (
        selection.digest,
        selection.refused,
        selection.rules,
    )
    if not dry and not unchanged:
        with lock(folder):
            write_selection(folder, selection, refused)
    if not dry:
        from preprocessing.report import write_dataset_report

        write_dataset_report(dataset, dataset / "report.html", folder)
    splits = {
        split: {
            "samples": sum(sample.split == split for sample in selection.samples),
            "speakers": len({sample.speaker for sample in selection.samples if sample.split == split}),
        }
        for split in ("train", "val")
    }
    return {
        "selection": str(folder),
        "digest": selection.digest[:12],
        "chosen": len(selection.samples),
        "refused": selection.refused,
        **splits,
        "frames_decoded": 0,
    }


def funnel(
    dataset: Dataset, selection: SelectionFolder = None, work: Work = WORK, json: AsJson = False, quiet: Quiet = False
) -> None:
    """Count how many rows and hours are left after each gate, from manifest to selection.

    Example: voxface dataset funnel work/dataset
    """
    with running("dataset funnel", work=work, json=json, quiet=quiet) as run:
        _exists(dataset)
        run.finish({"funnel": gates(dataset, selection or run.places.selection)})


def gates(dataset: Path, selection: Path) -> list[dict[str, Any]]:
    """A line per gate: what it took, what was left, minutes left where these are known."""
    from contracts.index import account, read_index, samples
    from contracts.reasons import Reason
    from contracts.sample import FPS
    from contracts.selection import read_record, read_selection

    index = read_index(dataset)
    rows, kept = account(index, "row"), samples(index)
    left = rows.read
    lines: list[dict[str, Any]] = [{"gate": "manifest", "took": 0, "left": left, "minutes": None}]
    for reason in Reason:
        if reason in rows.rejected:
            left -= rows.rejected[reason]
            lines.append({"gate": str(reason), "took": rows.rejected[reason], "left": left, "minutes": None})
    for code, count in rows.failed.items():
        left -= count
        lines.append({"gate": code, "took": count, "left": left, "minutes": None})
    minutes = sum(frames or 0 for frames in kept["frames"].to_pylist()) / FPS / 60
    lines.append({"gate": "samples", "took": 0, "left": kept.num_rows, "minutes": minutes})
    if read_record(selection) is not None:
        chosen = read_selection(selection)
        left = kept.num_rows
        for name, count in chosen.refused.items():
            left -= count
            lines.append({"gate": name, "took": count, "left": left, "minutes": None})
        minutes = sum(sample.frames for sample in chosen.samples) / FPS / 60
        lines.append({"gate": "selected", "took": 0, "left": len(chosen.samples), "minutes": minutes})
    return lines


def _exists(dataset: Path) -> None:
    if not dataset.is_dir() or not any(dataset.glob("shard-*.json")):
        raise Misuse(f"{dataset} holds no dataset: make one by voxface ingest")
