"""``voxface retrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import Misuse
from flows import retrain as flow
from flows.commands.options import WORK, AsJson, DryRun, ParamsFile, Quiet, Work
from flows.params import read_params
from flows.running import running

SYSTEM = "see_the_speaker"


def retrain(
    system: Annotated[str, typer.Argument(help="Which paper's system.")] = SYSTEM,
    root: Annotated[Path, typer.Option(help="Folder of dvc.yaml.")] = Path(),
    params: ParamsFile = None,
    work: Work = WORK,
    json: AsJson = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Make again what changed, compare with the champion, and promote what is clearly better.

    Nothing new: nothing is done. A worse model is not promoted; a failed step leaves the champion.

    Example: voxface retrain see_the_speaker
    """
    beside = root / "params.yaml"  # the ones that DVC looks at
    values = read_params(params or (beside if beside.is_file() else None))
    with running("retrain", work=work, json=json, quiet=quiet, dry_run=dry_run) as run:
        if not (root / "dvc.yaml").is_file():
            raise Misuse(f"{root.resolve()} holds no dvc.yaml: run it there, or name the folder by --root")
        job = flow.RetrainJob(system, root, run.places, values.promotion)
        todo = flow.todo(job)
        if dry_run:
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
