"""What the rows train: stages of the toy system and of a real one, on drawn faces, in processes that can be killed."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from forks import finish, forking, telling
from toys.drawn import Small, draw_dataset

from contracts.errors import VoxfaceError
from training.agenda import TrainRequest, artifact_folder
from training.record import read_record

TOYS = Path(__file__).parents[1] / "toys" / "tones.py"
PRELOADED = ("toys.rank", "training.feed", "faults_train.material", "systems.see_the_speaker")
LONGEST_S = 240.0  # of one training


@dataclass(frozen=True)
class Kind:
    """A stage to train, and how: ``settings`` of its own, ``parents`` those of the stages that it needs."""

    system: str
    stage: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # all stages before it, in order


TOY_STEPS = 60
TOY = {"steps": TOY_STEPS, "batch": 8, "checkpoint_every": 5, "validate_every": 0}
EVERYTHING = {"accumulate": 2, "clip": 1.0, "ema": 0.9, "warmup": 10, "schedule": "cosine", "precision": "fp16"}
CODER = Kind("tones", "coder", TOY)
FULL = Kind("tones", "coder", TOY | EVERYTHING)  # its checkpoints have all five files


@dataclass
class Workshop:
    """A drawn dataset and trainings on it; processes are forked from one that has imported all that they need."""

    folder: Path
    context: Any
    small: Small

    def request(self, kind: Kind, out: Path) -> TrainRequest:
        few = {"steps": 2, "batch": 4, "checkpoint_every": 5}  # of parents
        changes = dict.fromkeys(kind.needs, few) | {kind.stage: dict(kind.settings)}
        data = self.small.dataset, self.small.selection_folder
        return TrainRequest(kind.system, "tiny", *data, out, changes=changes, code="c0ffee+123456", threads=1)

    def start(self, kind: Kind, out: Path, stages: tuple[str, ...] | None = None, before: Any = None) -> Any:
        """A process that trains; ``before`` is called in it first."""
        out.mkdir(parents=True, exist_ok=True)
        request = self.request(kind, out)
        given = (request, list(stages or (kind.stage,)), before)
        process = self.context.Process(target=telling, args=(out, "", train_stages, given))
        process.start()
        return process

    def run(self, kind: Kind, out: Path, stages: tuple[str, ...] | None = None, before: Any = None) -> Path:
        """Train to the end."""
        finish([self.start(kind, out, stages, before)], out, LONGEST_S)
        return out

    def begun(self, kind: Kind, out: Path) -> Path:
        """A folder in which the stages that ``kind`` needs stand, trained once."""
        base = self.folder / f"parents-{kind.system}-{kind.stage}"
        if not base.is_dir():
            base.mkdir()
            if kind.needs:
                self.run(kind, base, kind.needs)
        shutil.copytree(base, out)
        return out


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    """Draw the dataset, install the toy system, start the process that others are forked from."""
    toys = folder / "systems" / "tones"
    toys.mkdir(parents=True)
    shutil.copy(TOYS, toys / "__init__.py")
    small = draw_dataset(folder / "dataset", folder / "selection")
    older = os.environ.get("VOXFACE_SYSTEMS_PATH", "")
    path = os.pathsep.join(filter(None, [str(toys.parent), older]))
    with mock.patch.dict(os.environ, {"VOXFACE_SYSTEMS_PATH": path}), forking(*PRELOADED) as context:
        yield Workshop(folder, context, small)


def train_stages(request: TrainRequest, stages: list[str], before: Any = None) -> None:
    """In a process of its own: what a worker of Ray does, alone."""
    import torch

    from training import distributed
    from training.loop import CPU

    torch.set_num_threads(1)
    if before is not None:
        before()
    for stage in stages:
        distributed.train_stage(request, stage, 0, 1, CPU)


def tensors(out: Path, stage: str) -> dict[str, np.ndarray]:
    """Every weight that the stage left, by file and name."""
    from safetensors.numpy import load_file

    folder = artifact_folder(out, stage)
    return {
        f"{file.relative_to(folder)}:{name}": value
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def apart(one: Path, other: Path, stage: str) -> float:
    """Largest difference of any weight; infinite where there are other weights, or one is not finite."""
    mine, theirs = tensors(one, stage), tensors(other, stage)
    if not mine or mine.keys() != theirs.keys():
        return float("inf")
    found = [float(np.abs(mine[name].astype(np.float64) - theirs[name]).max(initial=0.0)) for name in mine]
    return max(found) if np.isfinite(found).all() else float("inf")


def losses(out: Path, stage: str) -> list[tuple[int, dict[str, float]]]:
    """Losses and gradient norms by step, as recorded."""
    told = ("/total", "grad_norm/")
    return [
        (line["step"], {name: value for name, value in line["values"].items() if any(part in name for part in told)})
        for line in read_record(out / stage)
        if line["kind"] == "train"
    ]


def reached(out: Path, stage: str, kind: str = "train") -> int:
    """The last step that was recorded."""
    return max((line["step"] for line in read_record(out / stage) if line["kind"] == kind), default=0)


def starts(out: Path, stage: str) -> list[int]:
    """The steps at which training began or was resumed."""
    return [line["step"] for line in read_record(out / stage) if line["kind"] == "start"]


@contextmanager
def heard() -> Iterator[list[str]]:
    """Warnings that are logged meanwhile (a campaign has switched logging off)."""

    class Ear(logging.Handler):
        def emit(self, line: logging.LogRecord) -> None:
            said.append(line.getMessage())

    said: list[str] = []
    ear, before = Ear(logging.WARNING), logging.root.manager.disable
    logging.disable(logging.NOTSET)
    logging.getLogger().addHandler(ear)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(ear)
        logging.disable(before)


def refusal(call: Any) -> VoxfaceError | None:
    """The error of ours that ``call`` raises, if it does."""
    try:
        call()
    except VoxfaceError as error:
        return error
    return None
