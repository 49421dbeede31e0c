"""``voxface dataset prior``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.dataset.arguments import Dataset, SelectionFolder, require_dataset
from flows.commands.options import command
from flows.running import Run

SYSTEM = "see_the_speaker"
PIXELS = 64  # side of the aligned faces where there is no encoder
BATCH = 32


@command("dataset prior")
def prior(
    run: Run,
    dataset: Dataset,
    selection: SelectionFolder = None,
    training: Annotated[
        Path | None, typer.Option(help="Trained stages, for E_f [default: WORK/training/see_the_speaker].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Picture to write [default: WORK/prior.png].")] = None,
    seed: Annotated[int, typer.Option(help="Of the first draw.")] = 0,
) -> None:
    """Plot how the face prior settles with the number of faces, and drifts with the share of women among them.

    Averages E_f where conre is trained, else the pixels of the aligned faces; the title says which, and of how many.

    Example: voxface dataset prior work/dataset
    """
    require_dataset(dataset)
    stages = training or run.places.training(SYSTEM)
    picture = out or run.places.work / "prior.png"
    run.finish(_study(run, dataset, selection or run.places.selection, stages, picture, seed))


def _study(run: Run, dataset: Path, selection: Path, stages: Path, out: Path, seed: int) -> dict[str, Any]:
    from contracts.bundle import read_artifact
    from contracts.selection import read_selection
    from systems import catalogue
    from systems.see_the_speaker.prior_study import codes, plot, study
    from training.agenda import artifact_folder
    from training.data import Reader, verify

    chosen = read_selection(selection)
    verify(dataset, chosen)
    folder = artifact_folder(stages, "conre")
    encoder, digest = None, None
    if folder.is_dir():
        digest = read_artifact(folder).digest
        encoder = catalogue.get(SYSTEM).stage("conre").load(folder)["face_encoder"]
    size = encoder.config.size if encoder is not None else PIXELS
    stage = catalogue.get(SYSTEM).stage("face_prior").preset("tiny", size=size)
    reader = Reader(dataset, chosen, stage.view, subset="train", seed=seed, batch=BATCH)
    with run.progress("faces") as progress:
        progress(0, len(reader), "faces")
        z = codes(reader.passes(), encoder)
        progress(len(reader), len(reader), "faces")
    of = f"E_f {digest[:12]}" if digest else f"pixels ({PIXELS} px)"
    found = study(z, [span.sample.gender for span in reader.spans], list(reader.speaker_of), of, seed)
    plot(found, out)
    return {
        "picture": str(out),
        "averaged": of,
        "faces": found.faces,
        "wanted": 10_000,
        "women": found.women,
        "men": found.men,
        "convergence": [
            {"faces": size, "l1": float(values.mean())}
            for size, values in zip(found.sizes[1:], found.steps.T, strict=True)
        ],
        "drift": [{"women": share / 10, "l1": float(values.mean())} for share, values in enumerate(found.drift.T)],
    }
