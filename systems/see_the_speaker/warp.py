"""The warp τ of eq. (12): a map read along a flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, side: int) -> Tensor:
    """``x`` [B, C, s, s] at another size, bilinear, averaging where it shrinks."""
    if x.shape[-1] == side:
        return x
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False, antialias=x.shape[-1] > side)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """τ of eq. (12): ``x`` [B, C, s, s] read at each place displaced by ``flow`` [B, 2, f, f].

    The flow is in half sides (2 crosses the picture) and is resized to ``x``; zero flow gives ``x``.
    Beyond the border the border's values are read.
    """
    side = x.shape[-1]
    flow = resize(flow, side)
    centre = (torch.arange(side, device=x.device, dtype=x.dtype) * 2 + 1) / side - 1
    grid = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), 0)
    return F.grid_sample(x, (grid + flow).permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
