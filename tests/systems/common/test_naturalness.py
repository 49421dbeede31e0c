"""FID of sequences against the textbook formula, and what SND says of sequences whose order is known."""

import numpy as np
import torch
from scipy.linalg import sqrtm

from systems.common.naturalness import FLOOR, SHRINKAGE, frechet, naturalness, variance


def walk(seed: int, length: int = 75, width: int = 4) -> torch.Tensor:
    """A smooth random walk [1, length, width]."""
    steps = torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed))
    return 0.1 * steps.cumsum(1)


def test_frechet_is_the_formula() -> None:
    a, b = walk(0).double(), 0.5 + 2 * walk(1).double()
    moments = []
    for x in (a[0].numpy(), b[0].numpy()):
        covariance = np.cov(x.T, bias=True)
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(np.diag(covariance)) + FLOOR * np.eye(4)
        moments.append((x.mean(0), shrunk))
    (mean_a, cov_a), (mean_b, cov_b) = moments
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    np.testing.assert_allclose(float(frechet(a, b)), expected, rtol=1e-6)
    assert abs(float(frechet(a, a))) < 1e-8


def test_snd_is_the_sum_and_var_the_variance() -> None:
    a, b, step = walk(0), walk(1), torch.full((4,), 0.1)
    found = naturalness(a, b, step)
    torch.testing.assert_close(found.snd, found.fid_fm + found.fid_dfm)
    torch.testing.assert_close(found.fid_dfm, frechet(a.diff(dim=1) / 0.1, b.diff(dim=1) / 0.1))
    np.testing.assert_allclose(float(variance(a)), a[0].numpy().var(0).mean(), rtol=1e-5)


def test_shuffling_and_standing_still_are_not_natural() -> None:
    real, other, step = walk(0), walk(2), torch.full((4,), 0.1)
    other = other - other[:, :1] + real[:, :1]
    shuffled = other[:, torch.randperm(75, generator=torch.Generator().manual_seed(0))]
    still = real[:, :1].expand_as(real)
    moved = naturalness(other, real, step)
    assert moved.fid_dfm < naturalness(shuffled, real, step).fid_dfm
    assert moved.fid_dfm < naturalness(still, real, step).fid_dfm
    torch.testing.assert_close(naturalness(shuffled, real, step).fid_fm, moved.fid_fm)
