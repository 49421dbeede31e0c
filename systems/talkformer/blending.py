"""Where a generated face takes the source's place: a Gaussian-smoothed face mask (§IV-A5, after IP_LAP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.face import LOWER_OVAL, POINTS_131

WIDER = 1.08  # than the landmarks' outline: skin goes on beyond the points of the jaw
SOFT = 1 / 32  # of the side: standard deviation of the smoothing
_OUTLINE = [POINTS_131.index(point) for point in LOWER_OVAL]


def face_mask(faces: Sequence[Tensor], side: int) -> Tensor:
    """How far the result replaces the source, [side, side] in 0..1: the lower half of any of the faces, softened.

    ``faces`` [n, 131, 2] in 0..1 of the crop: the source's, and those that are drawn, so that a jaw which was lower
    than the new one is replaced too.
    """
    outlines = torch.cat([face[:, _OUTLINE] for face in faces]).float()
    middle = outlines.mean(1, keepdim=True)
    inside = fill(middle + WIDER * (outlines - middle), side).any(0)
    inside[: side // 2] = False
    reach = max(round(3 * SOFT * side), 1)
    x = torch.arange(-reach, reach + 1, device=outlines.device) / (SOFT * side)
    kernel = torch.exp(-0.5 * x.square())
    kernel = kernel / kernel.sum()
    soft = F.pad(inside.float()[None, None], (reach,) * 4)
    return F.conv2d(F.conv2d(soft, kernel[None, None, None]), kernel[None, None, :, None])[0, 0].clamp(0, 1)


def fill(outlines: Tensor, side: int) -> Tensor:
    """Which pixels' centres lie inside closed outlines [n, points, 2] in 0..1: bool [n, side, side], even-odd rule."""
    centre = (torch.arange(side, device=outlines.device) + 0.5) / side
    inside = torch.zeros(len(outlines), side, side, dtype=torch.bool, device=outlines.device)
    for (x0, y0), (x1, y1) in zip(
        (point.unbind(-1) for point in outlines.unbind(1)),
        (point.unbind(-1) for point in outlines.roll(-1, 1).unbind(1)),
    ):
        x0, y0, x1, y1 = (value[:, None] for value in (x0, y0, x1, y1))
        crosses = (y0 > centre) != (y1 > centre)  # [n, rows]
        at = x0 + (centre - y0) * (x1 - x0) / torch.where(y1 == y0, torch.ones_like(y1), y1 - y0)
        inside ^= crosses[:, :, None] & (centre < at[:, :, None])
    return inside
