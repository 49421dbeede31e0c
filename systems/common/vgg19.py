"""VGG-19 as a loss network: features after its activations, with published weights or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.errors import Misuse

PLAN = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)  # 0: pooling
TAPS = (1, 6, 11, 20, 29)  # relu1_1 to relu5_1, as layers of torchvision's ``features``


class VGG19(nn.Module):
    """The convolutions of VGG-19 (Simonyan & Zisserman 2015), frozen, with torchvision's names."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in PLAN:
            if outputs:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: TAPS[-1] + 1])
        # of ImageNet, for pictures in [-1, 1]
        self.register_buffer("mean", 2 * torch.tensor([0.485, 0.456, 0.406])[:, None, None] - 1)
        self.register_buffer("deviation", 2 * torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path) -> VGG19:
        """The network with the published weights (safetensors, torchvision's names). Raises ``Misuse`` where they do
        not fit: a loss network is never random in silence."""
        from safetensors.torch import load_file

        network = cls()
        try:
            weights = load_file(path)
            wanted = [name for name in network.state_dict() if name.startswith("features.")]
            network.load_state_dict({name: weights[name] for name in wanted}, strict=False)
        except Exception as error:
            raise Misuse(f"{path} holds no VGG-19 in safetensors with torchvision's names: {error}") from None
        return network.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in [-1, 1] -> maps after relu1_1 to relu5_1."""
        x, maps = (images - self.mean) / self.deviation, []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in TAPS:
                maps.append(x)
        return maps


def two_scale_distance(features: object, ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean absolute difference of feature maps, over layers and over full and half size: a scalar.

    ``features`` maps images [B, 3, H, W] to a list of maps; no gradient reaches ``theirs``.
    """
    total, theirs = ours.new_zeros(()), theirs.detach()
    for scale in (1.0, 0.5):
        pair = [
            x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)
            for x in (ours, theirs)
        ]
        with torch.no_grad():
            real = features(pair[1])  # type: ignore[operator]
        made = features(pair[0])  # type: ignore[operator]
        total = total + torch.stack([(a - b).abs().mean() for a, b in zip(made, real, strict=True)]).mean() / 2
    return total
