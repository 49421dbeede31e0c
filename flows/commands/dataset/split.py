"""``voxface dataset split``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import Exit, Misuse
from contracts.files import lock
from flows.commands.dataset.arguments import Dataset, require_dataset
from flows.commands.options import ParamsFile, command
from flows.leaks import FACE_DISTANCE
from flows.params import SelectionParams, read_params
from flows.running import Ended, Run


@command("dataset split", dry=True)
def split(
    run: Run,
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="File of the frozen split [default: WORK/split.json].")] = None,
    check: Annotated[bool, typer.Option("--check", help="Search for leaks, faces included; write no split.")] = False,
    distance: Annotated[
        float, typer.Option(min=0.05, max=1.5, help="Faces nearer than this count as one person's.")
    ] = FACE_DISTANCE,
    workers: Annotated[int, typer.Option(min=1, help="Processes that look at faces.")] = 1,
    params: ParamsFile = None,
) -> None:
    """Freeze which speakers train and which validate: new ones are added, old ones never move.

    With --check ends with 3 where a speaker, a source, a picture or a face stands on both sides, and names the pairs.

    Example: voxface dataset split work/dataset --out work/split.json
    """
    require_dataset(dataset)
    path = out or run.places.work / "split.json"
    result, leaks = _split(run, dataset, path, read_params(params).selection, (check, distance, workers))
    run.finish(result)
    if leaks:
        pairs = "; ".join(f"{leak['what']}: {leak['train_speaker']} and {leak['val_speaker']}" for leak in leaks[:8])
        more = f" and {len(leaks) - 8} more" if len(leaks) > 8 else ""
        raise Ended(Exit.MISSED, f"{len(leaks)} leaks between training and validation: {pairs}{more}")


def _split(
    run: Run, dataset: Path, path: Path, settings: SelectionParams, how: tuple[bool, float, int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from contracts.identity import read_identities
    from contracts.index import read_index, samples
    from contracts.split import read_split, write_split
    from flows.choice import freeze, speaker_of
    from flows.leaks import find_leaks
    from preprocessing.likeness import copies

    check, distance, workers = how
    lines = [line | {"speaker": speaker_of(line)} for line in samples(read_index(dataset)).to_pylist()]
    if not lines:
        raise Misuse(f"{dataset} holds no samples: there is nothing to split")
    before = read_split(path)
    frozen = freeze(lines, settings, before)
    if not check and not run.dry and frozen != before:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.parent):
            write_split(path, frozen)
    faces = None
    if check and not run.dry:
        from preprocessing.identity import measure_identity

        with run.progress("faces") as progress:
            faces = read_identities(measure_identity(dataset, workers=workers, progress=progress))
    leaks = find_leaks(lines, frozen.side, faces, distance, copies(lines))
    counts = Counter(frozen.speakers.values())
    new = len(frozen.speakers) - len(before.speakers if before else {})
    result: dict[str, Any] = {
        "split": str(path),
        "digest": frozen.digest(),
        "written": not check and not run.dry and frozen != before,
        "new_speakers": new,
        **{side: {"speakers": counts[side], **_amount(lines, side, frozen.side)} for side in ("train", "val")},
        "faces_compared": len(faces.keys) if faces is not None else 0,
        "leaks": leaks,
    }
    if faces is not None:
        result["face_distance"] = distance
    return result, leaks if check else []


def _amount(lines: list[dict[str, Any]], side: str, of: Any) -> dict[str, float]:
    from contracts.sample import FPS

    members = [line for line in lines if of(line["speaker"]) == side]
    return {
        "samples": len(members),
        "minutes": round(sum(line["frames"] or 0 for line in members) / FPS / 60, 2),
    }
