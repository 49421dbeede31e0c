"""Networks of earlier stages inside a later one: never trained, never in training mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import nn


class Frozen(nn.ModuleDict):
    """Networks by name that stay in eval mode whatever mode the model around them is put in.

    Else ``model.train()`` would let batch normalisation of a frozen encoder go on learning.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__(dict(networks.items()))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)
