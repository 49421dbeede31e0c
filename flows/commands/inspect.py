"""``voxface inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import Exit, Misuse, Reject
from flows.commands.options import command
from flows.running import Ended, Run


@command("inspect")
def inspect(
    run: Run,
    video: Annotated[Path, typer.Argument(help="A video.")],
    trust: Annotated[Path | None, typer.Option(help="Authorities whose certificates to trust (PEM).")] = None,
) -> None:
    """Say what made a video and who signed that; whether credentials, sidecar and invisible mark are there and hold.

    Ends with 0 where they do, with 3 where one is missing, with 4 where one is broken.

    Example: voxface inspect talk.mp4
    """
    from serving.provenance import inspect as look
    from serving.watermark import detect_in

    try:
        anchors = None if trust is None else trust.read_bytes()
    except OSError as error:
        raise Misuse(f"--trust {trust} cannot be read: {error.strerror}") from error
    found = look(video, anchors)
    try:
        mark = detect_in(video).model_dump(mode="json")
    except Reject as error:
        mark = {"found": False, "detail": f"not looked for: {error}"}
    run.finish(found.model_dump(mode="json", exclude_none=True) | {"mark": mark})
    if found.state != "fits":
        raise Ended(Exit.MISSED if found.state == "missing" else Exit.CORRUPT, found.detail)
