"""Where the camera cuts: one span never holds two shots."""

from __future__ import annotations

import cv2
import numpy as np

STRIDE = 6  # pixels between those compared, at least
ACROSS = 160  # of those, along the longer side of a picture: more show no more cuts
ALIKE = 0.6  # correlation of neighbouring frames: cuts have at most 0.5 on the corpus, fast heads at least 0.7
CHANGE = 4.0  # grey levels of 255: below it nothing was cut, however little the flat pictures correlate


def stride(width: int, height: int) -> int:
    """Pixels between those compared in pictures of that size: an even number."""
    return max(STRIDE, max(width, height) // (2 * ACROSS) * 2)


class Cuts:
    """Watches frames go by and says where a new shot begins."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def begins(self, thin: np.ndarray) -> bool:
        """Whether a frame begins a new shot, by a few of its pixels, uint8 [h, w, 3]; the very first does not."""
        last, self._last = self._last, thin
        if last is None or cv2.norm(thin, last, cv2.NORM_L1) < CHANGE * thin.size:
            return False
        a, b = (each.astype(np.float32).ravel() for each in (thin, last))
        a, b = a - a.mean(), b - b.mean()
        return float(a @ b) < ALIKE * float(np.sqrt((a @ a) * (b @ b)))
