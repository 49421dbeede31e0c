"""The spaces of §3.1: projections of f_v and f^a, memory banks, and the orthogonal loss between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class Projection(ModelMixin, ConfigMixin):
    """MLP_cl, MLP_ol, MLP_nl or MLP_a2l: two linear layers.

    ``residual``: what is learnt is added to the input and starts at nothing.
    """

    @register_to_config
    def __init__(self, inputs: int = 512, hidden: int = 512, outputs: int = 512, residual: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, outputs)
        if residual:
            nn.init.zeros_(self.second.weight)
            nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        # A linear layer takes strided input another way once its weights need no gradient, and rounds otherwise.
        y = self.second(F.leaky_relu(self.first(x.contiguous()), 0.2))
        return x + y if self.config.residual else y


class MemoryBanks(nn.Module):
    """f_ol^v and f^a of the K - 1 steps before, ``rows`` pairs at most, without gradients (§3.1)."""

    f_ol: Tensor
    f_a: Tensor
    filled: Tensor

    def __init__(self, rows: int, d_v: int, d_a: int) -> None:
        super().__init__()
        self.register_buffer("f_ol", torch.zeros(rows, d_v))
        self.register_buffer("f_a", torch.zeros(rows, d_a))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def joined(self, f_ol: Tensor, f_a: Tensor) -> tuple[Tensor, Tensor]:
        """This step's pairs [n, d_v], [n, d_a] with those remembered."""
        kept = int(self.filled)
        return torch.cat([f_ol, self.f_ol[:kept].to(f_ol)]), torch.cat([f_a, self.f_a[:kept].to(f_a)])

    @torch.no_grad()
    def remember(self, f_ol: Tensor, f_a: Tensor) -> None:
        """Put this step's pairs in front; the oldest fall out."""
        rows = len(self.f_ol)
        both = self.joined(f_ol.detach(), f_a.detach())
        kept = min(rows, len(both[0]))
        self.f_ol[:kept], self.f_a[:kept] = both[0][:kept], both[1][:kept]
        self.filled.fill_(kept)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of every column of ``a`` [..., n, p] with every one of ``b`` [..., n, q]: [..., p, q].

    A column that does not vary correlates with nothing.
    """
    a, b = (x - x.mean(-2, keepdim=True) for x in (a, b))
    a, b = (x / (x.square().sum(-2, keepdim=True) + 1e-8).sqrt() for x in (a, b))
    return a.transpose(-1, -2) @ b


def orthogonal_loss(f_ol: Tensor, f_a: Tensor) -> Tensor:
    """L_ol: ``f_ol`` [n, d_v], ``f_a`` [n, d_a] -> scalar."""
    return pearson(f_ol, f_a).square().sum() / f_ol.shape[-1]  # eq. (3), §3.1


def contrastive_loss(f_a: Tensor, f_cl: Tensor, tau: float) -> Tensor:
    """L_cl between moments of one video, the mean over videos: [B, N, d] and [B, N, d] -> scalar.

    ``tau`` = 1 is as printed.
    """
    logits = F.normalize(f_a, dim=-1) @ F.normalize(f_cl, dim=-1).transpose(1, 2) / tau  # [B, N, N]
    own = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    # eq. (2), §3.1: L_con either way
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.transpose(1, 2), own)) / 2
