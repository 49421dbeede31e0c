"""Validation: every measure on held-out items, value by value, and a picture of what the stage makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from contracts.files import commit
from systems.base import Batch, Stage, TrainedStage
from training.pictures import as_numbers

SEEDS = Struct("<2Q")
VALIDATING = 2**31  # stands in the rank's place where validation draws


class Source(Protocol):
    """What the loop needs of :class:`training.data.Reader`."""

    def __len__(self) -> int: ...
    def batch(self, step: int) -> Batch: ...
    def passes(self, positions: Sequence[int] | None = None) -> Iterator[Batch]: ...
    def keys(self, step: int) -> list[str]: ...
    def exclude(self, steps: Mapping[str, int]) -> None: ...
    @property
    def speaker_of(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Scores:
    """Validation measures, one value per item: ``values[name][i]`` belongs to ``keys[i]``."""

    keys: list[str]
    values: dict[str, list[float]]

    def means(self) -> dict[str, float]:
        """Mean of each measure over items whose value is finite (a measure may not apply to all)."""
        finite = {name: [v for v in values if abs(v) < float("inf")] for name, values in self.values.items()}
        return {name: float(np.mean(values)) for name, values in finite.items() if values}


def generators(seed: int, step: int, rank: int, phase: int) -> tuple[torch.Generator, int]:
    """The generator that a loss draws from, and a seed for torch's own (dropout)."""
    digest = blake2b(f"{seed} {step} {rank} {phase}".encode(), digest_size=16).digest()
    own, dropout = SEEDS.unpack(digest)
    return torch.Generator().manual_seed(own >> 1), dropout >> 1


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed what torch itself draws from on ``device`` (dropout).

    ``torch.manual_seed`` does it for every kind of device there may be, and where one is not in use it notes down the
    calls that it would make, each time again, with where they came from: a millisecond of a step, and memory.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def score(stage: TrainedStage, model: nn.ModuleDict, source: Source, device: torch.device) -> Scores:
    """Every measure of ``stage.validate`` over one pass; the same draws each time."""
    keys: list[str] = []
    values: dict[str, list[float]] = {}
    model.eval()
    with torch.no_grad():
        for batch in source.passes():
            # one seed for all batches: a stage may tie its draws to items (systems.common.noise)
            rng, dropout = generators(stage.settings.seed, 0, VALIDATING, 0)
            seed_torch(dropout, device)
            keys += batch["key"]
            for name, measured in stage.validate(model, move(batch, device), rng).items():
                values.setdefault(name, []).extend(measured.detach().double().cpu().flatten().tolist())
    wrong = [name for name, measured in values.items() if len(measured) != len(keys)]
    if wrong:
        raise ValueError(f"{stage.name}: validate must give one value per item, {wrong} do not")
    return Scores(keys, values)


def describe(scores: Scores, speaker_of: Mapping[str, str], step: int) -> dict[str, Any]:
    """Scores as JSON; what is not finite becomes null."""
    values = {n: [v if abs(v) < float("inf") else None for v in vs] for n, vs in scores.values.items()}
    return {"step": step, "keys": scores.keys, "speakers": [speaker_of[k] for k in scores.keys], "values": values}


def draw_picture(stage: Stage, model: nn.ModuleDict, source: Source, device: torch.device, to: Path) -> None:
    """Write a PNG of the source's first batch to ``to``, if the stage has something to show."""
    from PIL import Image

    batch = next(iter(source.passes()), None)
    if batch is None:
        return
    model.eval()
    rng, dropout = generators(stage.settings.seed, 0, VALIDATING, 1)
    seed_torch(dropout, device)
    with torch.no_grad():
        picture = stage.picture(model, move(batch, device), rng)
    if picture is not None:
        with commit(to) as file:
            Image.fromarray(picture).save(file, format="PNG")


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``, its pictures as numbers."""
    return as_numbers({name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()})
