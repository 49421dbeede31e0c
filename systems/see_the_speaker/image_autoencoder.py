"""Image encoder E_f and decoder of HRTF, after LIA (Wang et al. 2024).

They are not conre's E_f and D_f, although the paper gives both the same letter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.equalised import EqualConv


class ResDown(nn.Module):
    """Residual block that halves the size (StyleGAN2's discriminator block, as in LIA's encoder)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs)
        self.second = EqualConv(inputs, outputs)
        self.skip = EqualConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, s, s] -> [B, outputs, s / 2, s / 2]."""
        y = F.leaky_relu(self.first(x), 0.2)
        y = F.leaky_relu(self.second(F.avg_pool2d(y, 2)), 0.2)
        return (y + self.skip(F.avg_pool2d(x, 2))) * 0.5**0.5


class FuseUp(nn.Module):
    """Decoder block: doubles the size (``up``), joins the map handed over at that size, convolves."""

    def __init__(
        self,
        inputs: int,
        joined: int,
        outputs: int,
        up: bool = True,
        conv: Callable[[int, int], nn.Module] = EqualConv,
    ) -> None:
        super().__init__()
        self.up = up
        self.first = conv(inputs, outputs)
        self.join = conv(joined, outputs) if joined else None
        self.second = conv(outputs, outputs)

    def forward(self, x: Tensor, joined: Tensor | None = None) -> Tensor:
        """[B, inputs, s, s] and [B, joined, 2 s, 2 s] -> [B, outputs, 2 s, 2 s]."""
        x = self.first(x)  # before it grows: a quarter of the work
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        if self.join is not None and joined is not None:
            x = (x + self.join(joined)) * 0.5**0.5
        x = F.leaky_relu(x, 0.2)
        return F.leaky_relu(self.second(x), 0.2)


class ImageEncoder(ModelMixin, ConfigMixin):
    """E_f of eq. (11): an image to its maps, from full size down to the code grid.

    ``channels``: of each map, finest first; each next one has half the size. The last is the latent map.
    """

    @register_to_config
    def __init__(self, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.entry = EqualConv(3, channels[0])
        self.downs = nn.ModuleList([ResDown(a, b) for a, b in pairwise(channels)])

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images [B, 3, S, S] in [-1, 1] -> maps [B, c_i, S / 2^i, S / 2^i], the latent map last."""
        maps = [F.leaky_relu(self.entry(image), 0.2)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        return maps


class ImageDecoder(ModelMixin, ConfigMixin):
    """HD_f of §III-B1 at the resolution of the motion space: z_wr to the picture Î_t.

    ``channels``: as the encoder's. ``copy_image``: the warped source image is added to what the decoder
    paints, and painting starts at nothing, so that training starts from copying the source.
    """

    @register_to_config
    def __init__(self, channels: Sequence[int] = (16, 32, 64), copy_image: bool = True) -> None:
        super().__init__()
        coarse_first = list(channels[::-1])
        # The maps finer than z_wr come along, warped by the same flow: LIA's decoder reads them so.
        self.entry = FuseUp(coarse_first[0], 0, coarse_first[0], up=False)
        self.ups = nn.ModuleList([FuseUp(a, b, b) for a, b in pairwise(coarse_first)])
        self.paint = EqualConv(coarse_first[-1], 3, zero=copy_image)

    def forward(self, z_wr: Tensor, skips: Sequence[Tensor], warped: Tensor) -> Tensor:
        """``z_wr`` [B, C, g, g], ``skips`` warped maps finest first, ``warped`` [B, 3, S, S] -> [B, 3, S, S]."""
        x = self.entry(z_wr)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        painted = self.paint(x)
        return warped + painted if self.config.copy_image else painted
