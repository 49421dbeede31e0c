"""What is read from codes and pictures: landmarks and geometry, irises, and how much a code tells linearly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.geometry import IRIS, REST

POINTS = 478
GEOMETRY = len(REST) + 1  # and the mouth's opening
EYES_TOP, EYES_BOTTOM, EYES_LEFT, EYES_RIGHT = 0.30, 0.56, 0.24, 0.76  # of the crop, which eyes and nose align


class MotionReader(ModelMixin, ConfigMixin):
    """A linear layer from f_v to landmarks and geometry, in the training data's deviations."""

    mean: Tensor
    deviation: Tensor

    @register_to_config
    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * POINTS + GEOMETRY)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("mean", torch.zeros(2 * POINTS + GEOMETRY))
        self.register_buffer("deviation", torch.ones(2 * POINTS + GEOMETRY))

    def forward(self, f_v: Tensor) -> Tensor:
        """f_v [B, dim] -> standardised [B, 956 + 13]: x and y of every point, then ``geometry``."""
        return self.linear(f_v)

    def standardise(self, landmarks: Tensor, geometry: Tensor) -> Tensor:
        """Landmarks [B, 478, 2] and geometry [B, 13] as :meth:`forward` gives them."""
        return (torch.cat([landmarks.flatten(1), geometry], 1) - self.mean) / self.deviation

    def landmarks(self, f_v: Tensor) -> Tensor:
        """f_v [B, dim] -> landmarks [B, 478, 2] in 0..1 of the crop."""
        return (self.mean + self.deviation * self(f_v))[:, : 2 * POINTS].unflatten(1, (POINTS, 2))


class IrisReader(ModelMixin, ConfigMixin):
    """The stand-in for L2CS-Net in eq. (4): mediapipe's gaze and lids, read from the eyes' part of a picture."""

    @register_to_config
    def __init__(self, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise((3, *widths)))
        self.pool = nn.AdaptiveAvgPool2d((2, 4))
        self.linear = nn.Linear(widths[-1] * 8, len(IRIS))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] in [-1, 1] -> [B, 4], standardised: gaze across and down, right and left lid."""
        side = images.shape[-1]
        rows = slice(round(EYES_TOP * side), round(EYES_BOTTOM * side))
        x = images[..., rows, round(EYES_LEFT * side) : round(EYES_RIGHT * side)]
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), 0.2)
        return self.linear(self.pool(x).flatten(1))


class LinearTelling(ModelMixin, ConfigMixin):
    """How much a code tells linearly: ridge regression whose sums follow training, old ones fading.

    ``moments``: mean of z zᵀ, z = (1, x, y); whatever least squares needs is part of it.
    """

    moments: Tensor

    @register_to_config
    def __init__(self, inputs: int = 64, outputs: int = GEOMETRY, fade: float = 0.02, ridge: float = 1e-3) -> None:
        super().__init__()
        size = 1 + inputs + outputs
        self.register_buffer("moments", torch.zeros(size, size))

    @torch.no_grad()
    def follow(self, x: Tensor, y: Tensor) -> None:
        """Take in pairs ``x`` [n, inputs], ``y`` [n, outputs]."""
        z = torch.cat([torch.ones_like(x[:, :1]), x, y], 1).to(self.moments)
        fade = self.config.fade
        self.moments.copy_((1 - fade) * self.moments + fade * (z.T @ z) / len(z))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., inputs] -> y [..., outputs] as the pairs had it."""
        n = 1 + self.config.inputs
        m = self.moments / self.moments[0, 0].clamp_min(1e-12)
        gram, wanted = m[:n, :n], m[:n, n:]
        shrink = self.config.ridge * gram.diagonal() + 1e-8  # each input by its own size
        shrink = torch.cat([torch.full_like(shrink[:1], 1e-8), shrink[1:]])  # the intercept is free
        weights = torch.linalg.solve(gram + torch.diag(shrink), wanted)
        return weights[0] + x @ weights[1:]

    def mean(self) -> Tensor:
        """Mean of y [outputs]."""
        return self.moments[0, 1 + self.config.inputs :] / self.moments[0, 0].clamp_min(1e-12)
