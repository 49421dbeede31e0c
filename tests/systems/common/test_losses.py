"""Shared losses against values found another way."""

import math

import torch
from torch import nn

from systems.common.losses import Contrast, detached_features, feature_distance, info_nce


def test_info_nce_of_orthogonal_pairs():
    pairs = torch.eye(3)
    expected = math.log(1 + 2 * math.exp(-5.0))  # logits 5 on the diagonal, 0 beside it
    torch.testing.assert_close(info_nce(pairs * 7, pairs, torch.tensor(5.0)), torch.tensor(expected))


def test_info_nce_is_symmetric_and_knows_order():
    torch.manual_seed(0)
    a = torch.randn(5, 8)
    b = a + 0.1 * torch.randn(5, 8)
    scale = torch.tensor(10.0)
    torch.testing.assert_close(info_nce(a, b, scale), info_nce(b, a, scale))
    assert info_nce(a, b, scale) < info_nce(a, b.roll(1, 0), scale)


def test_temperature_stays_above_a_hundredth():
    a, contrast = torch.randn(4, 8), Contrast()
    nn.init.constant_(contrast.log_scale, 50.0)
    torch.testing.assert_close(contrast(a, a.roll(1, 0)), info_nce(a, a.roll(1, 0), torch.tensor(100.0)))


def test_feature_distance_by_hand():
    ours, theirs = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    ours[0, :, 0, 0], theirs[0, :, 0, 0] = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 5.0])  # at right angles: 2
    ours[0, :, 0, 1], theirs[0, :, 0, 1] = torch.tensor([1.0, 1.0]), torch.tensor([4.0, 4.0])  # alike: 0
    torch.testing.assert_close(feature_distance([ours], [theirs]), torch.tensor([1.0]))
    torch.testing.assert_close(feature_distance([ours, ours], [theirs, theirs]), torch.tensor([2.0]))


def test_detached_features_reach_the_images_alone():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def features(self, images):
            return [self.conv(images)]

    network, images = Network(), torch.randn(1, 3, 8, 8, requires_grad=True)
    detached_features(network, images)[0].sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())
