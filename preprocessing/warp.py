"""Pictures through affines without aliasing. Affines map source pixels to target pixels, centres at integers."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

REPLICATE = cv2.BORDER_REPLICATE  # beyond the picture its edge goes on
# Inverse of the cubic B-spline (1, 4, 1) / 6: sqrt(3) z^abs(k), z = sqrt(3) - 2 (Unser, 1999), where above 1 %.
SPLINE = np.sqrt(3) * (np.sqrt(3) - 2) ** np.abs(np.arange(-4, 5))
SPLINE /= SPLINE.sum()
MARGIN = 8  # px read around what a warp needs, for the bicubic kernel after averaging


def warp(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int = REPLICATE, *, smooth: bool = True
) -> np.ndarray:
    """``image`` [H, W] or [H, W, 3] through the affine ``matrix`` [2, 3] to ``size`` (height, width), without aliasing.

    Pixel centres lie at integers. Shrinking averages areas first; the rest is cubic, or bilinear unless ``smooth``.
    """
    matrix = np.asarray(matrix, np.float64)
    (a, b, _), (c, d, _) = matrix.tolist()
    scale = abs(a * d - b * c) ** 0.5
    if scale < 0.75:
        image, matrix = _cut(image, matrix, size)
        height, width = image.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))  # (width, height)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        x, y = width / small[0], height / small[1]  # source pixel = x * (small pixel + 0.5) - 0.5
        shift = matrix[:, :2] @ (0.5 * np.array([x, y]) - 0.5) + matrix[:, 2]
        matrix = np.column_stack([matrix[:, :2] * (x, y), shift])
    if not smooth:
        return _affine(image, matrix, size, cv2.INTER_LINEAR, border)
    if image.dtype != np.uint8 or not splines():
        return np.asarray(
            cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_CUBIC, borderMode=border, borderValue=0)
        )
    image, matrix = _cut(image, matrix, size)
    coefficients = cv2.sepFilter2D(image, cv2.CV_32F, SPLINE, SPLINE, borderType=REPLICATE)
    moved = _affine(coefficients, matrix, size, cv2.INTER_CUBIC, border)
    _, above = cv2.threshold(moved, 0, 0, cv2.THRESH_TOZERO, dst=moved)
    return np.asarray(cv2.convertScaleAbs(above))  # rounds, in a third of the time that other ways to bytes take


@cache
def splines() -> bool:
    """Whether OpenCV's fast bicubic warp here is Intel's, a cubic B-spline through coefficients, not through pixels.

    With coefficients from ``SPLINE`` it is nearer to the ideal than OpenCV's own kernel, at two thirds of the time.
    """
    point = np.zeros((9, 9), np.float32)
    point[4, 4] = 36.0
    row = _affine(point, np.eye(2, 3), (9, 9), cv2.INTER_CUBIC, REPLICATE)[4]
    return bool(np.allclose(row[2:7], (0, 4, 16, 4, 0), atol=1e-3))


def _affine(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], how: int, border: int) -> np.ndarray:
    """OpenCV's warp, by Intel's code where there is any: quicker, and places are not rounded to 1/32 pixel."""
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        return np.asarray(
            cv2.warpAffine(image, matrix, (size[1], size[0]), flags=how, borderMode=border, borderValue=0)
        )
    finally:
        cv2.ipp.setUseIPP_NotExact(before)


def halved(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``image`` made half as large, by averages, as long as it stays at least as large as ``size`` (width, height)."""
    while image.shape[1] >= 2 * size[0] and image.shape[0] >= 2 * size[1]:
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return image


def _cut(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The part of ``image`` that the warp reads, and the affine from that part."""
    (left, top), (right, bottom) = reach(matrix, size)
    height, width = image.shape[:2]
    x0, y0 = int(min(max(left - MARGIN, 0), width - 1)), int(min(max(top - MARGIN, 0), height - 1))
    x1, y1 = int(min(max(right + MARGIN, x0 + 1), width)), int(min(max(bottom + MARGIN, y0 + 1), height))
    return image[y0:y1, x0:x1], from_part(matrix, x0, y0)


# plain numbers below: numpy takes tens of microseconds for what is done to six of them, several times a frame


def reach(matrix: np.ndarray, size: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Low and high corner (x, y) in the source of what an affine to ``size`` (height, width) reads."""
    (a, b, e), (c, d, f) = matrix.tolist()
    area = a * d - b * c
    corners = [(u - e, v - f) for u in (-0.5, size[1] - 0.5) for v in (-0.5, size[0] - 0.5)]
    xs, ys = [(d * u - b * v) / area for u, v in corners], [(a * v - c * u) / area for u, v in corners]
    return (min(xs), min(ys)), (max(xs), max(ys))


def from_part(matrix: np.ndarray, x0: float, y0: float, scale: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """``matrix`` for a picture that was cut at (x0, y0) and then scaled by ``scale``, of x and of y."""
    (a, b, e), (c, d, f) = matrix.tolist()
    x, y = x0 + 0.5 / scale[0] - 0.5, y0 + 0.5 / scale[1] - 0.5
    return np.array([[a / scale[0], b / scale[1], e + a * x + b * y], [c / scale[0], d / scale[1], f + c * x + d * y]])
