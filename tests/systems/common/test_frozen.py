"""Frozen networks keep their statistics."""

import torch
from torch import nn

from systems.common.frozen import Frozen


def test_statistics_stay_while_the_model_trains():
    model = nn.ModuleDict({"parent": Frozen({"norm": nn.BatchNorm1d(2)}), "own": nn.BatchNorm1d(2)}).train()
    x = torch.randn(8, 2) + 5
    model["parent"]["norm"](x)
    model["own"](x)
    assert model["own"].training
    assert not model["parent"]["norm"].training
    assert model["parent"]["norm"].running_mean.abs().sum() == 0
    assert model["own"].running_mean.abs().sum() > 0
    assert not any(p.requires_grad for p in model["parent"].parameters())
