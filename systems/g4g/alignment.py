"""Fine-grained alignment: of source and references with the landmarks, and of pictures with sound (§3.1)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from systems.g4g.expert import SyncExpert


def adain(x: Tensor, sigma: Tensor, mu: Tensor) -> Tensor:
    """``x`` [B, C, d] with the mean and deviation of each channel replaced by ``mu``, ``sigma`` [B, C]."""
    mean = x.mean(2, keepdim=True)
    deviation = (x.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return sigma[..., None] * (x - mean) / deviation + mu[..., None]  # eq. (5), §3.1.1


class AdaptiveBlock(nn.Module):
    """Residual block whose normalisations take σ̂ and μ̂ from the landmarks, through fully connected layers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.styles = nn.ModuleList([nn.Linear(width, 2 * channels) for _ in range(2)])
        self.convs = nn.ModuleList([nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2)])
        for style in self.styles:  # σ̂ = 1, μ̂ = 0: plain instance normalisation to begin with
            nn.init.normal_(style.weight, std=0.01)
            nn.init.zeros_(style.bias)

    def forward(self, x: Tensor, l_r: Tensor) -> Tensor:
        """``x`` [B, C, d], ``l_r`` [B, d] -> [B, C, d]."""
        y = x
        for style, conv in zip(self.styles, self.convs, strict=True):
            scale, mu = style(l_r).chunk(2, 1)
            y = conv(F.leaky_relu(adain(y, 1 + scale, mu), 0.2))
        return x + y


class IntraAlignment(nn.Module):
    """i_s and i_r become one feature, aligned with the landmarks: ī_align.

    ``align`` off is the ablation "w/o alignment": a convolution in the blocks' place (§4.6).
    """

    def __init__(self, width: int, channels: int, blocks: int, align: bool = True) -> None:
        super().__init__()
        self.join = nn.Conv1d(2, channels, 3, padding=1)  # "1D convolution layers to concatenate" i_s and i_r
        self.blocks = nn.ModuleList([AdaptiveBlock(channels, width) for _ in range(blocks)] if align else [])
        self.plain = None if align else nn.Conv1d(channels, channels, 3, padding=1)
        self.out = nn.Conv1d(channels, 1, 3, padding=1)

    def forward(self, i_s: Tensor, i_r: Tensor, l_r: Tensor) -> Tensor:
        """Features [B, d] of source, references and landmarks -> ī_align [B, d]."""
        x = self.join(torch.stack([i_s, i_r], 1))
        for block in self.blocks:
            x = block(x, l_r)
        if self.plain is not None:
            x = F.leaky_relu(self.plain(x), 0.2)
        return self.out(x)[:, 0]


def attribute_loss(aligned: Tensor, l_r: Tensor) -> Tensor:
    """L_v [B]: one less the cosine between ī_align and l_r, [B, d] each."""
    return 1 - F.cosine_similarity(aligned, l_r, dim=1)  # eq. (12), §3.3


def diagonal_contrast(v: Tensor, a: Tensor, out_of_sync: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy with the diagonal as its labels: unit vectors ``v``, ``a`` [N, e], pairs row by row.

    ``out_of_sync`` [M, e] are sounds that belong to no picture: further columns for the pictures to tell apart.
    ``scale`` is 1/τ.
    """
    target = torch.arange(len(v), device=v.device)
    s_va = v @ torch.cat([a, out_of_sync]).T  # eq. (6), §3.1.2
    s_av = a @ v.T  # eq. (7), §3.1.2
    log_p_va = F.log_softmax(scale * s_va, 1)  # eq. (8), §3.1.2; the τ that the print puts beside s divides it
    log_p_av = F.log_softmax(scale * s_av, 1)  # eq. (9), §3.1.2
    # eqs. (10), (16), §3.1.2, §3.3: the mean over the batch of the entropies against the diagonal
    return (F.nll_loss(log_p_va, target) + F.nll_loss(log_p_av, target)) / 2


class InterAlignment(nn.Module):
    """g_v and g_a with a learned τ, over features of pictures and of sound; both start as the expert's."""

    def __init__(self, expert: SyncExpert) -> None:
        super().__init__()
        self.g_v, self.g_a = copy.deepcopy(expert.g_v), copy.deepcopy(expert.g_a)
        self.log_scale = nn.Parameter(expert.log_scale.detach().clone())
        self.requires_grad_(True)

    def forward(self, aligned: Tensor, a: Tensor, out_of_sync: Tensor) -> Tensor:
        """Features ī_align and a [N, d], and those of out-of-sync sounds [M, d] -> the scalar L_con of (10)."""
        v = F.normalize(self.g_v(F.leaky_relu(aligned, 0.2)), dim=1)
        heard, others = (F.normalize(self.g_a(F.leaky_relu(each, 0.2)), dim=1) for each in (a, out_of_sync))
        return diagonal_contrast(v, heard, others, self.log_scale.clamp(max=4.6).exp())  # τ no less than 0.01
