import torch
import torch.nn.functional as F

from systems.see_the_speaker.lip_motion import INNER_BOTTOM, INNER_TOP, Mouth, lip_displacement, opened_share
from systems.see_the_speaker.lip_refiner import LipGuider


def make_lips(opening: float) -> torch.Tensor:
    """Lips [1, 40, 2] in 0..1 of the picture: two rings about (0.5, 0.7), the inner one open by ``opening``."""
    angle = torch.arange(20) / 20 * 2 * torch.pi
    ring = torch.stack([-angle.cos(), angle.sin()], 1)  # from the right corner along the bottom, as mediapipe's
    outer = ring * torch.tensor([0.1, 0.03 + opening / 2])
    inner = ring * torch.tensor([0.08, opening / 2])
    return torch.cat([outer, inner])[None] + torch.tensor([0.5, 0.7])


def test_lips_are_led_to_where_they_should_be() -> None:
    source, target = make_lips(0.01), make_lips(0.06)
    flow = 0.02 * torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    led = F.interpolate(flow, size=(64, 64), mode="bilinear", align_corners=False)
    led = led + lip_displacement(flow, source, target, torch.tensor([0.25]), 64)
    before, after = (
        (F.grid_sample(x, (2 * target - 1)[:, None], align_corners=False)[:, :, 0].mT - 2 * (source - target)).abs()
        for x in (flow, led)
    )
    assert after.mean() < 0.3 * before.mean()


def test_what_is_far_from_the_lips_is_left_alone() -> None:
    led = lip_displacement(torch.zeros(1, 2, 8, 8), make_lips(0.0), make_lips(0.1), torch.tensor([0.25]), 64)
    assert led[:, :, :24].abs().max() < 1e-3 * led.abs().max()


def test_a_mouth_darkens_between_its_lips_only_as_far_as_the_source_was_shut() -> None:
    image, shut, wide = torch.ones(1, 3, 64, 64), make_lips(0.0), make_lips(0.1)
    dark = torch.tensor([-0.5, -0.8, -0.8])
    painted = Mouth(wide, opened_share(shut, wide), dark).paint(image)
    torch.testing.assert_close(painted[0, :, 45, 32], dark, atol=0.05, rtol=0)
    torch.testing.assert_close(painted[:, :, :36], image[:, :, :36], atol=1e-2, rtol=0)
    assert torch.equal(Mouth(wide, opened_share(wide, wide), dark).paint(image), image)


def test_the_rings_run_from_corner_to_corner() -> None:
    lips = make_lips(0.1)[0]
    assert lips[list(INNER_TOP), 1].mean() < 0.7 < lips[list(INNER_BOTTOM), 1].mean()


def test_the_guider_learns_to_read_an_opening() -> None:
    guider, many = LipGuider(4, 4, 16, 4, 6), 96
    opening = torch.linspace(0.0, 0.1, many)
    lips = torch.cat([make_lips(float(x)) for x in opening])
    image = torch.cat(
        [Mouth(x[None], torch.ones(1), torch.tensor([-1.0] * 3)).paint(torch.ones(1, 3, 64, 64)) for x in lips]
    )
    frame = torch.tensor([0.5, 0.5, -1.4, 0.0]).expand(many, -1)
    free = (lips - frame[:, None, :2]) / frame[:, 2].exp()[:, None, None]
    guider.mean_lips.copy_(free.mean(0))
    guider.deviation_lips.copy_(free.std(0).clamp_min(1e-3))
    guider.learn_to_read(image[::2], frame[::2], free[::2], free.flip(0)[::2])
    own, _ = guider.read(image[1::2], frame[1::2])
    assert (own - free[1::2]).abs().mean() < 0.3 * (free[1::2] - guider.mean_lips).abs().mean()
