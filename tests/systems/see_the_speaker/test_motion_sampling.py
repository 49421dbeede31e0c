import torch

from systems.see_the_speaker.motion_sampling import add_noise, kept, make_motion_scheduler, sample_window
from systems.see_the_speaker.motion_unet import MotionUNet


def make_unet(relative: bool = True) -> MotionUNet:
    torch.manual_seed(0)
    unet = MotionUNet(
        width=4, speech="mel", speech_width=6, channels=16, multipliers=(1, 2), blocks=1, heads=2,
        relative=relative, from_gaussian=True, frames=16, overlap=4, context=2, steps=8,
    )  # fmt: skip
    unet.deviation.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    return unet.eval()


def draw(unet: MotionUNet, known: torch.Tensor, held: int, seed: int = 0, steps: int = 8) -> torch.Tensor:
    mask = (torch.arange(16) < held).float().expand(len(known), -1)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(known))]
    return sample_window(unet, torch.zeros(len(known), 20 * 640), known, mask, known[:, 0], generators, steps)


def test_the_schedule_is_that_of_adm() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000)
    torch.testing.assert_close(kept(torch.tensor([0, 999])), torch.cumprod(1 - betas, 0)[[0, 999]])
    assert make_motion_scheduler(8).timesteps[0] == 999


def test_noising_keeps_unit_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(8, 64, 32, generator=generator) for _ in range(2))
    for keep in (0.1, 0.5, 0.9):
        assert abs(add_noise(x, noise, torch.full((8,), keep)).var() - 1) < 0.03


def test_known_frames_stay_and_the_rest_is_drawn() -> None:
    unet, known = make_unet(), torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(1))
    first, other = draw(unet, known, 4), draw(unet, known, 4, seed=9)
    assert torch.equal(first[:, :4], known[:, :4])
    assert not torch.equal(first[:, 4:], other[:, 4:])
    assert torch.equal(first, draw(unet, known, 4))


def test_untrained_it_draws_from_the_gaussian_it_starts_from() -> None:
    """Here white noise; displacements start at the reference."""
    unet, known = make_unet(), torch.zeros(64, 16, 4)
    known[:, 0] = 100.0
    drawn = draw(unet, known, 1, steps=50)[:, 1:] - 100.0
    torch.testing.assert_close(drawn.flatten(0, 1).std(0), unet.deviation, rtol=0.1, atol=0)


def test_the_closed_form_is_conditioning_of_gaussians() -> None:
    """Against the textbook formula, for the noised frames and the known one written out as observations."""
    unet, generator = make_unet(), torch.Generator().manual_seed(0)
    time = torch.arange(16)
    unet.covariance.copy_(torch.exp(-(time[:, None] - time).abs() / 4))
    x = torch.linalg.cholesky(unet.covariance) @ torch.randn(2, 16, 4, generator=generator)
    noise, keep = torch.randn(2, 16, 4, generator=generator), torch.tensor([0.3, 0.8])
    mask = (time < 1).float().expand(2, -1)
    noised = add_noise(x, noise, keep)
    ours = unet.gaussian(noised, keep, x, mask)
    for item in range(2):
        a = keep[item]
        drawn = a.sqrt() * torch.eye(16)
        drawn[0] = torch.eye(16)[0]
        spread = (1 - a) * torch.eye(16)
        spread[0, 0] = 1e-4
        y = torch.cat([x[item, :1], noised[item, 1:]])
        covariance = drawn @ unet.covariance @ drawn.T + spread
        x_0 = unet.covariance @ drawn.T @ torch.linalg.solve(covariance, y)
        expected = (noised[item] - a.sqrt() * x_0) / (1 - a).sqrt()
        torch.testing.assert_close(ours[item], expected, atol=2e-3, rtol=1e-3)


def test_standardising_is_undone() -> None:
    z, reference = torch.randn(2, 16, 4), torch.randn(2, 4)
    for relative in (True, False):
        unet = make_unet(relative)
        torch.testing.assert_close(unet.restore(unet.standardise(z, reference), reference), z)
