"""Equations (5) to (12) and LS-GAN against direct computation, number by number."""

import math

import pytest
import torch

from systems.g4g.adversary import critic_loss, generator_loss
from systems.g4g.alignment import InterAlignment, adain, attribute_loss, diagonal_contrast
from systems.g4g.deformation import Coefficients, deform
from systems.g4g.expert import SyncExpert


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


def test_adain_gives_each_channel_its_new_mean_and_deviation() -> None:
    x, sigma, mu = torch.randn(2, 3, 50) * 4 + 1, torch.rand(2, 3) + 0.5, torch.randn(2, 3)
    y = adain(x, sigma, mu)
    torch.testing.assert_close(y.mean(2), mu, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(y.std(2, unbiased=False), sigma, atol=1e-4, rtol=1e-4)
    i, c, k = 1, 2, 17
    row = x[i, c]
    by_hand = sigma[i, c] * (row[k] - row.mean()) / row.std(unbiased=False) + mu[i, c]  # (5)
    assert float(y[i, c, k]) == pytest.approx(float(by_hand), rel=1e-4)


def test_the_contrast_is_the_cross_entropy_of_its_print() -> None:
    n, tau = 4, 0.2
    v, a, others = (torch.nn.functional.normalize(torch.randn(m, 6), dim=1) for m in (n, n, 3))
    loss = diagonal_contrast(v, a, others, torch.tensor(1 / tau))
    columns = torch.cat([a, others])
    total = 0.0
    for i in range(n):
        p_va = math.exp(float(v[i] @ a[i]) / tau) / sum(math.exp(float(v[i] @ c) / tau) for c in columns)  # (6), (8)
        p_av = math.exp(float(a[i] @ v[i]) / tau) / sum(math.exp(float(a[i] @ c) / tau) for c in v)  # (7), (9)
        total += -(math.log(p_va) + math.log(p_av))  # (10)
    assert float(loss) == pytest.approx(total / (2 * n), rel=1e-5)


def test_the_contrast_begins_with_the_expert_s_heads_and_leaves_the_expert_alone() -> None:
    expert = SyncExpert().requires_grad_(False)
    inter = InterAlignment(expert)
    assert torch.equal(inter.g_v.weight, expert.g_v.weight)
    assert all(p.requires_grad for p in inter.parameters())
    width = expert.config.width
    inter(torch.randn(3, width), torch.randn(3, width), torch.randn(2, width)).backward()
    assert inter.g_a.weight.grad is not None
    assert expert.g_a.weight.grad is None


@pytest.mark.parametrize("theta", [0.0, 0.4, -2.0])
def test_deformation_reads_where_eq_11_says(theta: float) -> None:
    """A smooth map is its own function at the transformed place: rotation, scale and shift per channel."""
    h, w, s, t = 80, 60, 0.8, (0.05, -0.1)
    wide = w / h

    def bump(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(-8 * ((x - 0.1) ** 2 + (y + 0.05) ** 2)) + 0.3 * x

    y, x = torch.meshgrid((torch.arange(h) * 2 + 1) / h - 1, ((torch.arange(w) * 2 + 1) / w - 1) * wide, indexing="ij")
    maps = torch.stack([bump(x, y), torch.ones(h, w)])[None]
    angles, scales = torch.tensor([[theta, 0.0]]), torch.tensor([[s, 1.0]])
    shifts = torch.tensor([[t, (0.0, 0.0)]])
    result = deform(maps, angles, scales, shifts)
    x_hat = s * math.cos(theta) * x - s * math.sin(theta) * y + t[0]
    y_hat = s * math.sin(theta) * x + s * math.cos(theta) * y + t[1]
    inside = (x_hat.abs() < wide * 0.95) & (y_hat.abs() < 0.95)
    torch.testing.assert_close(result[0, 0][inside], bump(x_hat, y_hat)[inside], atol=5e-3, rtol=0)
    torch.testing.assert_close(result[0, 1], maps[0, 1])  # the other channel has an affine of its own


def test_coefficients_begin_near_the_identity_and_stay_in_their_ranges() -> None:
    layer = Coefficients(10, 16, 256)
    theta, scale, shift = layer(torch.randn(2, 10))
    assert theta.shape == scale.shape == (2, 256)
    assert shift.shape == (2, 256, 2)
    assert theta.abs().max() < 0.1
    assert (scale - 1).abs().max() < 0.1
    layer.out.weight.data.mul_(1e6)
    theta, scale, shift = layer(torch.randn(2, 10))
    assert theta.abs().max() <= math.pi
    assert 0 <= scale.min() <= scale.max() <= 2
    assert shift.abs().max() <= 1


def test_attribute_loss_is_one_less_the_cosine() -> None:
    l_r = torch.randn(3, 8)
    torch.testing.assert_close(attribute_loss(2 * l_r, l_r), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(attribute_loss(-l_r, l_r), torch.full((3,), 2.0))
    a = torch.randn(3, 8)
    by_hand = 1 - (a[1] * l_r[1]).sum() / (a[1].norm() * l_r[1].norm())  # (12)
    assert float(attribute_loss(a, l_r)[1]) == pytest.approx(float(by_hand), rel=1e-5)


def test_least_squares_of_both_sides() -> None:
    real, fake = [torch.tensor([0.5, 1.0])], [torch.tensor([0.25, 0.0])]
    assert float(generator_loss(fake)) == pytest.approx((0.75**2 + 1.0) / 2)
    assert float(critic_loss(real, fake)) == pytest.approx(((0.25 + 0.0) / 2 + (0.0625 + 0.0) / 2) / 2)
    assert float(generator_loss([torch.ones(3)])) == 0.0
    assert float(critic_loss([torch.ones(3)], [torch.zeros(3)])) == 0.0
