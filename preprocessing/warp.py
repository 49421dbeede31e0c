"""Pictures through affines without aliasing. Affines map source pixels to target pixels, centres at integers."""

from __future__ import annotations

import cv2
import numpy as np

REPLICATE = cv2.BORDER_REPLICATE  # beyond the picture its edge goes on
MARGIN = 8  # px read around what a warp needs, for the bicubic kernel after averaging


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int = REPLICATE) -> np.ndarray:
    """``image`` [H, W, 3] through the affine ``matrix`` [2, 3] to ``size`` (height, width), without aliasing.

    Pixel centres lie at integers. Shrinking averages areas first; the rest is bicubic.
    """
    matrix = np.asarray(matrix, np.float64)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.75:
        image, matrix = _cut(image, matrix, size)
        height, width = image.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))  # (width, height)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        x, y = width / small[0], height / small[1]  # source pixel = x * (small pixel + 0.5) - 0.5
        shift = matrix[:, :2] @ (0.5 * np.array([x, y]) - 0.5) + matrix[:, 2]
        matrix = np.column_stack([matrix[:, :2] * (x, y), shift])
    return np.asarray(
        cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_CUBIC, borderMode=border, borderValue=0)
    )


def _cut(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The part of ``image`` that the warp reads, and the affine from that part."""
    (x0, y0), (x1, y1) = reach(matrix, size)
    height, width = image.shape[:2]
    x0, y0 = int(np.clip(x0 - MARGIN, 0, width - 1)), int(np.clip(y0 - MARGIN, 0, height - 1))
    x1, y1 = int(np.clip(x1 + MARGIN, x0 + 1, width)), int(np.clip(y1 + MARGIN, y0 + 1, height))
    return image[y0:y1, x0:x1], from_part(matrix, x0, y0)


def reach(matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner (x, y) in the source of what an affine to ``size`` (height, width) reads."""
    height, width = size
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [-0.5, height - 0.5], [width - 0.5, height - 0.5]])
    source = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    return source.min(axis=0), source.max(axis=0)


def from_part(matrix: np.ndarray, x0: float, y0: float, scale: float = 1.0) -> np.ndarray:
    """``matrix`` for a picture that was cut at (x0, y0) and then scaled by ``scale``."""
    shift = matrix[:, 2] + matrix[:, :2] @ (np.array([x0, y0]) + 0.5 / scale - 0.5)
    return np.column_stack([matrix[:, :2] / scale, shift])
