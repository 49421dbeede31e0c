"""``voxface dataset verify`` and ``report``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import Misuse
from flows.commands.dataset.arguments import Dataset, SelectionFolder, require_dataset
from flows.commands.options import command
from flows.running import Run


@command("dataset verify")
def verify(
    run: Run,
    dataset: Dataset,
) -> None:
    """Check every byte of every shard against its record; silent where all is well, 4 where not.

    Example: voxface dataset verify work/dataset
    """
    from contracts.shards import dataset_digest
    from preprocessing.run import verify as check

    found = asdict(check(dataset)) | {"digest": dataset_digest(dataset)}
    run.result = found
    if run.json:
        run.finish(found)


@command("dataset report")
def report(
    run: Run,
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="Page to write [default: DATASET/report.html].")] = None,
    selection: SelectionFolder = None,
) -> None:
    """Write the dataset's page: counts by reason, histograms, what thresholds cost, contact sheets, people.

    Example: voxface dataset report work/dataset
    """
    require_dataset(dataset)
    from contracts.selection import read_record
    from contracts.shards import dataset_digest
    from preprocessing.report import write_dataset_report

    folder = selection or run.places.selection
    if selection and read_record(folder) is None:
        raise Misuse(f"{folder} holds no selection: make one by voxface dataset select")
    page = out or dataset / "report.html"
    write_dataset_report(dataset, page, folder if read_record(folder) else None)
    run.finish({"report": str(page), "digest": dataset_digest(dataset)})
