"""``python -m training.prove``: train and measure a system with the loop alone, on any machine with torch.

No Ray, MLflow, Prefect, mediapipe or av: it reads committed datasets and imports contracts, systems and
the loop. One line per stage and split, and JSON: ``stage measure split ours comparison ratio [lo, hi] verdict``.
``make prove`` (tests/bars) runs the same with comparisons of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from contracts.bundle import Lineage, read_artifact
from contracts.errors import Exit, VoxfaceError
from contracts.files import commit_bytes
from contracts.index import read_index, samples
from contracts.selection import Chosen, Selection
from contracts.settings import canonical_digest, canonical_json
from contracts.shards import committed, dataset_digest
from contracts.split import balanced
from systems import catalogue
from systems.base import Stage, System, TrainedStage, View
from training.agenda import artifact_folder, standing
from training.data import Reader, Subset, verify
from training.evaluate import Line, judge, table
from training.loop import Trained
from training.record import read_record
from training.stages import Half, Place, restore, run_stage
from training.validation import score

SHARE = 0.25  # of the speakers of each gender, whom a dataset that is both halves keeps for the test
PACES_FILE = "paces.json"


@dataclass(frozen=True)
class Proof:
    """What is proved, on which people, and where it is made."""

    house: System
    preset: str
    learn: Half
    test: Half
    out: Path
    place: Place
    code: str = "prove"  # version of the sources: what was made by others is made again
    seconds: float = 0.0  # that a stage may take of which the system does not say how long it learns; 0: as its preset
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stage -> settings, over all else
    paces: Path | None = None  # folder that keeps how fast stages learn; None: ``out``

    @property
    def halves(self) -> Mapping[Subset, Half]:
        """What each split is read from."""
        return {"known": self.learn, "new": self.test}

    def reader(self, stage: Stage, subset: Subset, view: View | None = None) -> Reader:
        """Items of a subset as the stage sees them, or as ``view`` does."""
        half = self.test if subset == "new" else self.learn
        options = {"seed": stage.settings.seed, "batch": stage.settings.batch}
        return Reader(half.dataset, half.selection, view or stage.view, subset=subset, **options)

    def lineage(self, stage: Stage) -> Lineage:
        """What the stage comes from."""
        pairs = (self.learn.selection, self.test.selection)
        return Lineage(
            dataset=canonical_digest([selection.dataset for selection in pairs]),
            selection=canonical_digest([selection.digest for selection in pairs]),
            parents={need: read_artifact(artifact_folder(self.out, need)).digest for need in stage.needs},
            code=self.code,
            settings={"preset": self.preset, **stage.settings.model_dump(mode="json")},
            unnamed=stage.stand_ins,
        )


Examine = Callable[[Proof, TrainedStage, nn.ModuleDict], list[Line]]


def choose(dataset: Path, split: Literal["train", "val"] | None) -> Selection:
    """Every sample of a dataset; ``split`` puts all into one.

    ``None`` follows the ledger's own split; where it has none, a quarter of the speakers of each gender who have
    clips is left for the test. A sample without a speaker counts as a speaker of its own.
    """
    index = samples(read_index(dataset))
    shards = {key: shard.record.shard for shard in committed(dataset) for key in shard.record.keys}
    lines = index.select(["key", "kind", "frames", "speaker", "gender", "split"]).to_pylist()
    people = {line["speaker"] or line["key"]: line["gender"] or "unknown" for line in lines if line["kind"] == "clip"}
    rule = None if any(line["split"] for line in lines) else balanced(people, SHARE, 0)

    def side(line: Mapping[str, Any]) -> Literal["train", "val"]:
        if split is not None:
            return split
        if rule is not None:
            return rule.speakers.get(line["speaker"] or line["key"], "train")
        return "train" if line["split"] in (None, "", "train") else "val"

    chosen = [
        Chosen(
            key=line["key"],
            shard=shards[line["key"]],
            kind=line["kind"],
            frames=line["frames"],
            speaker=line["speaker"] or line["key"],
            gender=line["gender"] or "unknown",
            split=side(line),
        )
        for line in lines
    ]
    return Selection(dataset=dataset_digest(dataset), samples=tuple(chosen))


def examine(proof: Proof, stage: TrainedStage, model: nn.ModuleDict) -> list[Line]:
    """The stage's bar and all else that it measures, on both splits."""
    lines: list[Line] = []
    for subset in proof.halves:
        reader = proof.reader(stage, subset)
        if len(reader):
            scores = score(stage, model, reader, proof.place.device)
            lines += judge(stage.name, stage.bar, subset, scores, reader.speaker_of)
    return lines


