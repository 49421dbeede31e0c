"""Curves over time as a picture, without a plotting package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

INKS = ((0, 0, 0), (208, 32, 32), (32, 96, 208), (32, 144, 64))  # black, red, blue, green
STEP, HEIGHT, GAP = 6, 80, 8  # pixels per frame, per row, between rows


def draw_curves(curves: Sequence[Tensor]) -> np.ndarray:
    """Several curves [B, T] each as uint8 [H, W, 3]: one row per item, one ink per curve, one scale per row."""
    values = np.stack([curve.detach().float().cpu().numpy() for curve in curves], 1)  # [B, curves, T]
    rows, _, length = values.shape
    sheet = np.full((rows * (HEIGHT + GAP) + GAP, (length - 1) * STEP + 2 * GAP + 1, 3), 255, np.uint8)
    x = np.arange((length - 1) * STEP + 1)
    for row, curves_of_row in enumerate(values):
        low, high = curves_of_row.min(), curves_of_row.max()
        top = GAP + row * (HEIGHT + GAP)
        for curve, ink in zip(curves_of_row, INKS):
            line = np.interp(x / STEP, np.arange(length), curve)
            y = np.round((high - line) / max(high - low, 1e-9) * (HEIGHT - 1)).astype(int)
            for start, end, column in zip(y, [*y[1:], y[-1]], x + GAP):  # steep parts stay joined
                sheet[top + min(start, end) : top + max(start, end) + 1, column] = ink
    return sheet
