"""How near a picture comes to another, and the trivial picture it stands beside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], per item [B]; values are cut to that range."""
    error = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean((1, 2, 3))
    return 10 * torch.log10(4.0 / error.clamp_min(1e-10))


def bicubic_from_grid(image: Tensor, grid: int) -> Tensor:
    """Pictures [B, 3, S, S] shrunk to ``grid`` and enlarged again by bicubic interpolation: the comparison."""
    small = F.interpolate(image, size=(grid, grid), mode="bicubic", align_corners=False, antialias=True)
    return F.interpolate(small, size=image.shape[-2:], mode="bicubic", align_corners=False)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation over time of [B, T] and [B, T], [B]; 0 where either stands still."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    norm = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norm > 1e-8, (a * b).sum(1) / norm.clamp_min(1e-8), torch.zeros_like(norm))
