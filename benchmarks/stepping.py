"""Our training step beside a bare PyTorch loop: same model, same batch, one step of each in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from benchmarks.loading import Clips
from systems import catalogue
from systems.base import Batch, TrainedStage
from training import checkpoint
from training.checkpoint import Identity, State
from training.loop import Course, train
from training.pictures import as_numbers

MOST_OVERHEAD = 0.05
WARM = 4  # steps not counted
SYSTEM = "see_the_speaker"


@dataclass(frozen=True)
class Stepping:
    """Processor seconds of a step, medians, and of one checkpoint."""

    stage: str
    preset: str
    batch: int
    ours: float
    bare: float
    overhead: float  # sum of ours over sum of bare, less 1
    checkpoint: float


@dataclass
class OneBatch:
    """A source that gives the same batch at every step: reading is measured apart."""

    held: Batch
    speaker_of: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.held["key"])

    def batch(self, step: int) -> Batch:
        return dict(self.held)

    def keys(self, step: int) -> list[str]:
        return list(self.held["key"])

    def exclude(self, steps: Mapping[str, int]) -> None:
        return None

    def passes(self, positions: Sequence[int] | None = None) -> Iterator[Batch]:
        yield dict(self.held)


class BareLoop:
    """What a script would do, and no more: loss, gradients, the optimiser's step, for each phase."""

    def __init__(self, stage: TrainedStage, model: nn.ModuleDict, batch: Batch) -> None:
        self.stage, self.model, self.batch = stage, model, batch
        self.optimizers = stage.optimizers(model)
        self.rng = torch.Generator().manual_seed(0)

    def step(self) -> None:
        for phase in self.stage.phases:
            optimizer = self.optimizers[phase]
            optimizer.zero_grad(set_to_none=True)
            losses = self.stage.loss(self.model, dict(self.batch), phase, self.rng)
            losses.total.backward()
            optimizer.step()


def measure_stages(clips: Clips, preset: str, steps: int) -> Iterator[Stepping]:
    """Every trained stage of the system, its parents with random weights."""
    system = catalogue.get(SYSTEM)
    built: dict[str, nn.ModuleDict] = {}
    for kind in system.stages:
        stage = kind.preset(preset, steps=steps + WARM, checkpoint_every=10**9, validate_every=0)
        if not set(stage.needs) <= built.keys():
            continue
        parents = {need: built[need] for need in stage.needs}
        if isinstance(stage, TrainedStage):
            yield measure(stage, preset, parents, clips)
            torch.manual_seed(0)
            model = stage.build_model(parents)
            built[kind.name] = (
                nn.ModuleDict({name: model[name] for name in stage.networks}).eval().requires_grad_(False)
            )


def measure(stage: TrainedStage, preset: str, parents: Mapping[str, nn.ModuleDict], clips: Clips) -> Stepping:
    """Both loops in one process: after each step of ours a bare one, on a model of its own."""
    given = clips.reader(stage.view, stage.settings.batch).load(0)  # as the loader gives it
    batch = as_numbers(given)
    torch.manual_seed(stage.settings.seed)
    model = stage.build_model(parents)
    source = OneBatch(given, dict.fromkeys(batch["key"], "someone"))
    stage.prepare(model, iter([batch]))
    bare = BareLoop(stage, model.train(), batch)
    for module in model.values():
        module.train(any(parameter.requires_grad for parameter in module.parameters()))
    ours: list[float] = []
    theirs: list[float] = []
    ended = time.process_time()

    def after_a_step() -> bool:
        nonlocal ended
        began = time.process_time()
        ours.append(began - ended)
        bare.step()
        ended = time.process_time()
        theirs.append(ended - began)
        return False

    with TemporaryDirectory(prefix="bench-") as folder:
        course = Course(Path(folder), source, {}, Identity("d" * 64, "r" * 64), stop=after_a_step)
        train(stage, parents, course)
        began = time.process_time()
        checkpoint.save(Path(folder) / "c", course.identity, State(step=1), model.state_dict(), bare.optimizers)
        saved = time.process_time() - began
    mine, other = ours[WARM:], theirs[WARM:]
    overhead = float(np.sum(mine) / np.sum(other)) - 1
    medians = float(np.median(mine)), float(np.median(other))
    return Stepping(stage.name, preset, stage.settings.batch, *medians, overhead, saved)
