"""Which part of an aligned crop is seen, and which part of that is generated: §4.3.

The paper's faces are 416 x 320 with the mouth in 256 x 256 of them. A stored crop is square; its height and the
middle 320/416 of its width are that face. All sizes here are those of a crop of ``size`` pixels, 416 at the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

CROP, WIDTH = 416, 320
MOUTH_SIDE, MOUTH_TOP, MOUTH_LEFT = 256, 152, 32  # the mouth's square within the 416 x 320
# not in the paper: the square reaches over the eyes; what shows of it starts below their lower lids, which 99 % of the
# frames of 45 clips have above 185 px, so that nobody's gaze is redrawn
BLEND_TOP = 200
FADE = 12  # px over which the generated square fades into the source at its edge
# not in the paper: the masks' sizes. The whole square, the mouth with the jaw, the lips; about the middle of the mouth,
# which is at 272 of 416 px in the crops
MASKS = ((152, 32, 256, 256), (184, 64, 192, 192), (216, 96, 112, 128))  # top, left, height, width


def scaled(pixels: int, size: int) -> int:
    """``pixels`` of the paper's crop in a crop of ``size``. Raises ``ValueError`` where they are no whole number."""
    whole, rest = divmod(pixels * size, CROP)
    if rest:
        raise ValueError(f"size must be a multiple of 52 so that regions are whole pixels, {size} is not")
    return whole


def face_of(crop: Tensor) -> Tensor:
    """The middle of a square crop: [..., S, S] -> [..., S, 320/416 S]."""
    size = crop.shape[-1]
    left = scaled((CROP - WIDTH) // 2, size)
    return crop[..., left : left + scaled(WIDTH, size)]


def landmarks_of(landmarks: Tensor) -> Tensor:
    """Landmarks [..., 2] in 0..1 of the square crop, in 0..1 of its :func:`face_of`."""
    x = (landmarks[..., 0] * CROP - (CROP - WIDTH) / 2) / WIDTH
    return torch.stack([x, landmarks[..., 1]], -1)


def mouth_of(face: Tensor) -> Tensor:
    """The mouth's square of a face: [..., S, 320/416 S] -> [..., 256/416 S, 256/416 S]."""
    size = face.shape[-2]
    top, left, side = (scaled(pixels, size) for pixels in (MOUTH_TOP, MOUTH_LEFT, MOUTH_SIDE))
    return face[..., top : top + side, left : left + side]


def soft_mask(size: int) -> Tensor:
    """The Gaussian-smoothed mask that composites the generated face, [1, S, 320/416 S] in 0..1 (§3.2).

    1 well inside the mouth's square below the eyes, and exactly 0 outside of that: it fades within.
    """
    side, above = scaled(MOUTH_SIDE, size), scaled(BLEND_TOP - MOUTH_TOP, size)
    mask = torch.zeros(1, size, scaled(WIDTH, size))
    mouth_of(mask)[:, above:].copy_(_ramp(side - above, size)[:, None] * _ramp(side, size))
    return mask


def _ramp(length: int, size: int) -> Tensor:
    """From 0 at both ends to 1 well inside, [length]: a step smoothed by a Gaussian."""
    fade = FADE * size / CROP
    away = torch.minimum(torch.arange(length), torch.arange(length - 1, -1, -1)).double() + 0.5  # px from the edge
    return torch.where(away >= fade, 1.0, torch.special.ndtr((away - fade / 2) / (fade / 5)))


def core(size: int) -> Tensor:
    """Where nothing of the source shows through, [1, S, 320/416 S] of 0 and 1: the only place where results count."""
    return (soft_mask(size) == 1).float()


def masks(size: int) -> Tensor:
    """The masks of several sizes of supervision, [3, 1, S, 320/416 S] of 0 and 1, largest first."""
    made = torch.zeros(len(MASKS), 1, size, scaled(WIDTH, size))
    for mask, rectangle in zip(made, MASKS):
        top, left, height, width = (round(pixels * size / CROP) for pixels in rectangle)
        mask[:, top : top + height, left : left + width] = 1.0
    return made
