"""Losses that several papers share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Contrast(nn.Module):
    """Symmetric cross-entropy of CLIP between two sets of vectors, with a learned temperature τ.

    τ starts at 0.07 and stays above 0.01 (Radford et al. 2021).
    """

    def __init__(self, tau: float = 0.07) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(tau)))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The scalar loss for ``a``, ``b`` [B, d]: row i of one belongs to row i of the other, and to no other row."""
        return info_nce(a, b, self.log_scale.clamp(max=math.log(100.0)).exp())


def info_nce(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy of CLIP between rows ``a`` and ``b`` [B, d]; ``scale`` is 1/τ, a scalar.

    Row i of ``a`` belongs to row i of ``b``; both are brought to unit length here.
    """
    logits = scale * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def detached_features(network: nn.Module, images: Tensor) -> Sequence[Tensor]:
    """``network.features(images)`` through which gradients reach the images and not the network."""
    values = {name: value.detach() for name, value in network.state_dict(keep_vars=True).items()}
    return functional_call(_Features(network), {f"network.{n}": v for n, v in values.items()}, (images,))


class _Features(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        return self.network.features(images)


def feature_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """LPIPS without its learned channel weights, per item [B].

    ``ours``, ``theirs``: feature maps [B, C, H, W] of several layers. Features are brought to unit length
    over channels; squared differences are summed over channels, averaged over places, summed over layers
    (Zhang et al. 2018, eq. (1) with w = 1).
    """
    distance = ours[0].new_zeros(len(ours[0]))
    for f, g in zip(ours, theirs, strict=True):
        f, g = (x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt() for x in (f, g))
        distance = distance + (f - g).square().sum(1).mean((1, 2))
    return distance
