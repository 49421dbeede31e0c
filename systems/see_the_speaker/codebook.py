"""The discrete codebook of eqs. (18) and (19), and the high-resolution decoder that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.equalised import EqualConv
from systems.common.linear import fit_patches, least_squares, patch_painter
from systems.see_the_speaker.image_autoencoder import FuseUp
from systems.see_the_speaker.warp import resize


class Codebook(ModelMixin, ConfigMixin):
    """C = {c_k}: ``count`` codes of ``width``; nearest code per place.

    ``entry`` brings z_wr to the codes' space; it starts as the identity, which published codes (CodeFormer's)
    expect.  # not in the paper: with the motion space frozen, L_code's second term needs something to learn
    """

    codes: nn.Parameter

    @register_to_config
    def __init__(self, count: int = 1024, width: int = 256, commitment: float = 0.25) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(count, width) / width**0.5)
        self.entry = nn.Conv2d(width, width, 1)
        with torch.no_grad():
            self.entry.weight.copy_(torch.eye(width)[:, :, None, None])
            self.entry.bias.zero_()

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest code at every place: ``z`` [B, width, h, w] in the codes' space -> int64 [B, h, w]."""
        flat = z.permute(0, 2, 3, 1).flatten(0, 2)
        # |z - c|^2 without |z|^2, which is the same for all codes
        distance = self.codes.square().sum(1) - 2 * flat @ self.codes.T
        return distance.argmin(1).view(len(z), *z.shape[2:])  # eq. (18), §III-B1

    def look_up(self, index: Tensor) -> Tensor:
        """Codes at indices [B, h, w] -> [B, width, h, w]."""
        return self.codes[index].permute(0, 3, 1, 2)

    def forward(self, z_wr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``z_wr`` [B, width, g, g] -> z_q (gradients pass straight through), indices [B, g, g], L_code."""
        z = self.entry(z_wr)
        index = self.nearest(z.detach())
        z_q = self.look_up(index)
        pull = (z.detach() - z_q).square().mean()
        commit = (z - z_q.detach()).square().mean()
        l_code = pull + self.config.commitment * commit  # eq. (19), §III-B1
        return z + (z_q - z).detach(), index, l_code

    @torch.no_grad()
    def start_from(self, z_wr: Tensor, shown: Tensor, rounds: int = 10) -> None:
        """Put the codes where the data is: k-means over vectors ``z_wr`` [N, width], near where they look alike.

        ``shown`` [N, p]: the pixels that each place stands for. ``entry`` becomes the linear map under which
        distances are those of the pixels as z_wr tells them, so that the nearest code is the likest patch.
        # not in the paper: it starts from CodeFormer's codes. Codes drawn at random are mostly never nearest.
        """
        mean, deviation = z_wr.mean(0), z_wr.std(0).clamp_min(1e-4)
        told = least_squares((z_wr - mean) / deviation, shown)[0]
        u, s, _ = torch.linalg.svd(told, full_matrices=False)  # pixels told: (z u) in units of s, turned by v
        turn = told.new_zeros(len(told), len(told))
        turn[:, : len(s)] = u * s
        self.entry.weight.copy_((turn / deviation[:, None]).T[:, :, None, None])
        self.entry.bias.copy_(-(mean / deviation) @ turn)
        vectors, count = (z_wr - mean) / deviation @ turn, len(self.codes)
        # Evenly spaced vectors: no draw, so that the same data give the same codes.
        codes = vectors[torch.linspace(0, len(vectors) - 1, count).long()].clone()
        for _ in range(rounds):
            nearest = (codes.square().sum(1) - 2 * vectors @ codes.T).argmin(1)
            used = torch.bincount(nearest, minlength=count)
            total = torch.zeros_like(codes).index_add_(0, nearest, vectors)
            codes = torch.where(used[:, None] > 0, total / used[:, None].clamp_min(1), codes)
        self.codes.copy_(codes)


class HighResolutionDecoder(ModelMixin, ConfigMixin):
    """HD_f: z_q at the code grid to pictures at high resolution.

    ``widths``: channels from the grid up, each size twice the one before. Where the motion space hands
    over warped maps (``joined``: their channels, coarsest first, sizes from twice the grid up), they are
    mixed in with a weight ``w``, CodeFormer's controllable feature transformation: 0 reads the codes alone,
    1 trusts the maps. ``copy_image``: painting starts from a picture, with w the source itself, warped at
    high resolution, with what the motion space painted; without it the patches that each code and its eight
    neighbours stand for, linearly.
    # not in the paper: the transformation is CodeFormer's; the start shows a face after few steps.
    ``equalised``: layers for a learning rate of 2e-3, otherwise plain ones for CodeFormer's 1e-4.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 256,
        widths: Sequence[int] = (512, 256, 256, 128, 128, 64),
        joined: Sequence[int] = (512, 256, 128, 64),
        copy_image: bool = False,
        equalised: bool = False,
    ) -> None:
        super().__init__()
        conv = EqualConv if equalised else _plain_conv
        self.entry = FuseUp(width, 0, widths[0], up=False, conv=conv)
        self.ups = nn.ModuleList([FuseUp(a, 0, b, conv=conv) for a, b in pairwise(widths)])
        self.mixers = nn.ModuleList([EqualConv(j + c, 2 * c, zero=True) for j, c in zip(joined, widths[1:])])
        self.paint = EqualConv(widths[-1], 3, zero=copy_image)
        self.patches = patch_painter(width, 2 ** (len(widths) - 1)) if copy_image else None
        self.register_buffer("unit", torch.ones(width))  # 1 / deviation of each of the codes' dimensions

    def forward(self, z_q: Tensor, skips: Sequence[Tensor], base: Tensor, w: Tensor) -> Tensor:
        """``z_q`` [B, width, g, g]; ``skips`` warped maps finest first; ``base`` [B, 3, S, S] the warped source
        with what the motion space painted; ``w`` [B] in 0..1 -> pictures [B, 3, S, S], about -1..1."""
        weight = w[:, None, None, None]
        x = self.entry(z_q * self.unit[:, None, None])
        maps = list(reversed(skips))
        for i, up in enumerate(self.ups):
            x = up(x)
            if i < len(self.mixers):
                scale, shift = self.mixers[i](torch.cat([maps[i], x], 1)).chunk(2, 1)
                x = x + weight * (scale * x + shift)
        if self.patches is None:
            return self.paint(x)
        alone = F.pixel_shuffle(self.patches(z_q), base.shape[-1] // z_q.shape[-1])
        return weight * base + (1 - weight) * alone + self.paint(x)

    @torch.no_grad()
    def start_from(self, z_q: Tensor, pictures: Tensor) -> None:
        """Fit ``patches`` to ``pictures`` [N, 3, S, S] whose codes are ``z_q`` [N, width, g, g], by least squares."""
        self.unit.copy_(1 / z_q.std((0, 2, 3)).clamp_min(1e-4))
        if self.patches is None:
            return
        fit_patches(self.patches, z_q, pictures)


def _plain_conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def enlarge(image: Tensor, side: int) -> Tensor:
    """Pictures [B, 3, s, s] at another size, bicubic upwards."""
    if image.shape[-1] >= side:
        return resize(image, side)
    return F.interpolate(image, size=(side, side), mode="bicubic", align_corners=False)
