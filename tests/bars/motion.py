"""SND, the sequence naturalness distance of av_prior §4.1: FID_fm + FID_Δfm, Fréchet distances of motion and of its
change from frame to frame. Of one clip there are few frames, hence covariances are shrunk (Ledoit & Wolf, 2004)."""

from __future__ import annotations

import numpy as np


def distance(made: np.ndarray, true: np.ndarray) -> float:
    """SND of two motions [T, k] in deviations."""
    return frechet(made, true) + frechet(np.diff(made, axis=0), np.diff(true, axis=0))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|μ_a - μ_b|² + tr(A + B - 2 (AB)^½) of samples [N, k], [M, k] with shrunk covariances A, B."""
    one, two = shrunk(a), shrunk(b)
    root = _root(one)
    cross = np.trace(_root(root @ two @ root))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * cross)


def shrunk(x: np.ndarray) -> np.ndarray:
    """Covariance [k, k] of samples [N, k], drawn towards a multiple of the identity by Ledoit and Wolf's amount."""
    n, k = x.shape
    x = x - x.mean(0)
    plain = x.T @ x / n
    level = np.trace(plain) / k
    away = ((plain - level * np.eye(k)) ** 2).sum()
    noise = sum(((np.outer(row, row) - plain) ** 2).sum() for row in x) / n**2
    share = min(noise / away, 1.0) if away > 0 else 1.0
    return share * level * np.eye(k) + (1 - share) * plain


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
