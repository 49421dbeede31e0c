"""E_f and D_f: VGG-16 as face encoder (VGG-Face), and its mirror image as decoder (§III-A3, §IV-D)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 512)  # VGG-16: channels of its five blocks
DEPTHS = (2, 2, 3, 3, 3)  # and their convolutions
Latent = Literal["fc7", "conv"]


class FaceEncoder(ModelMixin, ConfigMixin):
    """Faces [B, 3, ``size``, ``size``] in [-1, 1] to z^f [B, d], d = C·h·w of ``grid``.

    ``latent`` **[ours]**: ``fc7`` takes VGG-16's second fully connected layer before its rectifier;
    ``conv`` the last map, brought to h×w and to C channels by a 1×1 convolution, so that neighbours in z
    are neighbours in the face.

    :meth:`standardise` and :meth:`restore` bring z to mean 0 and deviation 1 per dimension and back; the
    statistics follow the training data while E_f learns (``momentum``) and are stored with the weights.
    """

    @register_to_config
    def __init__(
        self,
        size: int = 224,
        widths: tuple[int, ...] = WIDTHS,
        depths: tuple[int, ...] = DEPTHS,
        hidden: int = 4096,
        grid: tuple[int, int, int] = (4, 32, 32),
        latent: Latent = "fc7",
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        _check_size(size, len(widths))
        inner, blocks = 3, []
        for width, depth in zip(widths, depths, strict=True):
            convolutions: list[nn.Module] = []
            for _ in range(depth):
                convolutions += [nn.Conv2d(inner, width, 3, padding=1), nn.ReLU()]
                inner = width
            blocks.append(nn.Sequential(*convolutions))
        self.blocks = nn.ModuleList(blocks)
        dim, side = grid[0] * grid[1] * grid[2], size >> len(widths)
        self.fc6: nn.Module | None = None
        if latent == "fc7":
            self.fc6 = nn.Linear(inner * side * side, hidden)
            self.fc7 = nn.Linear(hidden, dim)
        else:
            self.project = nn.Conv2d(inner, grid[0], 1)
        self.norm = nn.BatchNorm1d(dim, affine=False, momentum=momentum)
        start_for_rectifiers(self.modules())

    def features(self, face: Tensor) -> list[Tensor]:
        """The last map of every block, after its rectifier: [B, widths[i], size / 2^i, size / 2^i]."""
        maps = []
        for i, block in enumerate(self.blocks):
            face = block(face if i == 0 else F.max_pool2d(face, 2))
            maps.append(face)
        return maps

    def forward(self, face: Tensor) -> Tensor:
        """z^f [B, d], not standardised."""
        last = self.features(face)[-1]
        if self.fc6 is not None:
            return self.fc7(torch.relu(self.fc6(F.max_pool2d(last, 2).flatten(1))))
        grid = F.interpolate(last, size=tuple(self.config.grid[1:]), mode="bilinear", antialias=False)
        return self.project(grid).flatten(1)

    @property
    def deviation(self) -> Tensor:
        """Deviation of each dimension of z over the training data, [d]."""
        return (self.norm.running_var + self.norm.eps).sqrt()

    def standardise(self, z: Tensor) -> Tensor:
        """z [B, d] with mean 0 and deviation 1: of this batch in training mode, of the training data in eval mode."""
        return self.norm(z)

    def restore(self, z: Tensor) -> Tensor:
        """Undo :meth:`standardise` of eval mode, [B, d]."""
        return z * self.deviation + self.norm.running_mean


class FaceDecoder(ModelMixin, ConfigMixin):
    """z [B, d], not standardised, to a face [B, 3, ``size``, ``size``] in [-1, 1]: the encoder's layers reversed.

    Pooling becomes nearest-neighbour enlargement. ``from_mean_face``: the network draws the difference from
    the buffer ``mean_face`` (both before the final tanh) # not in the paper: shows a face after few steps.
    """

    @register_to_config
    def __init__(
        self,
        size: int = 224,
        widths: tuple[int, ...] = WIDTHS,
        depths: tuple[int, ...] = DEPTHS,
        hidden: int = 4096,
        grid: tuple[int, int, int] = (4, 32, 32),
        latent: Latent = "fc7",
        from_mean_face: bool = False,
    ) -> None:
        super().__init__()
        _check_size(size, len(widths))
        dim, self.side, inner = grid[0] * grid[1] * grid[2], size >> len(widths), widths[-1]
        self.fc7: nn.Module | None = None
        if latent == "fc7":
            self.fc7 = nn.Linear(dim, hidden)
            self.fc6 = nn.Linear(hidden, inner * self.side * self.side)
        else:
            self.project = nn.Conv2d(grid[0], inner, 1)
        outer = [*widths[-2::-1], widths[0]]  # a block ends with the channels of the one that follows
        blocks = []
        for i, depth in enumerate(reversed(depths)):
            convolutions: list[nn.Module] = []
            for j in range(depth):
                width = outer[i] if j == depth - 1 else inner
                convolutions += [nn.Conv2d(inner, width, 3, padding=1), nn.ReLU()]
                inner = width
            blocks.append(nn.Sequential(*convolutions))
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Conv2d(inner, 3, 3, padding=1)
        self.register_buffer("mean_face", torch.zeros(3, size, size))
        start_for_rectifiers(self.modules())

    def forward(self, z: Tensor) -> Tensor:
        """Faces [B, 3, size, size] in [-1, 1]."""
        if self.fc7 is not None:
            x = torch.relu(self.fc6(torch.relu(self.fc7(z)))).unflatten(1, (-1, self.side, self.side))
        else:
            x = self.project(z.unflatten(1, tuple(self.config.grid)))
            x = torch.relu(F.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=False))
        for block in self.blocks:
            x = block(F.interpolate(x, scale_factor=2))
        x = self.last(x)
        if self.config.from_mean_face:
            x = x + torch.atanh(self.mean_face.clamp(-0.98, 0.98))
        return torch.tanh(x)


def start_for_rectifiers(modules: Iterable[nn.Module]) -> None:
    """He's initialisation: without normalisation a VGG started otherwise passes on almost nothing."""
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def _check_size(size: int, halvings: int) -> None:
    if size % (1 << halvings):
        raise ValueError(f"size {size} cannot be halved {halvings} times: take a multiple of {1 << halvings}")
