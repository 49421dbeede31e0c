"""Spatial adaptive deformation: each channel of the reference's map by an affine of its own (§3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def deform(maps: Tensor, theta: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each channel of ``maps`` [B, C, h, w] read at its rotated, scaled and shifted place; zero beyond the map.

    ``theta`` (radians), ``scale`` [B, C]; ``shift`` [B, C, 2], x and y in half heights of the map. Coordinates are
    about the map's middle and as long across as down, so that turning keeps shapes.
    """
    batch, channels, h, w = maps.shape
    wide = w / h
    x = ((torch.arange(w, device=maps.device, dtype=maps.dtype) * 2 + 1) / w - 1) * wide
    y = (torch.arange(h, device=maps.device, dtype=maps.dtype) * 2 + 1) / h - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    cos, sin = (scale * theta.cos())[..., None, None], (scale * theta.sin())[..., None, None]
    x_hat = cos * x - sin * y + shift[..., 0, None, None]  # eq. (11), §3.2
    y_hat = sin * x + cos * y + shift[..., 1, None, None]
    grid = torch.stack([x_hat / wide, y_hat], -1).flatten(0, 1)  # [B C, h, w, 2]
    read = F.grid_sample(maps.reshape(batch * channels, 1, h, w), grid, align_corners=False)
    return read.view(batch, channels, h, w)


class Coefficients(nn.Module):
    """Fully connected layers from the aligned features to θ, s and t of every channel; the identity to begin with."""

    def __init__(self, width: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden))
        self.out = nn.Linear(hidden, 4 * channels)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F̄_aligned [B, width] -> θ in -π..π, s in 0..2 [B, C], t in -1..1 [B, C, 2]."""
        theta, scale, x, y = self.out(F.leaky_relu(self.body(features), 0.2)).chunk(4, 1)
        # not in the paper: the ranges; those of AdaAT (Zhang & Ding 2022), which the operator is
        return math.pi * theta.tanh(), 2 * scale.sigmoid(), torch.stack([x.tanh(), y.tanh()], -1)
