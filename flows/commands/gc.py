"""``voxface gc``."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import WORK, AsJson, Quiet, Work
from flows.running import running

OLD_DAYS = 7.0  # younger things may be somebody's current work, whatever names them


def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed. Without it nothing is.")] = False,
    days: Annotated[float, typer.Option("--older-than", min=0, help="Days without a change.")] = OLD_DAYS,
    work: Work = WORK,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List bundles, datasets, checkpoints and records that no alias and no current work leads to; --delete removes.

    Example: voxface gc --older-than 30 --delete
    """
    with running("gc", work=work, json=json, quiet=quiet, dry_run=not delete) as run:
        from flows.leftovers import find, remove

        if delete:
            with run.progress("gc") as progress:
                found = remove(run.places, days, progress)
        else:
            found = find(run.places, days)
        total = sum(leftover.bytes for leftover in found)
        if found and not delete:
            run.note("nothing was removed: --delete does it")
        run.finish({"removed": delete, "bytes": total, "found": [leftover.told() for leftover in found]})
