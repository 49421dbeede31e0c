"""One process of several that train a stage by gloo, without Ray: ``train_rank`` runs in each of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from toys.plain import Plain

from contracts.selection import read_selection
from systems import catalogue
from systems.base import Batch, Losses
from training.agenda import TrainRequest
from training.checkpoint import Identity
from training.data import Reader
from training.distributed import train_stage
from training.loop import CPU, Course, train
from training.stages import load_parents

PATIENCE = timedelta(seconds=100)  # of a process for the others


@dataclass(frozen=True)
class Given:
    """What is trained. ``kind``: ``plain`` (see toys/plain.py), ``poisoned`` (that, whose loss is not finite where
    one sample is) or ``whole``; ``stop``: the steps of this call after which rank 0 would stop."""

    dataset: Path
    selection: Path
    out: Path  # beside the stages that it needs
    system: str
    stage: str
    kind: str = "plain"
    settings: Mapping[str, Any] = field(default_factory=dict)
    stop: int | None = None


class Poisoned(Plain):
    """Plain, but for a sample that makes the loss of whoever has it not finite."""

    def __init__(self, stage: Any, key: str) -> None:
        super().__init__(stage)
        self.key = key

    def loss(self, model: Any, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        losses = self.stage.loss(model, batch, phase, rng)
        return Losses(losses.total * float("nan")) if self.key in batch["key"] else losses


def join(rank: int, world: int, meeting: Path) -> None:
    """Meet the other processes at a file: a port that was free a moment ago may be taken by now."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # or it asks for this machine's name
        address = f"file://{meeting}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=PATIENCE)


def train_rank(rank: int, world: int, meeting: Path, given: Given) -> None:
    """Train; the keys of each step's items go to ``drawn-<world>-<rank>.json``."""
    join(rank, world, meeting)
    system = catalogue.get(given.system)
    stage = system.stage(given.stage).preset("tiny", **given.settings)
    parents = load_parents(system, stage, given.out.parent)
    options = {"seed": stage.settings.seed, "batch": stage.settings.batch}
    drawn: list[tuple[int, list[str]]] = []

    class Noting(Reader):
        def batch(self, step: int) -> Batch:
            batch = super().batch(step)
            drawn.append((step, batch["key"]))
            return batch

    def stop() -> bool:
        return rank == 0 and len(drawn) == given.stop

    selection = read_selection(given.selection)
    course = Course(
        folder=given.out,
        train=Noting(given.dataset, selection, stage.view, subset="train", rank=rank, world=world, **options),
        held_out={},
        identity=Identity("d" * 64, "r" * 64),
        rank=rank,
        world=world,
        stop=stop,
    )
    kinds = {
        "plain": Plain,
        "poisoned": lambda stage: Poisoned(stage, course.train.keys(0)[0]),
        "whole": lambda stage: stage,
    }
    train(kinds[given.kind](stage), parents, course)
    (given.out / f"drawn-{world}-{rank}.json").write_text(json.dumps(drawn))


def train_request(rank: int, world: int, meeting: Path, request: TrainRequest, stages: list[str]) -> None:
    """Train stages of a request as Ray's workers do, one after another."""
    join(rank, world, meeting)
    for name in stages:
        train_stage(request, name, rank, world, CPU)
        if world > 1:
            torch.distributed.barrier()
