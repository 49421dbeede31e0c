"""``python -m training.prove``: train and measure a system with the loop alone, on any machine with torch.

No Ray, MLflow, Prefect, mediapipe or av: it reads committed datasets and imports contracts, systems and
the loop. One line per stage and split, and JSON: ``stage measure split ours comparison ratio [lo, hi] verdict``.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from contracts.bundle import Lineage, read_artifact
from contracts.errors import Exit, VoxfaceError
from contracts.files import commit_bytes
from contracts.index import read_index, samples
from contracts.selection import Chosen, Selection
from contracts.settings import canonical_digest, canonical_json
from contracts.shards import committed, dataset_digest
from systems import catalogue
from systems.base import Stage, System, TrainedStage
from training.agenda import artifact_folder, standing
from training.data import Reader, Subset, verify
from training.evaluate import Line, judge, table
from training.stages import Half, Place, restore, run_stage
from training.validation import score


def choose(dataset: Path, split: Literal["train", "val"] | None) -> Selection:
    """Every sample of a dataset; ``split`` puts all into one, ``None`` follows the ledger's own split.

    A sample without a speaker counts as a speaker of its own.
    """
    index = samples(read_index(dataset))
    shards = {key: shard.record.shard for shard in committed(dataset) for key in shard.record.keys}
    chosen = [
        Chosen(
            key=line["key"],
            shard=shards[line["key"]],
            kind=line["kind"],
            frames=line["frames"],
            speaker=line["speaker"] or line["key"],
            gender=line["gender"] or "unknown",
            split=split or ("train" if line["split"] in (None, "", "train") else "val"),
        )
        for line in index.select(["key", "kind", "frames", "speaker", "gender", "split"]).to_pylist()
    ]
    return Selection(dataset=dataset_digest(dataset), samples=tuple(chosen))


def prove(system: str, preset: str, learn: Half, test: Half, out: Path, place: Place) -> list[Line]:
    """Train every stage into ``out``, going on where an earlier call stopped, and measure it.

    Once ``place.stop`` says so training stops at a checkpoint, and the next call goes on.
    """
    lines: list[Line] = []
    house = catalogue.get(system)
    for kind in house.stages:
        stage = kind.preset(preset)  # type: ignore[arg-type]
        finished, found = _one(house, stage, preset, learn, test, out, place)
        lines += found
        for text in table(found):
            say(text)
        if not finished:
            say(f"{stage.name}: out of time; the same command with --resume {out} goes on")
            break
    return lines


def _one(
    house: System, stage: Stage, preset: str, learn: Half, test: Half, out: Path, place: Place
) -> tuple[bool, list[Line]]:
    """Whether the stage finished its steps, and its lines."""
    pairs = (learn.selection, test.selection)
    lineage = Lineage(
        dataset=canonical_digest([selection.dataset for selection in pairs]),
        selection=canonical_digest([selection.digest for selection in pairs]),
        parents={need: read_artifact(artifact_folder(out, need)).digest for need in stage.needs},
        code="prove",
        settings={"preset": preset, **stage.settings.model_dump(mode="json")},
        unnamed=stage.stand_ins,
    )
    found = standing(out, stage.name)
    finished = found is not None and found.lineage == lineage
    if not finished:
        trained = run_stage(house, stage, lineage, learn, test, out, place)
        finished = trained.steps >= stage.settings.steps
    if not isinstance(stage, TrainedStage):
        return finished, []
    model = (restore(house, type(stage), out)[1] if finished else trained.model).to(place.device)
    lines: list[Line] = []
    halves: Mapping[Subset, Half] = {"known": learn, "new": test}
    options = {"seed": stage.settings.seed, "batch": stage.settings.batch}
    for subset, half in halves.items():
        reader = Reader(half.dataset, half.selection, stage.view, subset=subset, **options)
        if len(reader):
            lines += judge(stage.name, stage.bar, subset, score(stage, model, reader, place.device), reader.speaker_of)
    return finished, lines


def say(text: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.prove", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("system")
    parser.add_argument("--train", type=Path, required=True, help="committed dataset to learn from")
    parser.add_argument("--test", type=Path, required=True, help="committed dataset of other people")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, help="stop training after so long, at a checkpoint")
    parser.add_argument(
        "--resume", "--out", dest="out", type=Path, default=Path("work/prove"), help="folder to go on in"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        same = given.train.resolve() == given.test.resolve()
        learn = test = Half(given.train, choose(given.train, None if same else "train"))
        if not same:
            test = Half(given.test, choose(given.test, "val"))
        for half in (learn, test):
            verify(half.dataset, half.selection)
        deadline = math.inf if given.minutes is None else time.monotonic() + 60 * given.minutes
        place = Place(device=torch.device(given.device), stop=lambda: time.monotonic() > deadline)
        lines = prove(given.system, given.preset, learn, test, given.out, place)
        commit_bytes(given.out / "prove.json", canonical_json(lines).encode())
        say(json.dumps(lines))
    except VoxfaceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return Exit.MISSED if any(line["verdict"] == "MISS" for line in lines) else Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
