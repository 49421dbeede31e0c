"""Write a video: frames stream into ffmpeg, equal inputs give equal bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np


def encode_video(
    path: Path, frames: Iterable[np.ndarray], audio: np.ndarray | Path, *, fps: int = 25, crf: int = 18
) -> None:
    """Write ``frames`` (uint8 RGB [H, W, 3], one after another) and ``audio`` to ``path`` as MP4 (H.264, AAC).

    ``audio`` is float32 [N] at 16 kHz, or a sound file; it is cut or padded to the length of the pictures.
    Memory does not grow with the length. ``path`` itself is written: the caller commits it.
    """
    raise NotImplementedError
