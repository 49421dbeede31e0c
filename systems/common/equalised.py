"""Layers with equalised learning rate (Karras et al. 2018), as LIA and StyleGAN2 use them.

Weights are of unit size and scaled when used, so that one step of Adam changes the output of a wide layer no
more than that of a narrow one: rates such as 2e-3 belong to these layers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualConv(nn.Module):
    """A convolution with padding that keeps the size; ``zero``: it starts at nothing."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, zero: bool = False) -> None:
        super().__init__()
        shape = (outputs, inputs, kernel, kernel)
        self.weight = nn.Parameter(torch.zeros(shape) if zero else torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # times √2: what the leaky rectifier takes away
        self.gain, self.stride = math.sqrt(2 / (inputs * kernel * kernel)), stride

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, h / stride, w / stride]."""
        return F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.weight.shape[-1] // 2)


class EqualLinear(nn.Module):
    """A linear layer; ``bias`` is where its bias starts."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, zero: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs) if zero else torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        return F.linear(x, self.weight * self.gain, self.bias)
