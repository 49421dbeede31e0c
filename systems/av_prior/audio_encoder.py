"""E_a: a short window of speech to f^a, with PC-AVS's backbone (§3.1, §4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from contracts.sample import SAMPLES_PER_FRAME
from systems.common.mel import MELS, log_mels


class SqueezeBlock(nn.Module):
    """Residual block whose channels are weighed by what is in the whole window (Hu et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(4, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.GroupNorm(4, outputs),
        )
        squeezed = max(outputs // 8, 4)
        self.weigh = nn.Sequential(nn.Linear(outputs, squeezed), nn.ReLU(), nn.Linear(squeezed, outputs), nn.Sigmoid())
        straight = inputs == outputs and stride == 1
        self.past = nn.Identity() if straight else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, h / stride, w / stride]."""
        y = self.body(x)
        return F.relu(y * self.weigh(y.mean((2, 3)))[..., None, None] + self.past(x))


class AudioEncoder(ModelMixin, ConfigMixin):
    """Windows of ``2 context + 1`` frames of speech to f^a of ``dim``; the defaults are ResNetSE-34."""

    mean: Tensor
    deviation: Tensor

    @register_to_config
    def __init__(
        self,
        dim: int = 512,
        context: int = 2,
        channels: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (3, 4, 6, 3),
    ) -> None:
        super().__init__()
        self.entry = nn.Conv2d(1, channels[0], 7, (2, 1), 3, bias=False)
        self.blocks = nn.Sequential(
            *(
                SqueezeBlock(a if n == 0 else b, b, 1 if stage == 0 or n else 2)
                for stage, ((a, b), depth) in enumerate(zip(pairwise((channels[0], *channels)), depths, strict=True))
                for n in range(depth)
            )
        )
        # what frequency and moment it was must not be averaged away
        self.average = nn.AdaptiveAvgPool2d((4, 2 * context + 1))
        self.linear = nn.Linear(channels[-1] * 4 * (2 * context + 1), dim)
        self.register_buffer("mean", torch.full((MELS,), -6.0))
        self.register_buffer("deviation", torch.full((MELS,), 3.0))

    def measure(self, windows: Iterable[Tensor]) -> None:
        """Set the mel bands' mean and deviation from windows [..., N]."""
        mels = [log_mels(sound.flatten(0, -2)).flatten(0, 1) for sound in windows]
        if mels:
            self.mean.copy_(torch.cat(mels).mean(0))
            self.deviation.copy_(torch.cat(mels).std(0).clamp_min(1e-2))

    def forward(self, windows: Tensor) -> Tensor:
        """Sound about each frame [B, n, 640 (2 context + 1)] in [-1, 1] -> f^a [B, n, dim]."""
        mel = (log_mels(windows.flatten(0, 1)) - self.mean) / self.deviation  # [B n, 4 (2 c + 1), 80]
        x = self.entry(mel.transpose(1, 2)[:, None])
        return self.linear(self.average(self.blocks(x)).flatten(1)).unflatten(0, windows.shape[:2])

    def hear(self, audio: Tensor) -> Tensor:
        """Sound [B, 640 (T + 2 context)] -> f^a [B, T, dim], each frame from its own window."""
        return self(audio.unfold(1, SAMPLES_PER_FRAME * (2 * self.config.context + 1), SAMPLES_PER_FRAME))
