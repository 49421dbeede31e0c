"""``voxface rollback``: what was served before is served again."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.errors import Misuse
from flows.commands.options import command
from flows.retrain import follow
from flows.running import Run


@command("rollback", dry=True)
def rollback(
    run: Run,
    system: Annotated[str, typer.Argument(help="Which paper's system.")] = "see_the_speaker",
    to: Annotated[int | None, typer.Option(min=1, help="Version in the registry [default: the previous one].")] = None,
) -> None:
    """Make the previous model the champion again, after its bytes were checked; the champion becomes the previous.

    Example: voxface rollback see_the_speaker --dry-run
    """
    from training.registry import CHAMPION, PREVIOUS, point, versions

    uri = run.places.tracking_uri
    known = versions(system, uri)
    champion = next((version for version in known if CHAMPION in version.aliases), None)
    wanted = [v for v in known if (PREVIOUS in v.aliases if to is None else v.number == to)]
    if not wanted:
        numbers = ", ".join(str(version.number) for version in known) or "none"
        what = "no previous model" if to is None else f"no version {to}"
        raise Misuse(f"{system} has {what}: name one by --to; there are {numbers}")
    (target,) = wanted
    target.check()
    told = {
        "system": system,
        "champion": f"version {target.number}, {target.digest[:12]}",
        "bundle": str(target.folder),
        "previous": f"version {champion.number}, {champion.digest[:12]}" if champion else None,
    }
    if target == champion:
        run.note("nothing to do: it is the champion already")
        told["previous"] = None
    elif not run.dry:
        point(system, CHAMPION, target.number, uri)  # the one before becomes the previous
    if not run.dry:
        follow(run.places, system, target.folder, target.digest)
    run.finish(told)
