import numpy as np
import pytest
import torch
from contract import TrainedContract

from systems.av_prior.disentangle import Disentangle
from systems.av_prior.face_representation import FaceRepresentation
from systems.av_prior.nonlip_prior import NonlipPrior, simple_loss, velocity_loss
from systems.av_prior.prior_network import AutoregressivePrior, DiffusionPrior
from systems.av_prior.prior_sampling import add_noise, draw_window, guide, make_scheduler, roll_out, windows

FRAMES, WIDTH = 12, 3


class TestNonlipPrior(TrainedContract):
    system = "av_prior"
    stage = NonlipPrior
    items = 2
    lineage = (FaceRepresentation, Disentangle)
    changes = {"frames": 16, "repeats": 2, "sampling_steps": 3}  # noqa: RUF012
    no_gradient = ("prior.nothing",)  # a tenth of few sequences may be none
    batch_measures = ("var_shuffled", "fid_fm_shuffled", "fid_dfm_shuffled", "snd_shuffled", "snd_trivial")


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_prior(relative: bool = True, editing: bool = True) -> DiffusionPrior:
    torch.manual_seed(0)
    prior = DiffusionPrior(WIDTH, 4, 16, 1, 2, 32, FRAMES, relative, steps=6, guidance=1.0, editing=editing)
    prior.deviation.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return prior.eval()


def first_known() -> torch.Tensor:
    mask = torch.zeros(1, FRAMES)
    mask[:, 0] = 1
    return mask


def draw(prior: DiffusionPrior, known: torch.Tensor, mask: torch.Tensor, seed: int = 0, scale: float = 1.0):
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(known))]
    f_a = draws(1, FRAMES, 4, seed=5).expand(len(known), -1, -1)
    return draw_window(prior, f_a, known, mask, generators, guidance=scale)


def test_losses_are_equations_7_and_8() -> None:
    ours, clean = draws(2, 5, 3), draws(2, 5, 3, seed=1)
    a, b = ours.double().numpy(), clean.double().numpy()
    simple = np.mean([np.linalg.norm(b[i, k] - a[i, k]) for i in range(2) for k in range(5)])
    steps = [np.linalg.norm((a[i, k] - a[i, k - 1]) - (b[i, k] - b[i, k - 1])) for i in range(2) for k in range(1, 5)]
    np.testing.assert_allclose(float(simple_loss(ours, clean)), simple, rtol=1e-5)
    np.testing.assert_allclose(float(velocity_loss(ours, clean)), np.sum(steps) / 2 / 4, rtol=1e-5)


def test_the_process_is_equation_6_and_ends_in_noise() -> None:
    alphas = make_scheduler().alphas
    n, keep = torch.tensor(1.0), torch.tensor(1.0)
    for alpha in alphas[:400]:  # the mean of equation (6), step after step
        n, keep = alpha.sqrt() * n, keep * alpha
    noised = add_noise(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.tensor([399]))
    torch.testing.assert_close(noised[0, 0, 0], n)
    torch.testing.assert_close(n.square(), keep)
    assert make_scheduler().alphas_cumprod[-1] < 1e-4


def test_guidance_is_equation_10() -> None:
    torch.testing.assert_close(guide(torch.tensor(3.0), torch.tensor(1.0), 2.5), torch.tensor(2.5 * 3 - 1.5 * 1))
    prior, known, mask = make_prior(), draws(1, FRAMES, WIDTH), first_known()
    assert not torch.equal(draw(prior, known, mask), draw(prior, known, mask, scale=3.0))
    torch.nn.init.zeros_(prior.speech.weight)
    torch.nn.init.zeros_(prior.speech.bias)  # speech says what ∅ says: nothing to move away from
    torch.testing.assert_close(draw(prior, known, mask), draw(prior, known, mask, scale=3.0))


@pytest.mark.parametrize("editing", [True, False])
def test_what_is_known_stays_to_the_bit_and_the_rest_is_drawn(editing: bool) -> None:
    prior, known = make_prior(editing=editing), draws(2, FRAMES, WIDTH, seed=3)
    mask = torch.ones(2, FRAMES)
    mask[:, 4:8] = 0
    first, other = draw(prior, known, mask), draw(prior, known, mask, seed=9)
    assert torch.equal(first[:, :4], known[:, :4])
    assert torch.equal(first[:, 8:], known[:, 8:])
    assert not torch.equal(first[:, 4:8], other[:, 4:8])
    assert torch.equal(first, draw(prior, known, mask))


