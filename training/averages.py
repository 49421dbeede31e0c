"""The moving average of a stage's weights, which is what is validated and exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Follows weights: ``a ← a + (1 - d) (w - a)`` after each step taken, running statistics too.

    ``d`` is ``min(decay, (1 + n) / (10 + n))`` after ``n`` finished steps, so that the first steps do not
    weigh on a short run. Whole numbers (counts of batches) are copied.
    """

    def __init__(self, decay: float, weights: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in weights.items()}

    @torch.no_grad()
    def follow(self, weights: Mapping[str, Tensor], steps: int) -> None:
        """Take one step towards ``weights``, of which ``steps`` are finished."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        for name, value in weights.items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Go on from the values of a checkpoint."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def give(self, weights: Mapping[str, Tensor]) -> None:
        """Put the average in the place of the weights."""
        for name, value in weights.items():
            value.copy_(self.values[name])

    @contextmanager
    def worn(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """The average in the place of the weights, which are put back."""
        kept = {name: value.detach().clone() for name, value in weights.items()}
        self.give(weights)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in weights.items():
                    value.copy_(kept[name])
