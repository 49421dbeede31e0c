import numpy as np
import torch
from contract import TrainedContract

from systems.av_prior.disentangle import Disentangle
from systems.av_prior.face_representation import FaceRepresentation
from systems.av_prior.readers import LinearTelling
from systems.av_prior.spaces import MemoryBanks, contrastive_loss, orthogonal_loss, pearson


class TestDisentangle(TrainedContract):
    system = "av_prior"
    stage = Disentangle
    items = 2
    lineage = (FaceRepresentation,)
    changes = {"moments": 6, "painted": 1, "audio_channels": (8, 8, 12)}  # noqa: RUF012


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_contrastive_loss_is_equation_2_as_printed() -> None:
    m, n = draws(1, 5, 7), draws(1, 5, 7, seed=1)

    def l_con(a: np.ndarray, b: np.ndarray) -> float:
        total = 0.0
        for i in range(len(a)):
            cosines = [a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j]) for j in range(len(b))]
            total -= np.log(np.exp(cosines[i]) / np.exp(cosines).sum())
        return total / len(a)

    a, b = (x[0].double().numpy() for x in (m, n))
    expected = (l_con(a, b) + l_con(b, a)) / 2
    np.testing.assert_allclose(float(contrastive_loss(m, n, tau=1.0)), expected, rtol=1e-5)
    two = contrastive_loss(torch.cat([m, n]), torch.cat([n, n]), 0.07)
    each = [contrastive_loss(m, n, 0.07), contrastive_loss(n, n, 0.07)]
    torch.testing.assert_close(two, (each[0] + each[1]) / 2, msg="moments of another video are no negatives")


def test_the_orthogonal_loss_is_equation_3() -> None:
    f_ol, f_a = draws(40, 6), draws(40, 4, seed=1)
    f_ol[:, 0] += 2 * f_a[:, 1]
    expected = sum(np.corrcoef(f_ol[:, i], f_a[:, j])[0, 1] ** 2 for i in range(6) for j in range(4)) / 6
    np.testing.assert_allclose(float(orthogonal_loss(f_ol, f_a)), expected, rtol=1e-4)
    assert torch.equal(pearson(torch.ones(9, 1), draws(9, 1)), torch.zeros(1, 1)), "what stands still tells nothing"


def test_banks_hold_the_last_pairs_and_only_they_grow_the_sample() -> None:
    banks, steps = MemoryBanks(5, 3, 2), [(draws(2, 3, seed=s), draws(2, 2, seed=s + 9)) for s in range(4)]
    for number, step in enumerate(steps):
        assert len(banks.joined(*step)[0]) == 2 + min(2 * number, 5)
        banks.remember(*step)
    expected = torch.cat([steps[3][0], steps[2][0], steps[1][0][:1]])
    assert torch.equal(banks.f_ol, expected)
    assert torch.equal(banks.f_a, torch.cat([steps[3][1], steps[2][1], steps[1][1][:1]]))
    empty = MemoryBanks(0, 3, 2)
    empty.remember(*steps[0])
    assert torch.equal(empty.joined(*steps[1])[0], steps[1][0])


def test_gradients_of_the_orthogonal_loss_stop_at_the_memory() -> None:
    banks = MemoryBanks(4, 3, 2)
    banks.remember(draws(4, 3), draws(4, 2, seed=1))
    f_ol = draws(3, 3, seed=2).requires_grad_()
    orthogonal_loss(*banks.joined(f_ol, draws(3, 2, seed=3))).backward()
    assert f_ol.grad is not None
    assert f_ol.grad.abs().sum() > 0
    assert not banks.f_ol.requires_grad


def test_following_batches_is_least_squares() -> None:
    x = draws(200, 4)
    y = 3 + x @ draws(4, 2, seed=1) + 0.1 * draws(200, 2, seed=2)
    telling = LinearTelling(4, 2, fade=0.5, ridge=0.0).double()
    for _ in range(40):  # the same pairs again and again: their own moments
        telling.follow(x.double(), y.double())
    weights = np.linalg.lstsq(np.c_[np.ones(200), x], y, rcond=None)[0]
    expected = np.c_[np.ones(200), x] @ weights
    np.testing.assert_allclose(telling(x.double()).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(telling.mean().numpy(), y.mean(0), atol=1e-4)
