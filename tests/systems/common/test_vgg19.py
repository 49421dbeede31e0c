"""VGG-19: never random in silence, published names, two scales as eq. (13) of G4G has them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from contracts.errors import Misuse
from systems.common.vgg19 import VGG19, two_scale_distance


def test_its_layers_have_the_published_shapes() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in VGG19().state_dict().items()}
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert sum(name.endswith("weight") for name in shapes) == 13


def test_without_its_weights_there_is_none(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    for path in (tmp_path / "w.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(Misuse, match="holds no VGG-19"):
            VGG19.load(path)


def test_the_distance_is_the_mean_over_layers_and_scales() -> None:
    def features(x: torch.Tensor) -> list[torch.Tensor]:
        return [x, 3 * F.avg_pool2d(x, 2)]

    a, b = torch.rand(2, 3, 16, 16, requires_grad=True), torch.rand(2, 3, 16, 16, requires_grad=True)
    expected = 0.0
    for scale in (1, 2):
        small = [
            F.interpolate(x, size=16 // scale, mode="bilinear", antialias=True) if scale > 1 else x for x in (a, b)
        ]
        for one, other in zip(features(small[0]), features(small[1])):
            expected += float((one - other).detach().abs().sum() / one.numel()) / 4
    found = two_scale_distance(features, a, b)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert a.grad is not None
    assert b.grad is None