def prove(proof: Proof, examine: Examine = examine, say: Callable[[str], None] | None = None) -> list[Line]:
    """Train every stage, going on where an earlier call stopped, and measure it.

    Once ``place.stop`` says so training stops at a checkpoint, and the next call goes on.
    """
    say = say or _say
    lines: list[Line] = []
    for kind in proof.house.stages:
        finished, found = _one(proof, kind, examine)
        lines += found
        for text in table(found):
            say(text)
        if not finished:
            say(f"{kind.name}: out of time; the same command with --resume {proof.out} goes on")
            break
    return lines


def _one(proof: Proof, kind: type[Stage], examine: Examine) -> tuple[bool, list[Line]]:
    """Whether the stage finished its steps, and its lines."""
    stage = settled(proof, kind)
    trained = ensure(proof, stage)
    finished = trained is None or not isinstance(stage, TrainedStage) or trained.steps >= stage.settings.steps
    if not isinstance(stage, TrainedStage):
        return finished, []
    if finished:
        model = restore(proof.house, kind, proof.out)[1]
    else:
        assert trained is not None
        model = trained.model
    return finished, examine(proof, stage, model.to(proof.place.device))


def settled(proof: Proof, kind: type[Stage]) -> Stage:
    """The stage with the settings that it is proved with."""
    said = proof.house.proof.get(kind.name, {}) if proof.preset == "tiny" else {}
    changes = {**said, **proof.changes.get(kind.name, {})}
    stage = kind.preset(proof.preset, **changes)  # type: ignore[arg-type]
    if not proof.seconds or "steps" in changes or not isinstance(stage, TrainedStage):
        return stage
    return kind.preset(proof.preset, **changes, steps=_affordable(proof, stage))  # type: ignore[arg-type]


def ensure(proof: Proof, stage: Stage) -> Trained | None:
    """Train or compute the stage, or go on with it; ``None`` where its artifact stands, made of the same."""
    found = standing(proof.out, stage.name)
    lineage = proof.lineage(stage)
    if found is not None and found.lineage == lineage:
        return None
    return run_stage(proof.house, stage, lineage, proof.learn, proof.test, proof.out, proof.place)


def _affordable(proof: Proof, stage: TrainedStage) -> int:
    """Steps that ``seconds`` hold here, and no fewer than the preset's, by the pace of these; found out once."""
    file = (proof.paces or proof.out) / PACES_FILE
    paces = json.loads(file.read_bytes()) if file.is_file() else {}
    if stage.name not in paces:
        run_stage(proof.house, stage, proof.lineage(stage), proof.learn, proof.test, proof.out, proof.place)
        lines = [line["values"] for line in read_record(proof.out / stage.name) if line["kind"] == "train"]
        paces[stage.name] = sum(v["seconds/step"] + v["seconds/wait"] for v in lines) / max(len(lines), 1)
        commit_bytes(file, canonical_json(paces).encode())
    return max(stage.settings.steps, int(proof.seconds / max(paces[stage.name], 1e-3)))


def _say(text: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.prove", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("system")
    parser.add_argument("--train", type=Path, required=True, help="committed dataset to learn from")
    parser.add_argument("--test", type=Path, required=True, help="committed dataset of other people; or the same")
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
        lines = prove(Proof(catalogue.get(given.system), given.preset, learn, test, given.out, place))
        commit_bytes(given.out / "prove.json", canonical_json(lines).encode())
        _say(json.dumps(lines))
    except VoxfaceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return Exit.MISSED if any(line["verdict"] == "MISS" for line in lines) else Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
