"""Linear maps fitted in closed form: where networks start that a few hundred steps cannot bring far."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def least_squares(inputs: Tensor, outputs: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weight [a, b] and bias [b] that lead from ``inputs`` [N, a] to ``outputs`` [N, b]; ``ridge`` per input."""
    x = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1).double()
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1]).to(x)
    found = torch.linalg.solve(gram, x.T @ outputs.double()).to(outputs)
    return found[:-1], found[-1]


def patch_painter(width: int, side: int) -> nn.Conv2d:
    """Maps [B, width, g, g] to patches of ``side`` pixels [B, 3 side², g, g]: a place and its eight neighbours tell."""
    return nn.Conv2d(width, 3 * side * side, 3, padding=1, padding_mode="replicate")


@torch.no_grad()
def fit_patches(painter: nn.Conv2d, maps: Tensor, pictures: Tensor) -> None:
    """Have ``painter`` paint ``pictures`` [N, 3, S, S] from ``maps`` [N, width, g, g], as well as a linear map can."""
    near = F.unfold(F.pad(maps, (1, 1, 1, 1), mode="replicate"), 3)
    shown = F.pixel_unshuffle(pictures, pictures.shape[-1] // maps.shape[-1]).flatten(2)
    weight, bias = least_squares(near.transpose(1, 2).flatten(0, 1), shown.transpose(1, 2).flatten(0, 1))
    painter.weight.copy_(weight.T.view_as(painter.weight))
    assert painter.bias is not None
    painter.bias.copy_(bias)


@torch.no_grad()
def principal(vectors: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``vectors`` [N, d]: mean [d], the directions [d, count] in which they differ most, deviations [count]."""
    mean = vectors.mean(0)
    about = (vectors - mean).double()
    variances, directions = torch.linalg.eigh(about.T @ about / len(about))
    # eigenvectors have no sign of their own: the largest entry is made positive, on every machine alike
    top = directions.flip(1)[:, :count]
    top = top * top.gather(0, top.abs().argmax(0, keepdim=True)).sign()
    return mean, top.to(vectors), variances.flip(0)[:count].clamp_min(0).sqrt().to(vectors)
