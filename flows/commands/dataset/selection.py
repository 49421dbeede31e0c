"""``voxface dataset select`` and ``funnel``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import Misuse
from contracts.files import lock
from flows.commands.dataset.arguments import Dataset, SelectionFolder, require_dataset
from flows.commands.options import ParamsFile, command
from flows.params import SelectionParams, read_params
from flows.running import Run


@command("dataset select", dry=True)
def select(
    run: Run,
    dataset: Dataset,
    query: Annotated[str | None, typer.Argument(help="Only these samples; the same as --where.")] = None,
    out: Annotated[Path | None, typer.Option(help="Selection folder [default: WORK/selection].")] = None,
    where: Annotated[str | None, typer.Option(help="Only these samples [default: params].")] = None,
    split: Annotated[Path | None, typer.Option(help="Frozen split to go by [default: params].")] = None,
    params: ParamsFile = None,
) -> None:
    """Choose samples by the scores in the ledger and split the speakers. Nothing is decoded.

    Example: voxface dataset select work/dataset "sync_geometry > 0.2 and face_px >= 256"
    """
    # a second of work on one table: a Prefect flow around it would only add its start-up
    require_dataset(dataset)
    settings = read_params(params).selection
    if query is not None and where is not None:
        raise Misuse("two queries: give either QUERY or --where")
    changed = {"where": query if query is not None else where, "split": split and str(split)}
    given = {name: value for name, value in changed.items() if value is not None}
    settings = SelectionParams.model_validate(settings.model_dump() | given)
    run.finish(select_samples(dataset, out or run.places.selection, settings, dry=run.dry))


def select_samples(dataset: Path, folder: Path, settings: SelectionParams, *, dry: bool = False) -> dict[str, Any]:
    """Choose, write unless ``dry`` or unchanged, and refresh the dataset's page; the counts."""
    from contracts.selection import read_record, write_selection
    from flows.choice import choose

    selection, refused = choose(dataset, settings)
    before = read_record(folder)
    unchanged = before is not None and (before.digest, before.refused, before.rules, before.split) == (
        selection.digest,
        selection.refused,
        selection.rules,
        selection.split,
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
        "frozen_split": selection.split[:12] or None,
        "frames_decoded": 0,
    }


@command("dataset funnel")
def funnel(
    run: Run,
    dataset: Dataset,
    selection: SelectionFolder = None,
    out: Annotated[Path | None, typer.Option(help="Page to write [default: DATASET/funnel.html].")] = None,
) -> None:
    """Count how many rows and hours are left after each gate, and plot what each threshold costs.

    Example: voxface dataset funnel work/dataset
    """
    require_dataset(dataset)
    from contracts.index import read_index, samples
    from contracts.selection import read_record
    from preprocessing.funnel import write_funnel

    folder = selection or run.places.selection
    lines, record = gates(dataset, folder), read_record(folder)
    page = out or dataset / "funnel.html"
    rules = record.rules.values() if record else ()
    write_funnel(page, f"Funnel of {dataset.name}", lines, samples(read_index(dataset)), rules)
    run.finish({"funnel": lines, "page": str(page)})


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
