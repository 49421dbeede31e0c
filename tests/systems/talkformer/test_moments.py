import pytest
import torch

from systems.talkformer.moments import Moments


def test_in_parts_as_in_one_go() -> None:
    values = torch.randn(10, 4, 3)
    moments = Moments()
    with pytest.raises(ValueError, match="no values"):
        _ = moments.mean
    for part in values.split(3):
        moments.add(part)
    flat = values.double().flatten(0, 1)
    torch.testing.assert_close(moments.mean, flat.mean(0))
    torch.testing.assert_close(moments.deviation, flat.std(0, correction=0))
    torch.testing.assert_close(moments.mean_square, flat.square().mean(0))


def test_the_last_axes_are_kept() -> None:
    moments = Moments(axes=2)
    moments.add(torch.ones(5, 2, 4, 3))
    assert moments.mean.shape == (4, 3)
    assert moments.count == 10
