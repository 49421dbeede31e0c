"""``voxface prove``: each stage of a system against its bar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import Exit
from flows.commands.evaluate import bars
from flows.commands.options import WORK, AsJson, Quiet, Work
from flows.running import Ended, running


def prove(
    system: Annotated[str, typer.Argument(help="Which paper's system, as see_the_speaker.")],
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder [default: WORK/dataset].")] = None,
    selection: Annotated[Path | None, typer.Option(help="Selection folder [default: WORK/selection].")] = None,
    work: Work = WORK,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate the trained stages and end with 3 where one misses its bar.

    Example: voxface prove see_the_speaker
    """
    with running("prove", work=work, json=json, quiet=quiet) as run:
        lines = bars(run, system, dataset, selection)
        run.finish({"system": system, "bars": lines})
        missed = [line["stage"] for line in lines if line.get("verdict") == "MISS"]
        if missed:
            raise Ended(Exit.MISSED, f"missed their bar: {', '.join(missed)}")
