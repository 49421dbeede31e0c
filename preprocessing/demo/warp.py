"""A smooth backward warp through scattered points: for every pixel of the result, where to look in the source."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

STEP = 8  # px between the nodes at which the whole field is computed
FINE = 3  # px, where points lie close: around the mouth
_EASE = 0.5  # keeps points that almost coincide from tearing the field


class Field:
    """The map that takes each of ``targets`` to its ``sources`` (both [N, 2], x and y in px), smooth between.

    Radial basis |r| with an affine part: no bumps between points, no explosion outside them.
    """

    def __init__(self, targets: np.ndarray, sources: np.ndarray) -> None:
        targets = np.asarray(targets, np.float64)
        count = len(targets)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _distance(targets[:, :1], targets[:, 1:], targets) - _EASE * np.eye(count)
        system[:count, count] = system[count, :count] = 1.0
        system[:count, count + 1 :] = targets
        system[count + 1 :, :count] = targets.T
        right = np.zeros((count + 3, 2))
        right[:count] = np.asarray(sources, np.float64) - targets
        solution = np.linalg.solve(system, right)
        self._targets = targets.astype(np.float32)
        self._weights = solution[:count].astype(np.float32)
        self._affine = solution[count:].astype(np.float32)

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Sources of the points (x, y), float32 [...] each: float32 [..., 2]."""
        flat_x, flat_y = x.reshape(-1, 1), y.reshape(-1, 1)
        moved = (
            _distance(flat_x, flat_y, self._targets) @ self._weights
            + self._affine[0]
            + flat_x * self._affine[1]
            + flat_y * self._affine[2]
        )
        return (moved + np.concatenate([flat_x, flat_y], axis=1)).reshape(*x.shape, 2)

    def over(self, width: int, height: int, x0: int = 0, y0: int = 0, step: int = STEP) -> np.ndarray:
        """Sources of every pixel of the box at (x0, y0): float32 [height, width, 2], computed every ``step`` px."""
        x, y, places = _lattice(width, height, step)
        nodes = self.at(x + x0, y + y0)
        return np.asarray(cv2.remap(nodes, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


@lru_cache(maxsize=4)  # the whole picture's is asked for at every frame
def _lattice(width: int, height: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes (x and y, px) every ``step`` px over the box, and where each pixel lies among them: [height, width, 2]."""
    columns, rows = -(-width // step) + 1, -(-height // step) + 1
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32) * step, np.arange(rows, dtype=np.float32) * step)
    down, across = np.mgrid[0:height, 0:width].astype(np.float32) / step
    return x, y, np.dstack([across, down])


def _distance(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From each (x, y), [M, 1] each, to each of ``points`` [N, 2]: [M, N]; in place, for it is the costly part."""
    across, down = x - points[:, 0], y - points[:, 1]
    across *= across
    down *= down
    across += down
    return np.asarray(np.sqrt(across, out=across))


def sample(image: np.ndarray, field: np.ndarray, mode: int = cv2.INTER_LINEAR) -> np.ndarray:
    """``image`` [H, W, C] at the places of ``field`` [h, w, 2]; beyond its edge the edge goes on."""
    return np.asarray(cv2.remap(image, field, None, mode, borderMode=cv2.BORDER_REPLICATE))
