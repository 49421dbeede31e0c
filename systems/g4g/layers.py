"""The few layers that all networks of G4G are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class Down(nn.Module):
    """Residual block that halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, ceil(h / 2), ceil(w / 2)]."""
        y = self.second(F.leaky_relu(self.first(x), 0.2))
        pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return F.leaky_relu((y + self.skip(pooled)) * 0.5**0.5, 0.2)


class Up(nn.Module):
    """Residual block that doubles the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, 2 h, 2 w]."""
        x = self.first(x)  # before it grows: a quarter of the work
        x = F.leaky_relu(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), 0.2)
        return F.leaky_relu((x + self.second(x)) * 0.5**0.5, 0.2)


def shrinking(inputs: int, channels: Sequence[int]) -> nn.Sequential:
    """A convolution to ``channels[0]``, then a block of half the size for each further one."""
    entry = [nn.Conv2d(inputs, channels[0], 3, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*entry, *[Down(a, b) for a, b in pairwise(channels)])
