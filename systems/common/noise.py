"""Random draws that belong to an item, not to its place in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from systems.base import Batch


def item_generators(batch: Batch, rng: torch.Generator) -> list[torch.Generator]:
    """One CPU generator per item, seeded by ``rng``'s seed, the item's key and its frame numbers.

    For ``validate``: an item gets the same draws whatever stands beside it, and two models are compared
    on the same draws.
    """
    generators = []
    for key, index in zip(batch["key"], batch["index"].tolist()):
        name = f"{rng.initial_seed()} {key} {index}".encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
        generators.append(torch.Generator().manual_seed(seed))
    return generators


def seed_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per seed: what a request draws from."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def normal(generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    """Standard normal draws [B, *shape], item i from generator i."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def dropout(x: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """``x`` of any shape with a ``share`` of its numbers left out and the others grown by as much."""
    if not share:
        return x
    kept = torch.rand(x.shape, generator=rng).to(x) >= share
    return x * kept / (1 - share)
