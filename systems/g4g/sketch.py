"""The prior landmarks L_r as a picture: 68 points of a reference frame, drawn (§3.1.1, §4.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.face import POINTS_68

# 300-W's parts as (first, end, closed): jaw, brows, nose, nostrils, eyes, outer and inner lips
PARTS = (
    (0, 17, False),
    (17, 22, False),
    (22, 27, False),
    (27, 31, False),
    (31, 36, False),
    (36, 42, True),
    (42, 48, True),
    (48, 60, True),
    (60, 68, True),
)
THICK = 1.5  # px of a face of 416, sigma of the line


def draw_sketch(landmarks: Tensor, height: int, width: int) -> Tensor:
    """The 68 points of ``landmarks`` [B, 478, 2] (0..1 of the face), joined by soft lines: [B, 1, h, w] in 0..1."""
    points = landmarks[:, list(POINTS_68)] * landmarks.new_tensor([width, height])
    starts, ends = (points[:, index] for index in _segments())
    y, x = torch.meshgrid(
        torch.arange(height, device=points.device, dtype=points.dtype) + 0.5,
        torch.arange(width, device=points.device, dtype=points.dtype) + 0.5,
        indexing="ij",
    )
    sigma = max(THICK * height / 416, 0.6)
    nearest = torch.full((len(points), height, width), float("inf"), device=points.device, dtype=points.dtype)
    for a, b in zip(starts.unbind(1), ends.unbind(1), strict=True):  # one line at a time: memory stays a picture's
        along = b - a
        from_a = torch.stack([x - a[:, 0, None, None], y - a[:, 1, None, None]], -1)
        length = (along**2).sum(-1).clamp_min(1e-6)[:, None, None]
        share = ((from_a * along[:, None, None]).sum(-1) / length).clamp(0, 1)
        away = from_a - share[..., None] * along[:, None, None]
        nearest = torch.minimum(nearest, (away**2).sum(-1))
    return torch.exp(-nearest / (2 * sigma**2))[:, None]


def _segments() -> tuple[list[int], list[int]]:
    pairs = []
    for first, end, closed in PARTS:
        ring = list(range(first, end))
        pairs += list(zip(ring, [*ring[1:], ring[0]] if closed else ring[1:]))
    return [a for a, _ in pairs], [b for _, b in pairs]
