"""How natural a sequence of motion is beside a real one: FID over its numbers and over their changes.

Talking Head Generation with Probabilistic Audio-to-Visual Diffusion Priors (Yu et al.), §4.1: Var, FID_fm,
FID_Δfm and SND = FID_fm + FID_Δfm. The paper takes 3DMM coefficients; here they are any few standardised
numbers. A sequence is short beside their square, so covariances are shrunk towards their diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SHRINKAGE = 0.1  # of the covariances' off-diagonal part
FLOOR = 1e-4  # added to variances: a frame held still has none


class Naturalness(NamedTuple):
    """Per item [B]: Var of the made sequence, FID_fm, FID_Δfm, SND."""

    var: Tensor
    fid_fm: Tensor
    fid_dfm: Tensor
    snd: Tensor


def naturalness(made: Tensor, real: Tensor, step: Tensor) -> Naturalness:
    """Measures of ``made`` beside ``real``, both [B, T, d] in units of the training data's deviations.

    ``step`` [d]: deviation of the training data's change from frame to frame in those units. FID_Δfm is taken
    in units of it: else changes, at 25 frames per second a tenth of the motion, would count for nothing.
    """
    fid_fm, fid_dfm = frechet(made, real), frechet(made.diff(dim=1) / step, real.diff(dim=1) / step)
    return Naturalness(variance(made), fid_fm, fid_dfm, fid_fm + fid_dfm)


def variance(x: Tensor) -> Tensor:
    """Var: over time, the mean over dimensions; [B, T, d] -> [B]."""
    return x.var(1, unbiased=False).mean(-1)


def frechet(a: Tensor, b: Tensor) -> Tensor:
    """Fréchet distance of the Gaussians through the frames of ``a`` and ``b`` [B, T, d], per item [B].

    |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½); the last trace is the sum of the singular values of
    Σ_a^½ Σ_b^½, which needs no root of a matrix that is not symmetric.
    """
    mean_a, covariance_a = _gaussian(a)
    mean_b, covariance_b = _gaussian(b)
    both = torch.linalg.svdvals(_root(covariance_a) @ _root(covariance_b)).sum(-1)
    traces = (covariance_a + covariance_b).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (mean_a - mean_b).square().sum(-1) + traces - 2 * both


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.double()  # roots of small eigenvalues
    mean = x.mean(1)
    centred = x - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / x.shape[1]
    diagonal = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    floor = FLOOR * torch.eye(x.shape[2]).to(x)
    return mean, (1 - SHRINKAGE) * covariance + SHRINKAGE * diagonal + floor


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()[..., None, :] @ vectors.transpose(-1, -2)
