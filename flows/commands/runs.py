"""``voxface runs``: what was run here, and what it made."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import WORK, AsJson, Work
from flows.console import show
from flows.places import Places


def runs(
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="How many, the newest last.")] = 20,
    made: Annotated[bool, typer.Option("--made", help="Instead: the videos, reports and pages that stand.")] = False,
    work: Work = WORK,
    json: AsJson = False,
) -> None:
    """List past runs: when, what, how long, how they ended, and their logs.

    Example: voxface runs -n 5
    """
    places = Places(work)
    if made:
        show(standing(places), json)
        return
    show({"runs": past(places)[-last:]}, json)


def past(places: Places) -> list[dict[str, Any]]:
    """The records of all runs, oldest first; an unreadable one is listed as such."""
    found = []
    for path in sorted(places.runs.glob("*.json")):
        try:
            record = json_format.loads(path.read_bytes())
            line = {name: record[name] for name in ("started", "command", "seconds", "exit_code", "log")}
        except (OSError, ValueError, KeyError, TypeError):
            line = {"started": None, "command": "unreadable", "seconds": None, "exit_code": None, "log": str(path)}
        found.append(line)
    return found


def standing(places: Places) -> dict[str, Any]:
    """Paths of what a person wants to open: videos, the dataset's page, the trainings' pages."""
    return {
        "video": _paths(places.generated, "*.mp4"),
        "dataset report": _paths(places.dataset, "report.html"),
        "training report": _paths(places.work / "training", "*/report.html"),
        "runs and logs": str(places.runs),
    }


def _paths(folder: Path, pattern: str) -> list[str]:
    return [str(path) for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
