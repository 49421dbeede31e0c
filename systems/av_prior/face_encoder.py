"""E_id and E_v: pictures to vectors, with PC-AVS's backbone (§4, implementation details)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """ResNeXt's block (Xie et al. 2017): 1x1, grouped 3x3 with ``stride``, 1x1, and the way past them.

    Normalised over groups of channels.  # not in the paper: batch statistics would make an item's code depend
    on what stands beside it, and on the number of workers
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            _norm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False),
            _norm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, outputs, 1, bias=False),
            _norm(outputs),
        )
        straight = inputs == outputs and stride == 1
        self.past = nn.Identity() if straight else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, s, s] -> [B, outputs, s / stride, s / stride]."""
        return F.relu(self.body(x) + self.past(x))


class FaceEncoder(ModelMixin, ConfigMixin):
    """Pictures to vectors of ``dim``; the defaults are ResNeXt-50 32x4d.

    ``stem``: channels of the first convolution, which halves the picture; ``halve``: another halving by pooling.
    ``pool``: places along a side that the last map is averaged to before the linear layer; 1: over all.
    """

    @register_to_config
    def __init__(
        self,
        dim: int = 2048,
        stem: int = 64,
        halve: bool = True,
        widths: Sequence[int] = (256, 512, 1024, 2048),
        depths: Sequence[int] = (3, 4, 6, 3),
        groups: int = 32,
        pool: int = 1,
    ) -> None:
        super().__init__()
        first: list[nn.Module] = [nn.Conv2d(3, stem, 7, 2, 3, bias=False), _norm(stem), nn.ReLU()]
        self.entry = nn.Sequential(*first, *([nn.MaxPool2d(3, 2, 1)] if halve else []))
        self.stages = nn.ModuleList(
            nn.Sequential(
                Bottleneck(a, b, 1 if number == 0 else 2, groups),
                *(Bottleneck(b, b, 1, groups) for _ in range(depth - 1)),
            )
            for number, ((a, b), depth) in enumerate(zip(pairwise((stem, *widths)), depths, strict=True))
        )
        self.average = nn.AdaptiveAvgPool2d(pool)
        self.linear = nn.Linear(widths[-1] * pool * pool, dim)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, S, S] in [-1, 1] -> maps [B, c_i, s_i, s_i] after each stage, finest first."""
        maps, x = [], self.entry(images)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] in [-1, 1] -> vectors [B, dim]."""
        return self.linear(self.average(self.features(images)[-1]).flatten(1))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 2), channels)
