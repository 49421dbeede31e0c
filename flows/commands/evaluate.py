"""``voxface evaluate`` and ``voxface prove``: validation figures beside their trivial baselines, and the bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.errors import Exit
from contracts.files import commit_bytes
from contracts.settings import canonical_json
from flows.commands.options import Chosen, Dataset, System, command
from flows.running import Ended, Run


@command("evaluate")
def evaluate(run: Run, system: System, dataset: Dataset = None, selection: Chosen = None) -> None:
    """Measure every trained stage on new speakers and on unseen seconds of known ones.

    Example: voxface evaluate see_the_speaker
    """
    _measure(run, system, dataset, selection)


@command("prove")
def prove(run: Run, system: System, dataset: Dataset = None, selection: Chosen = None) -> None:
    """Evaluate the stages that stand, and end with 3 where one misses its bar. (To train for it: make prove.)

    Example: voxface prove see_the_speaker
    """
    lines = _measure(run, system, dataset, selection)
    if missed := [line["stage"] for line in lines if line["verdict"] == "MISS"]:
        raise Ended(Exit.MISSED, f"missed their bar: {', '.join(missed)}")


def _measure(run: Run, system: str, dataset: Path | None, selection: Path | None) -> list[dict[str, Any]]:
    """The table of :func:`training.evaluate.evaluate_system`, said, and written under the work folder."""
    from training.evaluate import evaluate_system
    from training.metrics.bootstrap import LEAST_SPEAKERS

    with run.progress(f"evaluate {system}") as progress:
        lines = evaluate_system(
            system,
            run.places.training(system),
            dataset=dataset or run.places.dataset,
            selection=selection or run.places.selection,
            progress=progress,
        )
    written = run.places.evaluation(system)
    commit_bytes(written, canonical_json(lines).encode())
    if few := sorted(
        {line["stage"] for line in lines if line["verdict"] == "MISS" and line["speakers"] < LEAST_SPEAKERS}
    ):
        run.note(f"{', '.join(few)}: fewer than {LEAST_SPEAKERS} speakers to be judged on, a MISS whatever the figure")
    run.finish({"system": system, "bars": lines, "table": str(written)})
    return lines
