"""``voxface gc``."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import command
from flows.running import Run

OLD_DAYS = 7.0  # younger things may be somebody's current work, whatever names them


@command("gc")
def gc(
    run: Run,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed. Without it nothing is.")] = False,
    days: Annotated[float, typer.Option("--older-than", min=0, help="Days without a change.")] = OLD_DAYS,
) -> None:
    """List bundles, datasets, checkpoints and records that no alias and no current work leads to; --delete removes.

    Example: voxface gc --older-than 30 --delete
    """
    from flows.leftovers import find, remove

    run.dry = not delete
    if delete:
        with run.progress("gc") as progress:
            found = remove(run.places, days, progress)
    else:
        found = find(run.places, days)
    total = sum(leftover.bytes for leftover in found)
    if found and not delete:
        run.note("nothing was removed: --delete does it")
    run.finish({"removed": delete, "bytes": total, "found": [leftover.told() for leftover in found]})
