"""``voxface dataset verify`` and ``report``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import Misuse
from flows.commands.dataset.arguments import Dataset, SelectionFolder, require_dataset
from flows.commands.options import WORK, AsJson, Quiet, Work
from flows.running import running


def verify(dataset: Dataset, work: Work = WORK, json: AsJson = False, quiet: Quiet = False) -> None:
    """Check every byte of every shard against its record; silent where all is well, 4 where not.

    Example: voxface dataset verify work/dataset
    """
    with running("dataset verify", work=work, json=json, quiet=quiet) as run:
        from contracts.shards import dataset_digest
        from preprocessing.run import verify as check

        found = asdict(check(dataset)) | {"digest": dataset_digest(dataset)}
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
    """Write the dataset's page: counts by reason, histograms, what thresholds cost, contact sheets, people.

    Example: voxface dataset report work/dataset
    """
    with running("dataset report", work=work, json=json, quiet=quiet) as run:
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
