"""A trained stage without batch statistics and dropout, which depend on who computes which items."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD

RATE = 0.1  # at three times as much the toy coder diverges


class Plain:
    """Any toy stage, its norms and dropout taken out; SGD, because Adam divides by what may be rounding alone."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)

    def build_model(self, parents: Any) -> nn.ModuleDict:
        model = self.stage.build_model(parents)
        for network in model.values():
            for layers in [each for each in network.modules() if isinstance(each, nn.Sequential)]:
                for number, layer in enumerate(layers):
                    if isinstance(layer, (nn.BatchNorm1d, nn.Dropout)):
                        layers[number] = nn.Identity()
        return model

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Any]:
        return {"main": SGD(model.parameters(), lr=RATE)}
