"""Landmarks drawn on pictures, to be looked at."""

from __future__ import annotations

import torch
from torch import Tensor

LIPS_INK, JAW_INK, POSE_INK = (1.0, -0.4, -0.4), (1.0, 0.8, -0.8), (-0.2, 0.9, 0.2)  # red, yellow, green


def draw_points(image: Tensor, lip: Tensor, jaw: Tensor, pose: Tensor) -> Tensor:
    """Pictures [n, 3, S, S] in [-1, 1] with points [n, count, 2] in 0..1 marked: completed in red and yellow."""
    side = image.shape[-1]
    marked, reach = image.clone(), side // 160  # px on either side of a point
    for points, ink in ((pose, POSE_INK), (jaw, JAW_INK), (lip, LIPS_INK)):
        colour = torch.tensor(ink).to(image)
        for picture, places in zip(marked, (points * side).long().clamp(reach, side - 1 - reach).tolist()):
            for x, y in places:
                picture[:, y - reach : y + reach + 1, x - reach : x + reach + 1] = colour[:, None, None]
    return marked
