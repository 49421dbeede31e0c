"""How a sample sounds: level, silence, clipping, and the energy of every frame."""

from __future__ import annotations

import numpy as np

from contracts.sample import SAMPLES_PER_FRAME

FULL_SCALE = 32768.0
FLOOR_DBFS = -100.0  # of digital silence: below the step of 16 bits, and finite
SILENT_DBFS = -50.0
CLIPPED = 32767  # magnitude at which a sample counts as clipped


def energy(sound: np.ndarray) -> np.ndarray:
    """Root mean square of every 40 ms, float32 [T] in 0..1, of int16 sound [N]; a last part below 40 ms counts, too."""
    whole = len(sound) - len(sound) % SAMPLES_PER_FRAME
    frames = sound[:whole].reshape(-1, SAMPLES_PER_FRAME).astype(np.float64)
    squares = (frames**2).mean(axis=1)
    if whole < len(sound):
        squares = np.append(squares, (sound[whole:].astype(np.float64) ** 2).mean())
    return (np.sqrt(squares) / FULL_SCALE).astype(np.float32)


def loudness(sound: np.ndarray) -> float:
    """Root mean square level in dBFS of int16 sound [N], at least -100; a full-scale square wave has 0."""
    if not len(sound):
        return FLOOR_DBFS
    return float(dbfs(np.sqrt((sound.astype(np.float64) ** 2).mean()) / FULL_SCALE))


def silence(sound: np.ndarray) -> float:
    """Share (0..1) of the 40 ms frames of int16 sound [N] below -50 dBFS; 1 where there is no sound."""
    return float((dbfs(energy(sound)) < SILENT_DBFS).mean()) if len(sound) else 1.0


def clipping(sound: np.ndarray) -> float:
    """Share (0..1) of the samples of int16 sound [N] at full scale."""
    # both signs: abs() of int16 -32768 is -32768
    return float(((sound >= CLIPPED) | (sound <= -CLIPPED)).mean()) if len(sound) else 0.0


def level_swing(sound: np.ndarray) -> float:
    """Decibels between the 90th and the 10th percentile of the levels of the 40 ms frames of int16 sound [N].

    A tone or a hum stays below 3; syllables and pauses give speech more than 10.
    """
    if not len(sound):
        return 0.0
    low, high = np.percentile(dbfs(energy(sound)), [10, 90])
    return float(high - low)


def dbfs(amplitude: np.ndarray | float) -> np.ndarray:
    """Amplitude in 0..1 as decibels below full scale, at least -100."""
    return np.maximum(20.0 * np.log10(np.maximum(amplitude, 1e-9)), FLOOR_DBFS)
