"""Does the mouth follow the sound: correlation of its opening with the sound's energy, and the shift between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from preprocessing.audio import energy

FARTHEST = 12  # frames (0.48 s) either way
NEARER = 0.01  # of correlation that a frame of shift must win: syllables repeat, and most recordings are in step
SHORTEST = 25  # frames that must overlap: on fewer, chance correlates


class Sync(NamedTuple):
    """The best fit of mouth and sound."""

    value: float  # correlation
    shift: int  # frames; above 0 the sound trails the lips
    lead: float  # of the value over the median of all shifts


def correlate(mouth: np.ndarray, sound: np.ndarray, found: np.ndarray | None = None) -> Sync | None:
    """Best Pearson correlation of mouth opening [T] with the energy of int16 sound [640 T], and its shift in frames.

    Above 0 the sound trails the lips: ``mouth[t]`` goes with ``energy[t + shift]``. Shifts reach 12 frames either
    way; frames that are not ``found`` (bool [T]) do not count. ``None`` where too little moves or overlaps.
    """
    level = _smoothed(np.sqrt(energy(sound).astype(np.float64)))
    opening = _smoothed(np.asarray(mouth, np.float64))
    there = np.ones(len(opening), bool) if found is None else np.asarray(found, bool)
    there = there & np.append(there[1:], True) & np.append(True, there[:-1])  # a lost frame colours its neighbours
    best: tuple[float, int] | None = None
    values = []
    for shift in sorted(range(-FARTHEST, FARTHEST + 1), key=abs):  # of equals the smallest shift
        first, last = max(0, -shift), min(len(opening), len(opening) - shift)
        if last - first < SHORTEST:
            continue
        use = there[first:last]
        a, b = opening[first:last][use], level[first + shift : last + shift][use]
        if len(a) < SHORTEST or a.std() < 1e-6 or b.std() < 1e-6:
            continue
        value = float(np.corrcoef(a, b)[0, 1])
        values.append(value)
        if best is None or value - NEARER * abs(shift) > best[0] - NEARER * abs(best[1]) + 1e-12:
            best = value, shift
    return Sync(*best, best[0] - float(np.median(values))) if best else None


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over three frames: a frame's sound is shorter than a syllable."""
    padded = np.pad(values, 1, mode="edge")
    return np.asarray((padded[:-2] + padded[1:-1] + padded[2:]) / 3)