def test_where_no_speech_is_told_it_is_not_heard_and_nothing_is_learnt_instead() -> None:
    prior, n, t = make_prior(), draws(2, FRAMES, WIDTH), torch.tensor([500, 500])
    mask, told = torch.zeros(2, FRAMES), torch.tensor([1.0, 0.0])
    one, other = (prior(n, t, draws(2, FRAMES, 4, seed=s), told, n, mask, n[:, 0]) for s in (1, 2))
    assert not torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    one[0].sum().backward(retain_graph=True)
    assert prior.nothing.grad is None or not prior.nothing.grad.any()
    one[1].square().sum().backward()
    assert prior.nothing.grad.any()


def test_with_a_network_that_knows_the_answer_sampling_gives_it_back() -> None:
    answer = draws(1, FRAMES, WIDTH, seed=4)

    class Oracle(DiffusionPrior):
        def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
            return answer

    oracle = Oracle(WIDTH, 4, 16, 1, 2, 32, FRAMES, relative=False, steps=7, guidance=1.0)
    torch.testing.assert_close(draw(oracle, 0 * answer, torch.zeros(1, FRAMES)), answer)


def test_a_relative_prior_moves_with_its_reference() -> None:
    prior, known, mask = make_prior(), draws(1, FRAMES, WIDTH), first_known()
    torch.nn.init.zeros_(prior.level.weight)  # what else the level tells it
    torch.testing.assert_close(draw(prior, known + 5, mask), draw(prior, known, mask) + 5, atol=1e-4, rtol=1e-4)


def test_the_rival_sees_no_future() -> None:
    torch.manual_seed(0)
    rival = AutoregressivePrior(WIDTH, 4, 16, 2, 2, 32, FRAMES, True).eval()
    before, f_a = draws(1, 8, WIDTH), draws(1, 8, 4, seed=1)
    changed = before.clone()
    changed[:, 5:] += 1
    ours, later = rival(before, f_a), rival(changed, f_a)
    torch.testing.assert_close(ours[:, :5], later[:, :5])
    assert not torch.allclose(ours[:, 5:], later[:, 5:])


def test_rolled_out_each_frame_follows_from_those_before() -> None:
    torch.manual_seed(0)
    rival = AutoregressivePrior(WIDTH, 4, 16, 1, 2, 32, FRAMES, False).eval()
    known, f_a, mask = draws(1, FRAMES, WIDTH), draws(1, FRAMES, 4, seed=1), torch.zeros(1, FRAMES)
    mask[:, [0, 6]] = 1
    made = roll_out(rival, f_a, known, mask)
    assert torch.equal(made[:, [0, 6]], known[:, [0, 6]])
    with torch.no_grad():
        torch.testing.assert_close(rival(made[:, :-1], f_a[:, 1:])[:, -1], made[:, -1])


def test_windows_cover_what_is_not_known_and_see_what_follows() -> None:
    mask = torch.zeros(70)
    assert list(windows(mask, 32)) == [(0, 32), (31, 63), (62, 70)]
    mask[:20] = mask[51:] = 1
    # a window that ended with the span would not see what comes after it
    assert list(windows(mask, 32)) == [(19, 35), (34, 66)]
    assert list(windows(torch.ones(9), 4)) == []
    for first, end in ((0, 1), (3, 30), (38, 40), (10, 41), (69, 70)):
        mask = torch.ones(70)
        mask[first:end] = 0
        covered = torch.zeros(70)
        for start, stop in windows(mask, 32):
            covered[start:stop] = 1
            assert stop - start <= 32
        assert (covered[first:end] == 1).all()
        assert end == 70 or covered[end] == 1


def test_without_editing_nothing_is_shown_and_else_a_tenth() -> None:
    rng = torch.Generator().manual_seed(0)
    assert not NonlipPrior.preset("tiny", editing=False)._draw_mask(30, 32, rng).any()
    mask = NonlipPrior.preset("paper")._draw_mask(3000, 64, rng)
    shown = mask.float().sum(1)
    assert 0.3 < (shown == 0).float().mean() < 0.37
    assert 0.3 < ((shown == 1) & mask[:, 0]).float().mean() < 0.38
    assert 0.08 < mask[shown > 1].float().mean() < 0.12
