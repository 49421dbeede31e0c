"""Losses that several papers share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy of CLIP between rows ``a`` and ``b`` [B, d]; ``scale`` is 1/τ, a scalar.

    Row i of ``a`` belongs to row i of ``b``; both are brought to unit length here.
    """
    logits = scale * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


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
