"""How near one picture is to another."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

RANGE = 2.0  # of pixel values, -1 to 1


def psnr(made: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [B] in dB of images [B, 3, H, W] in [-1, 1]; infinite where they are equal."""
    pairs = zip(made, true, strict=True)
    return torch.stack([peak_signal_noise_ratio(m[None], t[None], data_range=RANGE) for m, t in pairs])


def ssim(made: Tensor, true: Tensor) -> Tensor:
    """Structural similarity [B] of images [B, 3, H, W] in [-1, 1]: Gaussian window of 11 (Wang et al., 2004)."""
    result = structural_similarity_index_measure(made, true, data_range=RANGE, reduction="none")
    assert isinstance(result, Tensor)
    return result
