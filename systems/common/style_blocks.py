"""StyleGAN2's style block (Karras et al. 2020): convolutions that a vector modulates."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from systems.common.equalised import EqualLinear


class ModulatedConv(nn.Module):
    """A convolution whose input channels a style scales, its output brought back to unit deviation."""

    def __init__(self, inputs: int, outputs: int, style: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = EqualLinear(style, inputs, bias=1.0)
        self.gain = 1 / math.sqrt(inputs * kernel * kernel)  # equalised learning rate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """``x`` [B, inputs, h, w], ``style`` [B, style] -> [B, outputs, h, w]."""
        scale = self.affine(style)
        weight = self.weight * self.gain
        # Scaling the input equals scaling the kernel per item, and needs no grouped convolution.
        y = F.conv2d(x * scale[:, :, None, None], weight, padding=weight.shape[-1] // 2)
        norm = torch.rsqrt(scale.square() @ weight.square().sum((2, 3)).T + 1e-8)
        return y * norm[:, :, None, None] + self.bias[:, None, None]


class StyleBlock(nn.Module):
    """Two modulated convolutions, the first after doubling the size (``up``)."""

    def __init__(self, inputs: int, outputs: int, style: int, up: bool = True) -> None:
        super().__init__()
        self.up = up
        self.first = ModulatedConv(inputs, outputs, style)
        self.second = ModulatedConv(outputs, outputs, style)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, 2 h, 2 w] (or h, w without ``up``)."""
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.leaky_relu(self.first(x, style), 0.2)
        return F.leaky_relu(self.second(x, style), 0.2)
