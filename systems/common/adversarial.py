"""A critic of pictures, and what either side learns from it (Goodfellow et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from systems.base import Losses
from systems.common.equalised import EqualConv


class Discriminator(nn.Module):
    """Convolutions with stride two down to a map of logits, one per patch."""

    def __init__(self, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip((3, *channels), channels):
            layers += [EqualConv(a, b, 3, stride=2), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, EqualConv(channels[-1], 1))

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, S, S] -> logits [B, 1, s, s]; above 0: taken for a photograph."""
        return self.body(image)


def generator_loss(logits: Tensor) -> Tensor:
    """-log(sigmoid(logit)), the mean over all logits: what the maker of the pictures learns. A scalar."""
    return F.softplus(-logits).mean()


def discriminator_loss(discriminator: Any, target: Tensor, result: Tensor) -> Losses:
    """What the critic learns: photographs [B, 3, S, S] above 0, results below, which get no gradient."""
    real, fake = discriminator(target), discriminator(result.detach())
    total = F.softplus(-real).mean() + F.softplus(fake).mean()
    return Losses(total, {"real": real.detach().mean(), "fake": fake.detach().mean()})
