"""``python -m training.prove``: train and measure a system with the loop alone, on any machine with torch.

No Ray, MLflow, Prefect, mediapipe or av: it reads committed datasets and imports contracts, systems and
the loop. One line per stage and split, and JSON: ``stage measure split ours comparison ratio [lo, hi] verdict``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from contracts.bundle import Lineage, read_artifact, seal_artifact
from contracts.errors import Exit, Misuse, VoxfaceError
from contracts.files import commit_bytes, commit_folder
from contracts.index import read_index, samples
from contracts.selection import Chosen, Selection
from contracts.settings import canonical_digest, canonical_json
from contracts.shards import committed, dataset_digest
from systems import catalogue
from systems.base import ComputedStage, Stage, TrainedStage
from training.agenda import artifact_folder
from training.checkpoint import Identity
from training.data import Reader, verify
from training.evaluate import Line, judge, table
from training.loop import Course, compute, train
from training.validation import score


@dataclasses.dataclass(frozen=True)
class Halves:
    """What to learn from and what to be asked about: two datasets, or two splits of one."""

    train: tuple[Path, Selection]
    test: tuple[Path, Selection]

    def digests(self) -> tuple[str, str]:
        """Of the datasets and of the selections."""
        pairs = (self.train[1], self.test[1])
        return canonical_digest([s.dataset for s in pairs]), canonical_digest([s.digest for s in pairs])


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


def prove(
    system: str,
    halves: Halves,
    out: Path,
    *,
    preset: str,
    device: torch.device,
    minutes: float | None,
    say: Callable[[str], None],
) -> list[Line]:
    """Train every stage into ``out``, going on where an earlier call stopped, and measure it.

    After ``minutes`` training stops at a checkpoint, and the next call goes on; measures are of what stands.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    lines: list[Line] = []
    for kind in catalogue.get(system).stages:
        stage = kind.preset(preset)  # type: ignore[arg-type]
        finished, found = _one(system, preset, stage, halves, out, device, deadline)
        lines += found
        for text in table(found):
            say(text)
        if not finished:
            say(f"{stage.name}: out of time; the same command with --resume {out} goes on")
            break
    return lines


def _one(
    system: str,
    preset: str,
    stage: Stage,
    halves: Halves,
    out: Path,
    device: torch.device,
    deadline: float | None,
) -> tuple[bool, list[Line]]:
    house, settings = catalogue.get(system), stage.settings
    parents = {need: house.stage(need).load(artifact_folder(out, need)).to(device) for need in stage.needs}

    def reader(half: tuple[Path, Selection], subset: str) -> Reader:
        return Reader(*half, stage.view, subset=subset, seed=settings.seed, batch=settings.batch)  # type: ignore[arg-type]

    source = reader(halves.train, "train")
    held_out = {"known": reader(halves.train, "known"), "new": reader(halves.test, "new")}
    dataset, selection = halves.digests()
    lineage = Lineage(
        dataset=dataset,
        selection=selection,
        parents={need: read_artifact(artifact_folder(out, need)).digest for need in stage.needs},
        code="prove",
        settings={"preset": preset, **settings.model_dump(mode="json")},
        unnamed=stage.stand_ins,
    )
    course = Course(
        folder=out / stage.name,
        train=source,
        held_out={split: found for split, found in held_out.items() if len(found)},
        identity=Identity(canonical_digest([dataset, selection]), canonical_digest(lineage.model_dump(mode="json"))),
        device=device,
        stop=lambda: deadline is not None and time.monotonic() > deadline,
    )
    lines: list[Line] = []
    if isinstance(stage, ComputedStage):
        trained = compute(stage, parents, course, [span.sample.gender for span in source.spans])
        finished = True
    else:
        assert isinstance(stage, TrainedStage)
        trained = train(stage, parents, course)
        finished = trained.steps == settings.steps
        for split, found in course.held_out.items():
            assert isinstance(found, Reader)
            scores = score(stage, trained.model, found, device)
            lines += judge(stage.name, stage.bar, split, scores, found.speaker_of)
    if finished:
        with commit_folder(artifact_folder(out, stage.name)) as temporary:
            stage.export(trained.model.cpu(), temporary)
            seal_artifact(temporary, system, stage.name, lineage, trained.measures)
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
        learned = choose(given.train, None if same else "train")
        halves = Halves((given.train, learned), (given.test, learned if same else choose(given.test, "val")))
        for dataset, selection in {str(half[0]): half for half in (halves.train, halves.test)}.values():
            verify(dataset, selection)
        if not learned.samples:
            raise Misuse(f"{given.train} holds no samples")
        lines = prove(
            given.system,
            halves,
            given.out,
            preset=given.preset,
            device=torch.device(given.device),
            minutes=given.minutes,
            say=say,
        )
        commit_bytes(given.out / "prove.json", canonical_json(lines).encode())
        say(json.dumps(lines))
    except VoxfaceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return Exit.MISSED if any(line["verdict"] == "MISS" for line in lines) else Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
