"""Options that every command shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.places import VARIABLE

Work = Annotated[Path, typer.Option("--work", envvar=VARIABLE, help="Folder of everything made.")]
WORK = Path("work")
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done: counts, time, disk. Do nothing.")]
ParamsFile = Annotated[Path | None, typer.Option("--params", help="Parameters [default: params.yaml, if there].")]
Address = Annotated[str, typer.Option("--address", help="Ray: local, auto or HOST:PORT.")]
