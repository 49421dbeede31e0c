"""``voxface retrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import Misuse
from flows import retrain as flow
from flows.commands.options import ParamsFile, command
from flows.params import read_params
from flows.running import Run

SYSTEM = "see_the_speaker"


@command("retrain", dry=True)
def retrain(
    run: Run,
    system: Annotated[str, typer.Argument(help="Which paper's system.")] = SYSTEM,
    root: Annotated[Path, typer.Option(help="Folder of dvc.yaml.")] = Path(),
    params: ParamsFile = None,
) -> None:
    """Make again what changed, compare with the champion, and promote what is clearly better.

    Nothing new: nothing is done. A worse model is not promoted; a failed step leaves the champion.

    Example: voxface retrain see_the_speaker
    """
    beside = root / "params.yaml"  # the ones that DVC looks at
    values = read_params(params or (beside if beside.is_file() else None))
    if not (root / "dvc.yaml").is_file():
        raise Misuse(f"{root.resolve()} holds no dvc.yaml: run it there, or name the folder by --root")
    job = flow.RetrainJob(system, root, run.places, values.promotion)
    todo = flow.todo(job)
    if run.dry:
        run.finish({"system": system} | todo)
        return
    if not (todo["changed"] or todo["judge"] or todo["push"]):
        decided = flow.last_decision(job) or {}
        run.note("nothing to do: no new rows, no changed settings, and what stands was judged")
        run.finish({"system": system, "reproduced": [], "promoted": False, "why": "nothing new"} | _page(decided))
        return
    with run.progress(f"retrain {system}") as progress:
        told = flow.retrain(job, progress)
    names = ("system", "reproduced", "promoted", "why", "champion", "challenger", "notes", "lines", "page")
    run.finish({name: told[name] for name in names} | {"files_pushed": told.get("files_pushed")})


def _page(decided: dict[str, object]) -> dict[str, object]:
    return {"page": decided["page"]} if "page" in decided else {}
