"""The denoising U-Net ε_θ (§III-A, §III-C): latent-diffusion's, with TalkFormer where that has attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from systems.talkformer.appearance import AppearanceEncoder, Grow, Whole, halve, residual
from systems.talkformer.attention import Keys, LandmarkEmbedding, LandmarkVector, TalkFormer, zero


class Condition(NamedTuple):
    """What of a clip the U-Net is given at every step."""

    added: Tensor | None  # to the time's embedding, [B L, 4 D_1]: the landmarks' w/o M-Align
    keys: dict[str, Keys]  # of each TalkFormer


class Denoiser(ModelMixin, ConfigMixin):
    """ε_θ(z_t, t) given landmarks and appearance, with the encoder of the latter.

    ``channels``: of the I scales. ``align_motion``: off is w/o M-Align, one landmark embedding added everywhere.
    ``align_reference``: off is w/o R-Align, self-attention in the place of (4), (5), z_r beside z_t.
    ``appearance``: ``unet`` is + CompleteRef. ``temporal``: + TempAttn. ``leads``: the U-Net adds to what a Gaussian
    around the reference's latent knows.  # not in the paper: short training begins at a copy of the reference
    """

    latent_mean: Tensor
    latent_deviation: Tensor
    spread: Tensor

    @register_to_config
    def __init__(
        self,
        latent: int = 3,
        side: int = 64,
        channels: Sequence[int] = (224, 448, 672, 896),
        layers: int = 2,
        groups: int = 32,
        width: int = 512,
        align_motion: bool = True,
        align_reference: bool = True,
        appearance: Whole = "encoder",
        temporal: bool = False,
        leads: bool = False,
        steps: int = 200,
    ) -> None:
        super().__init__()
        time = 4 * channels[0]
        self.time = Timesteps(channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(channels[0], time)
        self.landmarks = LandmarkEmbedding(width) if align_motion else LandmarkVector(time)
        self.appearance_encoder = (
            AppearanceEncoder(latent, channels, layers, groups, appearance) if align_reference else None
        )
        self.entry = nn.Conv2d(latent if align_reference else 2 * latent, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()  # residual blocks, each with a TalkFormer but at the first scale, in order
        self.talkformers = nn.ModuleDict()  # by the number of the residual block that they follow
        self.scale_of: list[int] = []  # of each residual block

        def add(inputs: int, scale: int, attend: bool = True) -> None:
            self.blocks.append(residual(inputs, channels[scale], groups, time))
            self.scale_of.append(scale)
            if scale and attend:
                given = width if align_motion else 0
                made = TalkFormer(channels[scale], given, groups, "warp" if align_reference else "self", temporal)
                self.talkformers[str(len(self.blocks) - 1)] = made

        skips, last = [channels[0]], len(channels) - 1
        for scale, out in enumerate(channels):
            for number in range(layers):
                add(skips[-1] if number == 0 else out, scale)
                skips.append(out)
            if scale < last:
                skips.append(out)
        add(channels[last], last)
        add(channels[last], last, attend=False)
        before = channels[last]
        for scale in range(last, -1, -1):
            for _ in range(layers + 1):
                add(before + skips.pop(), scale)
                before = channels[scale]
        self.downs = nn.ModuleList([halve(width) for width in channels[:-1]])
        self.grows = nn.ModuleList([Grow(b, b) for _, b in pairwise(channels)])  # from scale i + 1 up to i
        self.norm = nn.GroupNorm(groups, channels[0])
        self.out = zero(nn.Conv2d(channels[0], latent, 3, padding=1))
        self.register_buffer("latent_mean", torch.zeros(latent, 1, 1))
        self.register_buffer("latent_deviation", torch.ones(latent, 1, 1))
        self.register_buffer("spread", torch.ones(latent, side // 2, side))  # variance of lower z_0 - z_r

    def standardise(self, z: Tensor) -> Tensor:
        """Latents [..., C, h, w] of zero mean and unit deviation per channel over the training data."""
        return (z - self.latent_mean) / self.latent_deviation

    def restore(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`standardise`."""
        return z * self.latent_deviation + self.latent_mean

    def features(self, z_r: Tensor) -> list[Tensor | None]:
        """F_a^i [B, D, H, W] by scale of latents [B, C, h, w]; none at the first, none at all without R-Align."""
        return [None] * len(self.config.channels) if self.appearance_encoder is None else self.appearance_encoder(z_r)

    def condition(self, full: Tensor, features: Sequence[Tensor | None], before: Tensor | None = None) -> Condition:
        """All that depends on the clip and not on the time: made once, used at every step.

        ``full`` faces [B L, 131, 2]; ``features`` of the reference; ``before``: standardised latents of the motion
        frames [B, M, C, h, w], which pass the appearance encoder too (§IV-A5).
        """
        embedded, kept = self.landmarks(full), dict[str, Keys]()
        maps: list[Tensor | None] = [None] * len(features)
        if before is not None and self.config.temporal:
            maps = [
                None if x is None else x.unflatten(0, before.shape[:2]) for x in self.features(before.flatten(0, 1))
            ]
        for name, block in self.talkformers.items():
            scale = self.scale_of[int(name)]
            kept[name] = block.keys(embedded if self.config.align_motion else None, features[scale], maps[scale])
        return Condition(None if self.config.align_motion else embedded, kept)

    def forward(self, z_t: Tensor, t: Tensor, condition: Condition, z_r: Tensor) -> Tensor:
        """What is predicted at every place, [B L, C, h, w].

        ``z_t`` [B L, C, h, w] standardised, its upper half the context and its lower half noisy; ``t`` int64 [B L];
        ``z_r`` [B, C, h, w] standardised latents of the references of the B videos.
        """
        (added, keys), videos = condition, len(z_r)
        time = self.time_embedding(self.time(t).to(z_t.dtype))
        if added is not None:
            time = time + added
        if not self.config.align_reference:
            z_t = torch.cat([z_t, z_r.repeat_interleave(len(z_t) // videos, 0)], 1)
        x = self.entry(z_t)
        skips, number = [x], 0

        def run(x: Tensor) -> Tensor:
            nonlocal number
            x = self.blocks[number](x, time)
            if str(number) in keys:
                x = self.talkformers[str(number)](x, keys[str(number)], videos)
            number += 1
            return x

        layers, last = self.config.layers, len(self.config.channels) - 1
        for scale in range(last + 1):
            for _ in range(layers):
                x = run(x)
                skips.append(x)
            if scale < last:
                x = self.downs[scale](x)
                skips.append(x)
        x = run(run(x))
        for scale in range(last, -1, -1):
            for _ in range(layers + 1):
                x = run(torch.cat([x, skips.pop()], 1))
            if scale:
                x = self.grows[scale - 1](x)
        return self.out(F.silu(self.norm(x)))
