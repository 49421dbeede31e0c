"""What E_v is shown instead of the frame itself, so that it cannot tell who it is (LPD, PC-AVS; §3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAIN, SHIFT, STRETCH = 0.3, 0.2, 0.15  # not in the paper: how strong


def disguise(images: Tensor, rng: torch.Generator) -> Tensor:
    """Other colours, and face shapes stretched across and up: images [B, 3, S, S] -> the same shape.

    Stretched about the middle of the picture, so that a turn of the head stays what it is.
    """
    items = len(images)
    draws = (2 * torch.rand(items, 8, generator=rng) - 1).to(images)
    gain, shift, stretch = 1 + GAIN * draws[:, :3], SHIFT * draws[:, 3:6], 1 + STRETCH * draws[:, 6:]
    turned = torch.zeros(items, 2, 3, device=images.device, dtype=images.dtype)
    turned[:, 0, 0], turned[:, 1, 1] = stretch.unbind(1)
    grid = F.affine_grid(turned, list(images.shape), align_corners=False)
    stretched = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return stretched * gain[..., None, None] + shift[..., None, None]
