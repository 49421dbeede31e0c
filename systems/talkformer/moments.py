"""Means and deviations over more data than memory holds."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Running mean and variance of vectors; all else than the last ``axes`` axes is averaged over."""

    def __init__(self, axes: int = 1) -> None:
        self.axes, self.count = axes, 0
        self.total: Tensor | None = None
        self.square: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Values [..., *shape], ``shape`` being the last ``axes`` axes."""
        flat = values.detach().double().flatten(0, -1 - self.axes)
        self.count += len(flat)
        total, square = flat.sum(0), flat.square().sum(0)
        self.total = total if self.total is None else self.total + total
        self.square = square if self.square is None else self.square + square

    @property
    def mean(self) -> Tensor:
        """[*shape]; ``ValueError`` where nothing was added."""
        if self.total is None:
            raise ValueError("no values were added")
        return self.total / self.count

    @property
    def mean_square(self) -> Tensor:
        """[*shape]."""
        if self.square is None:
            raise ValueError("no values were added")
        return self.square / self.count

    @property
    def deviation(self) -> Tensor:
        """[*shape]."""
        return torch.sqrt((self.mean_square - self.mean.square()).clamp_min(0))
