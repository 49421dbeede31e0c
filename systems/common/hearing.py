"""What a window of frames hears of a speech."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from contracts.sample import SAMPLES_PER_FRAME


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
