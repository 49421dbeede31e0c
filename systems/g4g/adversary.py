"""Discriminators of one frame and of five in a row, and least squares between them and the generator (§3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from systems.g4g.layers import Down


class Critic(nn.Module):
    """Patches of a picture (or of several, stacked) to one number each: 1 photograph, 0 generated."""

    def __init__(self, inputs: int, channels: Sequence[int]) -> None:
        super().__init__()
        sizes = (inputs, *channels)
        self.body = nn.Sequential(
            *[Down(a, b) for a, b in zip(sizes, channels)], nn.Conv2d(channels[-1], 1, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, 1, h', w']."""
        return self.body(x)


def generator_loss(judged: Sequence[Tensor]) -> Tensor:
    """L_G: what the critics say of generated pictures should be 1."""
    return torch.stack([(score - 1).square().mean() for score in judged]).sum()  # eq. (14), §3.3, LS-GAN


def critic_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """L_D: photographs to 1, generated pictures to 0."""
    right = [(score - 1).square().mean() for score in real]
    return torch.stack([*right, *[score.square().mean() for score in fake]]).sum() / 2  # eq. (14), §3.3, LS-GAN
