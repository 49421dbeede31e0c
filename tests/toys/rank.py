"""One process of several that train a stage by gloo, without Ray.

``python rank.py RANK WORLD PORT DATASET SELECTION OUT SYSTEM STAGE KIND SETTINGS [STOP]``: ``KIND`` is ``plain``
(see toys/plain.py), ``poisoned`` (that, whose loss is not finite where one sample is) or ``whole``, ``SETTINGS``
JSON, ``STOP`` the steps after which training stops at a checkpoint.
The stage's parents, where it has any, stand in ``OUT``'s folder.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from toys.plain import Plain

from contracts.selection import read_selection
from systems import catalogue
from systems.base import Batch, Losses
from training.checkpoint import Identity
from training.data import Reader
from training.loop import Course, train
from training.stages import load_parents


class Poisoned(Plain):
    """Plain, but for a sample that makes the loss of whoever has it not finite."""

    def __init__(self, stage: Any, key: str) -> None:
        super().__init__(stage)
        self.key = key

    def loss(self, model: Any, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        losses = self.stage.loss(model, batch, phase, rng)
        return Losses(losses.total * float("nan")) if self.key in batch["key"] else losses


def main() -> None:
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    dataset, selection, out = Path(sys.argv[4]), read_selection(Path(sys.argv[5])), Path(sys.argv[6])
    name, kind, settings = sys.argv[8], sys.argv[9], json.loads(sys.argv[10])
    limit = int(sys.argv[11]) if len(sys.argv) > 11 else 10**9
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[3]}
    if world > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    system = catalogue.get(sys.argv[7])
    stage = system.stage(name).preset("tiny", **settings)
    parents = load_parents(system, stage, out.parent)
    options = {"seed": stage.settings.seed, "batch": stage.settings.batch}
    drawn: list[list[str]] = []

    class Noting(Reader):
        def batch(self, step: int):
            batch = super().batch(step)
            drawn.append([step, batch["key"]])
            return batch

    done = []
    course = Course(
        folder=out,
        train=Noting(dataset, selection, stage.view, subset="train", rank=rank, world=world, **options),
        held_out={},
        identity=Identity("d" * 64, "r" * 64),
        rank=rank,
        world=world,
        stop=lambda: bool(done.append(None)) or len(done) >= limit,
    )
    kinds = {
        "plain": Plain,
        "poisoned": lambda stage: Poisoned(stage, course.train.keys(0)[0]),
        "whole": lambda stage: stage,
    }
    train(kinds[kind](stage), parents, course)
    (out / f"drawn-{world}-{rank}.json").write_text(json.dumps(drawn))


main()
