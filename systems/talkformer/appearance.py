"""Reference appearance encoder (§III-C2): z_r to features of the denoiser's scales, by residual convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

Whole = Literal["encoder", "unet"]


def residual(inputs: int, outputs: int, groups: int, time: int | None = None) -> ResnetBlock2D:
    """latent-diffusion's residual block, with or without the time's embedding."""
    return ResnetBlock2D(in_channels=inputs, out_channels=outputs, temb_channels=time, groups=groups)


def halve(channels: int) -> nn.Module:
    """[..., H, W] -> [..., H / 2, W / 2] by a convolution."""
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


class Grow(nn.Module):
    """[..., H, W] -> [..., 2 H, 2 W]: nearest, then a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Twice the size."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class AppearanceEncoder(nn.Module):
    """F_a = {F_a^i}: the denoiser's encoder without self-attention and without time.

    ``whole``: ``encoder`` as in the paper; ``unet`` adds a decoder whose maps are the features (+ CompleteRef, §IV-D6).
    The first scale has no TalkFormer, so that its features serve only as the way to the others.
    """

    def __init__(self, latent: int, channels: Sequence[int], layers: int, groups: int, whole: Whole) -> None:
        super().__init__()
        self.whole = whole
        self.entry = nn.Conv2d(latent, channels[0], 3, padding=1)
        self.scales = nn.ModuleList()
        before = channels[0]
        for width in channels:
            blocks = [residual(a, width, groups) for a in (before, *[width] * (layers - 1))]
            self.scales.append(nn.ModuleList(blocks))
            before = width
        self.downs = nn.ModuleList([halve(width) for width in channels[:-1]])
        if whole == "unet":
            back = list(channels[:0:-1])
            self.middle = nn.ModuleList([residual(back[0], back[0], groups) for _ in range(2)])
            self.grows = nn.ModuleList([Grow(a, b) for a, b in pairwise(back)])
            self.joins = nn.ModuleList(
                [nn.ModuleList([residual(a, b, groups) for a in (2 * b, *[b] * (layers - 1))]) for b in back]
            )

    def forward(self, z_r: Tensor) -> list[Tensor | None]:
        """Latent [B, C, h, w] -> F_a^i [B, D_i, h / 2^(i-1), w / 2^(i-1)], finest first; none for the first scale."""
        x, maps = self.entry(z_r), list[Tensor]()
        for number, blocks in enumerate(self.scales):
            for block in blocks:
                x = block(x, None)
            maps.append(x)
            if number < len(self.downs):
                x = self.downs[number](x)
        if self.whole == "encoder":
            return [None, *maps[1:]]
        for block in self.middle:
            x = block(x, None)
        found: list[Tensor] = []
        for number, blocks in enumerate(self.joins):
            if number:
                x = self.grows[number - 1](x)
            x = torch.cat([x, maps[-1 - number]], 1)
            for block in blocks:
                x = block(x, None)
            found.append(x)
        return [None, *found[::-1]]
