"""``voxface demo-corpus``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.files import require_space
from flows.commands.options import ParamsFile, command
from flows.params import read_params
from flows.running import Run

SPEAKER_BYTES = 3_000_000  # of one speaker's clips
SPEAKER_SECONDS = 8.0  # on one core


@command("demo-corpus", dry=True)
def demo_corpus(
    run: Run,
    out: Annotated[Path, typer.Argument(help="Folder to make; what stands in it is kept where it is right.")],
    speakers: Annotated[int | None, typer.Option(min=2, help="How many people [default: params, 12].")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, other people [default: params, 0].")] = None,
    params: ParamsFile = None,
) -> None:
    """Make a corpus of talking faces from a public-domain portrait and a speech synthesiser.

    Example: voxface demo-corpus work/demo
    """
    settings = read_params(params).demo
    speakers = settings.speakers if speakers is None else speakers
    seed = settings.seed if seed is None else seed
    if run.dry:
        run.finish(
            {
                "speakers": speakers,
                "seed": seed,
                "estimated_seconds": round(speakers * SPEAKER_SECONDS),
                "estimated_bytes": speakers * SPEAKER_BYTES,
            }
        )
        return
    require_space(out, 2 * speakers * SPEAKER_BYTES)
    from preprocessing.demo import make_demo_corpus

    with run.progress("demo corpus") as progress:
        manifest = make_demo_corpus(out, seed=seed, speakers=speakers, progress=progress)
    run.finish({"manifest": str(manifest), "speakers": speakers, "seed": seed})
