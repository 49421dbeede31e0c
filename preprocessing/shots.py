"""Where the camera cuts: one span never holds two shots."""

from __future__ import annotations

import numpy as np

STRIDE = 6  # pixels between those compared
ALIKE = 0.6  # correlation of neighbouring frames: cuts have at most 0.5 on the corpus, fast heads at least 0.7
CHANGE = 4.0  # grey levels of 255: below it nothing was cut, however little the flat pictures correlate


class Cuts:
    """Watches frames go by and says where a new shot begins."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def begins(self, image: np.ndarray) -> bool:
        """Whether ``image`` (uint8 [H, W, 3]) is the first of a new shot; the very first frame is none."""
        thin = image[::STRIDE, ::STRIDE].astype(np.float32).ravel()
        last, self._last = self._last, thin
        if last is None or float(np.abs(thin - last).mean()) < CHANGE:
            return False
        a, b = thin - thin.mean(), last - last.mean()
        return float(a @ b) < ALIKE * float(np.sqrt((a @ a) * (b @ b)))
