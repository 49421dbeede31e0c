"""The sync expert: mouths and sounds of five frames as vectors that are near where they belong together (§3.3).

After SyncNet (Chung & Zisserman 2016) and Wav2Lip's expert. Each frame is looked at once, and a window of five
frames is a convolution over time, so that a clip costs its frames and not five times as many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from contracts.face import LIPS
from contracts.speech import MEL_BANDS
from systems.common.mel import mel_windows
from systems.g4g.layers import shrinking

WINDOW = 5  # frames


class AudioEncoder(nn.Module):
    """E_a: sixteen mel columns to one vector. ``mean`` and ``deviation`` [80] are those of the training sounds."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((MEL_BANDS,), -6.0))
        self.register_buffer("deviation", torch.full((MEL_BANDS,), 3.0))
        self.body = shrinking(1, channels)
        rows, bands = 16, MEL_BANDS
        for _ in channels[1:]:
            rows, bands = -(-rows // 2), -(-bands // 2)
        self.out = nn.Linear(channels[-1] * rows * bands, width)

    def forward(self, mel: Tensor) -> Tensor:
        """A = log-mel [..., 16, 80] -> a [..., d]."""
        standard = ((mel - self.mean) / self.deviation).flatten(0, -3)
        a = self.out(self.body(standard[:, None]).flatten(1))  # eq. (1), §3.1.1
        return a.unflatten(0, mel.shape[:-2])


class SyncExpert(ModelMixin, ConfigMixin):
    """Mouth encoder, audio encoder and the two heads g_v, g_a into the common space.

    ``side``: of the mouths it looks at, px; ``channels``, ``audio_channels``: of the two encoders, the size halving
    from each to the next; ``width``: d, of the features under the heads; ``joint``: of the common space.
    """

    lips_deviation: Tensor

    @register_to_config
    def __init__(
        self,
        side: int = 64,
        channels: Sequence[int] = (16, 32, 64),
        audio_channels: Sequence[int] = (16, 32, 64),
        width: int = 128,
        joint: int = 64,
    ) -> None:
        super().__init__()
        self.mouth = shrinking(3, channels)
        small = side >> (len(channels) - 1)
        self.shape = nn.Linear(channels[-1] * small * small, width)
        self.lips = nn.Linear(width, 2 * len(LIPS))  # for training: how the lips are away from rest
        self.time = nn.Conv1d(width, width, WINDOW)
        self.audio = AudioEncoder(audio_channels, width)
        self.g_v = nn.Linear(width, joint)
        self.g_a = nn.Linear(width, joint)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))  # of 1/τ
        self.register_buffer("lips_deviation", torch.full((len(LIPS), 2), 0.05))

    def features(self, mouths: Tensor) -> list[Tensor]:
        """Maps [B, c, h, w] of each size for mouths [B, 3, s, s] in [-1, 1]: what a perceptual loss compares."""
        maps, x = [], self._look(mouths)
        for layer in self.mouth:
            x = layer(x)
            maps.append(x)
        return maps[1:]

    def frames(self, mouths: Tensor) -> Tensor:
        """Each frame by itself: mouths [B, n, 3, s, s] in [-1, 1] -> [B, n, d]."""
        maps = self.mouth(self._look(mouths.flatten(0, 1)))
        return F.leaky_relu(self.shape(maps.flatten(1)), 0.2).unflatten(0, mouths.shape[:2])

    def see(self, frames: Tensor, rest: Tensor) -> Tensor:
        """Unit vectors of every five successive frames: :meth:`frames` [B, n, d] -> [B, n - 4, joint].

        ``rest`` [B, d]: the mean of the same person's frames, of this clip or of its references. What does not change
        over a clip is the person and the light, and tells nothing of time.
        """
        moving = (frames - rest[:, None]).transpose(1, 2)
        v = F.leaky_relu(self.time(moving).transpose(1, 2), 0.2)
        return F.normalize(self.g_v(v), dim=-1)

    def read_lips(self, frames: Tensor) -> Tensor:
        """How pose-free lips are away from their mean over the clip, in deviations: [B, n, d] -> [B, n, 40, 2]."""
        return self.lips(frames - frames.mean(1, keepdim=True)).unflatten(-1, (len(LIPS), 2))

    def hear(self, audio: Tensor) -> Tensor:
        """Unit vectors of the sound about each of n frames: ``audio`` [B, 640 (n + 6)] -> [B, n, joint]."""
        return F.normalize(self.g_a(F.leaky_relu(self.audio(mel_windows(audio)), 0.2)), dim=-1)

    def _look(self, mouths: Tensor) -> Tensor:
        side = self.config.side
        if mouths.shape[-1] == side:
            return mouths
        shrink = mouths.shape[-1] > side
        return F.interpolate(mouths, (side, side), mode="bilinear", align_corners=False, antialias=shrink)


def shifted_distances(v: Tensor, a: Tensor, shifts: int) -> Tensor:
    """Mean distance of windows at every shift of the sound: [B, 2 shifts + 1], the first ``shifts`` frames early.

    ``v`` [B, w, e] of w successive windows; ``a`` [B, w + 2 shifts, e], which begins ``shifts`` windows before.
    """
    windows = v.shape[1]
    rows = [(v - a[:, k : k + windows]).norm(dim=-1).mean(1) for k in range(2 * shifts + 1)]
    return torch.stack(rows, 1)


def offset_and_confidence(distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Offset (frames), LSE-D and LSE-C [B] of :func:`shifted_distances` [B, 2 k + 1], as SyncNet's authors define them.

    The offset is where the distance is least, LSE-D that distance, LSE-C the median over the shifts less it. An
    offset of n says that the picture fits the sound n frames later.
    """
    least, where = distances.min(1)
    ordered = distances.sort(1).values
    median = ordered[:, distances.shape[1] // 2]
    return where - distances.shape[1] // 2, least, median - least
