"""G: one vector to a face, by modulated convolutions (§3.1; PC-AVS after StyleGAN2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.equalised import EqualConv, EqualLinear
from systems.common.style_blocks import StyleBlock


class FaceGenerator(ModelMixin, ConfigMixin):
    """f_cat to a picture of ``size``.

    ``parts``: widths of the vectors that are joined to f_cat; ``channels``: of the maps, coarsest first, each next
    one of twice the size. ``from_mean_face``: what is painted is added to the mean of the training faces and starts at
    nothing.  # not in the paper: short training has no time to learn that a face is there
    """

    mean_face: Tensor

    @register_to_config
    def __init__(
        self,
        parts: Sequence[int] = (2048, 512),
        size: int = 224,
        style: int = 512,
        channels: Sequence[int] = (512, 512, 512, 256, 128, 64),
        from_mean_face: bool = False,
    ) -> None:
        super().__init__()
        grid = size >> (len(channels) - 1)
        if grid << (len(channels) - 1) != size:
            raise ValueError(f"size {size} is not a multiple of {1 << (len(channels) - 1)}")
        self.entries = nn.ModuleList(EqualLinear(part, style) for part in parts)
        self.mapping = EqualLinear(style, style)
        self.start = nn.Parameter(torch.randn(1, channels[0], grid, grid))
        self.first = StyleBlock(channels[0], channels[0], style, up=False)
        self.ups = nn.ModuleList(StyleBlock(a, b, style) for a, b in pairwise(channels))
        self.paint = EqualConv(channels[-1], 3, 1, zero=from_mean_face)
        self.register_buffer("mean_face", torch.zeros(3, size, size))

    def forward(self, *parts: Tensor) -> Tensor:
        """Vectors [B, parts[i]] -> pictures [B, 3, size, size], about [-1, 1]."""
        # A linear layer of the vectors joined is the sum of one layer for each.
        joined = torch.stack([entry(part) for entry, part in zip(self.entries, parts, strict=True)]).sum(0)
        style = F.leaky_relu(self.mapping(F.leaky_relu(joined, 0.2)), 0.2)
        x = self.first(self.start.expand(len(style), -1, -1, -1), style)
        for up in self.ups:
            x = up(x, style)
        return self.mean_face + self.paint(x)

    def take_over(self, other: FaceGenerator) -> None:
        """Start from another generator of the same maps: all but the entries of vectors that it does not know."""
        known = {name: value for name, value in other.state_dict().items() if not name.startswith("entries.")}
        self.load_state_dict(known, strict=False)
        self.entries[0].load_state_dict(other.entries[0].state_dict())
