"""``voxface evaluate``: validation figures beside their trivial baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.files import commit_bytes
from contracts.settings import canonical_json
from flows.commands.options import WORK, AsJson, Quiet, Work
from flows.running import Run, running


def evaluate(
    system: Annotated[str, typer.Argument(help="Which paper's system, as see_the_speaker.")],
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder [default: WORK/dataset].")] = None,
    selection: Annotated[Path | None, typer.Option(help="Selection folder [default: WORK/selection].")] = None,
    work: Work = WORK,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure every trained stage on new speakers and on unseen seconds of known ones.

    Example: voxface evaluate see_the_speaker
    """
    with running("evaluate", work=work, json=json, quiet=quiet) as run:
        lines = bars(run, system, dataset, selection)
        run.finish({"system": system, "bars": lines, "table": str(run.places.evaluation(system))})


def bars(run: Run, system: str, dataset: Path | None, selection: Path | None) -> list[dict[str, Any]]:
    """The table of :func:`training.evaluate.evaluate_system`, also written under the work folder."""
    from training.evaluate import evaluate_system

    with run.progress(f"evaluate {system}") as progress:
        lines = evaluate_system(
            system,
            run.places.training(system),
            dataset=dataset or run.places.dataset,
            selection=selection or run.places.selection,
            progress=progress,
        )
    commit_bytes(run.places.evaluation(system), canonical_json(lines).encode())
    return lines
