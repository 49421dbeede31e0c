"""TalkFormer (§III-C): what conditions the denoiser, at every scale but the first.

Hidden features are [B L, D, H, W]: L successive frames of each of B videos, one after the other. A video's frames share
its reference image, so that K_2 and V_2 are the video's. Keys and values do not depend on the denoising time: they are
made once per clip (:meth:`TalkFormer.keys`) and serve all steps.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from systems.talkformer.completion import sinusoidal
from systems.talkformer.face_points import N

Reference = Literal["warp", "self"]


class Keys(NamedTuple):
    """What a block attends to: K_1, V_1 [B L, n, d_1], K_2 [B, H W, d_2], V_2 [B, H W, D], motion frames' features."""

    motion: tuple[Tensor, Tensor] | None  # of the landmarks
    reference: tuple[Tensor, Tensor] | None  # of the appearance
    before: Tensor | None  # [B, M, D, H, W]


class LandmarkEmbedding(nn.Module):
    """A 1D-convolution embedding module (§III-C1): the full face to n landmark embeddings e_i."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(2, width, 3, padding=1), nn.SiLU(), nn.Conv1d(width, width, 3, padding=1), nn.SiLU()
        )
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, full: Tensor) -> Tensor:
        """Faces [F, 131, 2] in 0..1 -> embeddings [F, 131, width]."""
        return self.out(self.body(((full - 0.5) * 4).transpose(1, 2))).transpose(1, 2)


class LandmarkVector(nn.Module):
    """What stands in for it without M-Align (§IV-D2): MLPs to a single embedding, added at every place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2 * N, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.out = nn.Linear(width, width)

    def forward(self, full: Tensor) -> Tensor:
        """Faces [F, 131, 2] in 0..1 -> one embedding each [F, width]."""
        return self.out(self.body(((full - 0.5) * 4).flatten(1)))


class TalkFormer(nn.Module):
    """Motion alignment (3), appearance alignment (4)-(5) and, where asked for, temporal attention, each a residual.

    ``channels``: D of the scale; ``width``: of the landmark embeddings, 0 without M-Align; ``reference``: ``warp``
    attends to appearance features, ``self`` (w/o R-Align) to the hidden features themselves; ``temporal``: + TempAttn.
    Every residual ends in a convolution that starts at zero.
    """

    def __init__(self, channels: int, width: int, groups: int, reference: Reference, temporal: bool) -> None:
        super().__init__()
        self.reference = reference
        self.align_motion = CrossAttention(channels, width, channels, groups) if width else None
        self.align_reference = CrossAttention(channels, channels, channels, groups)
        self.temporal = TemporalAttention(channels, groups) if temporal else None

    def keys(self, landmarks: Tensor | None, features: Tensor | None, before: Tensor | None) -> Keys:
        """Keys and values of a clip: e_i [B L, n, width], F_a^i [B, D, H, W], motion frames' [B, M, D, H, W]."""
        motion = None if self.align_motion is None or landmarks is None else self.align_motion.project(landmarks)
        appearance = None if features is None else self.align_reference.project(features.flatten(2).transpose(1, 2))
        return Keys(motion, appearance, None if self.temporal is None else before)

    def forward(self, hidden: Tensor, keys: Keys, videos: int) -> Tensor:
        """Hidden features [B L, D, H, W] of B ``videos`` -> the same shape."""
        if self.align_motion is not None and keys.motion is not None:
            hidden = hidden + self.align_motion(hidden, *keys.motion)
        own = hidden.flatten(2).transpose(1, 2)
        reference = keys.reference if self.reference == "warp" else self.align_reference.project(own)
        if reference is not None:
            hidden = hidden + self.align_reference(hidden, *reference)
        if self.temporal is not None:
            hidden = hidden + self.temporal(hidden.unflatten(0, (videos, -1)), keys.before).flatten(0, 1)
        return hidden


class CrossAttention(nn.Module):
    """Softmax(Q K^T / sqrt(d)) V from every place of a map, through a convolution that starts at zero.

    Queries come through an MLP, keys and values through one layer each; single-headed, as (3) to (5) are printed.
    """

    def __init__(self, channels: int, source: int, d: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.query = nn.Sequential(nn.Linear(channels, d), nn.SiLU(), nn.Linear(d, d))
        self.key, self.value = nn.Linear(source, d, bias=False), nn.Linear(source, channels)  # S feels no bias of K
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of what is attended to, [R, n, source] -> [R, n, d], [R, n, channels]."""
        return self.key(source), self.value(source)

    def forward(self, hidden: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Hidden [F, D, H, W]; ``key``, ``value`` [R, n, ...] with R = F, or R = F / L where L maps share them."""
        height, width = hidden.shape[-2:]
        query = self.query(self.norm(hidden).flatten(2).transpose(1, 2))  # [F, H W, d]
        shared = query.reshape(len(key), -1, query.shape[-1])
        y = attend(shared, key, value)
        y = y.reshape(len(hidden), height * width, -1).transpose(1, 2)
        return self.out(y.unflatten(2, (height, width)))  # eq. (5), §III-C3: Reshape(S V_2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[R, m, d], [R, n, d], [R, n, D] -> [R, m, D]: Y of (3) for landmarks, S V_2 for appearance, S as in (4)."""
    return F.scaled_dot_product_attention(query, key, value)  # eqs. (3), (4), §III-C1, §III-C3


class TemporalAttention(nn.Module):
    """Self-attention along time at every place, after Hallo: motion frames' features stand before the L frames'."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.query, self.value = (nn.Linear(channels, channels) for _ in range(2))
        self.key = nn.Linear(channels, channels, bias=False)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, hidden: Tensor, before: Tensor | None) -> Tensor:
        """Hidden [B, L, D, H, W], ``before`` [B, M, D, H, W] -> [B, L, D, H, W]."""
        frames, whole = hidden.shape[1], hidden if before is None else torch.cat([before, hidden], 1)
        x = self.norm(whole.flatten(0, 1)).unflatten(0, whole.shape[:2])
        x = x.permute(0, 3, 4, 1, 2)  # [B, H, W, M + L, D]
        x = x + sinusoidal(x.shape[3], x.shape[4]).to(x)
        y = F.scaled_dot_product_attention(self.query(x[..., -frames:, :]), self.key(x), self.value(x))
        y = y.permute(0, 3, 4, 1, 2)
        return self.out(y.flatten(0, 1)).unflatten(0, y.shape[:2])


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with nothing in it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
