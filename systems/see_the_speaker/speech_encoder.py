"""E_s: the speech encoder, Speech2Face's CNN with a convolutional block attention module (§III-A3, §IV-D)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Which channels matter (Woo et al. 2018, eq. (2)): one MLP over the mean and the maximum of each channel."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to weights [B, C, 1, 1] in 0..1."""
        return torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True)))


class SpatialAttention(nn.Module):
    """Which places matter (Woo et al. 2018, eq. (3)): a 7×7 convolution over mean and maximum of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to weights [B, 1, H, W] in 0..1."""
        return torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al. 2018, eq. (1))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        x = self.channel(x) * x
        return self.spatial(x) * x


class SpeechEncoder(ModelMixin, ConfigMixin):
    """Spectrogram [B, 2, 257, 598] to z^s [B, ``dim``].

    Nine 4×4 convolutions, four of them followed by a pooling that halves time, then the mean over the map
    and two fully connected layers (Oh et al. 2019, Table 1 of its supplement).

    ``widths``: channels of the nine convolutions. ``stem_stride``: (frequency, time) stride of the first
    one, 1 in the paper. ``bands``: bands of frequency kept by the mean; 1 in the paper **[ours]**: with one
    vector per map the encoder has 30.7 M parameters, which with the other networks makes the 640 M of
    Table XII.
    """

    @register_to_config
    def __init__(
        self,
        dim: int = 4096,
        widths: tuple[int, ...] = (64, 64, 128, 128, 128, 256, 512, 512, 512),
        stem_stride: tuple[int, int] = (1, 1),
        bands: int = 1,
    ) -> None:
        super().__init__()
        channels = [2, *widths]
        layers: list[nn.Module] = []
        for i, (inner, outer) in enumerate(pairwise(channels)):
            stride = tuple(stem_stride) if i == 0 else (2, 2) if i >= 7 else (1, 1)
            layers.append(nn.Conv2d(inner, outer, 4, stride=stride, padding=1))
            if i < 8:  # the last map is averaged before its rectifier, as in Speech2Face
                layers += [nn.ReLU(), nn.BatchNorm2d(outer)]
            if 2 <= i <= 5:
                layers.append(nn.MaxPool2d((1, 2)))  # time; frequency is kept
        self.layers = nn.Sequential(*layers)
        self.attention = CBAM(channels[-1])  # not in the paper: after the last map, where context is widest
        self.pool = nn.AdaptiveAvgPool2d((bands, 1))
        self.norm = nn.BatchNorm1d(channels[-1] * bands)
        self.head = nn.Sequential(nn.Linear(channels[-1] * bands, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """z^s [B, dim], of any length."""
        pooled = self.pool(self.attention(self.layers(spectrogram))).flatten(1)
        return self.head(self.norm(torch.relu(pooled)))

    def code(self, spectrogram: Tensor) -> Tensor:
        """z^s [B, dim] as the diffusion reads it: of length √dim, since L_c shapes its direction alone **[ours]**."""
        return F.normalize(self(spectrogram), dim=1) * math.sqrt(self.config.dim)
