"""What the commands on a dataset share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import Misuse

Dataset = Annotated[Path, typer.Argument(help="Dataset folder, as ingest made it.")]
SelectionFolder = Annotated[Path | None, typer.Option("--selection", help="Selection [default: WORK/selection].")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]


def require_dataset(dataset: Path) -> None:
    """Raise ``Misuse`` unless ``dataset`` holds a shard's record."""
    if not dataset.is_dir() or not any(dataset.glob("shard-*.json")):
        raise Misuse(f"{dataset} holds no dataset: make one by voxface ingest")
