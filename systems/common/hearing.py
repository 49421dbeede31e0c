"""What a window of frames hears of a speech."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from contracts.sample import SAMPLES_PER_FRAME
from contracts.speech import voice_level


def heard(audio: np.ndarray, first: int, frames: int) -> Tensor:
    """Samples float32 [640 frames] of ``audio`` [N] at 16 kHz from frame ``first`` on, which may be below 0.

    Silence beyond the ends, so that windows may reach over them.
    """
    sound = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    start = first * SAMPLES_PER_FRAME
    a, b = max(start, 0), min(start + len(sound), len(audio))
    if a < b:
        sound[a - start : b - start] = audio[a:b]
    return torch.from_numpy(sound)


def voice(audio: np.ndarray) -> Tensor:
    """The level [1, 80] of each mel band over the first ten seconds of a speech [N] at 16 kHz."""
    return torch.from_numpy(voice_level(audio))[None]
