"""What a figure over a few speakers is worth: a 95 % interval by drawing speakers again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 95.0
LEAST_SPEAKERS = 3  # with fewer an interval says nothing


@dataclass(frozen=True)
class Comparison:
    """A mean beside another: ``ratio`` with its interval, and the interval of the difference.

    ``ratio``, ``low``, ``high`` are nan where the comparison is not above zero in every draw.
    """

    ours: float
    other: float
    ratio: float
    low: float
    high: float
    difference: tuple[float, float]
    speakers: int

    def clear(self, better: str) -> bool:
        """Whether the whole interval lies on the better side (``lower`` or ``higher``) of the comparison."""
        if self.speakers < LEAST_SPEAKERS:
            return False
        return self.difference[1] < 0 if better == "lower" else self.difference[0] > 0


def compare(ours: Sequence[float], other: Sequence[float], speakers: Sequence[str], seed: int = 0) -> Comparison:
    """Compare two measures item by item, each speaker counting once. Items that are not finite are left out.

    Raises ``ValueError`` where no item is left.
    """
    finite = [i for i, pair in enumerate(zip(ours, other, strict=True)) if np.isfinite(pair).all()]
    names = sorted({speakers[i] for i in finite})
    if not names:
        raise ValueError("no finite values to compare")
    groups = [[i for i in finite if speakers[i] == name] for name in names]
    means = np.array([[np.mean([values[i] for i in group]) for group in groups] for values in (ours, other)])
    rng = np.random.Generator(np.random.Philox(seed))
    draws = means[:, rng.integers(len(names), size=(DRAWS, len(names)))].mean(axis=2)  # [2, DRAWS]
    a, b = means.mean(axis=1)
    tails = [(100 - LEVEL) / 2, (100 + LEVEL) / 2]
    low, high = np.percentile(draws[0] - draws[1], tails)
    ratios = np.percentile(draws[0] / draws[1], tails) if (draws[1] > 0).all() else (np.nan, np.nan)
    ratio = a / b if b > 0 else np.nan
    return Comparison(
        float(a), float(b), float(ratio), float(ratios[0]), float(ratios[1]), (float(low), float(high)), len(names)
    )


def interval(values: Sequence[float], speakers: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """Mean, each speaker counting once, and its 95 % interval; values that are not finite are left out.

    Raises ``ValueError`` where no item is left.
    """
    finite = [(value, name) for value, name in zip(values, speakers, strict=True) if np.isfinite(value)]
    names = sorted({name for _, name in finite})
    if not names:
        raise ValueError("no finite values")
    means = np.array([np.mean([value for value, who in finite if who == name]) for name in names])
    rng = np.random.Generator(np.random.Philox(seed))
    draws = means[rng.integers(len(names), size=(DRAWS, len(names)))].mean(axis=1)
    low, high = np.percentile(draws, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(means.mean()), float(low), float(high)
