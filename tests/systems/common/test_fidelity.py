import torch

from systems.common.fidelity import bicubic_from_grid, correlation, psnr


def test_psnr_by_hand() -> None:
    a = torch.zeros(1, 3, 4, 4)
    torch.testing.assert_close(psnr(a, a + 0.2), torch.tensor([20.0]))  # error 0.04 against a peak of 2


def test_bicubic_keeps_what_is_even_and_loses_what_is_fine() -> None:
    even = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(bicubic_from_grid(even, 4), even)
    fine = torch.ones(16, 16)
    fine[:, ::2] = -1
    assert bicubic_from_grid(fine.expand(1, 3, 16, 16), 4).abs().max() < 0.2


def test_correlation() -> None:
    time = torch.linspace(0, 6, 30)
    a = torch.stack([time.sin(), time.sin(), time.sin(), torch.ones(30)])
    b = torch.stack([3 * time.sin() + 1, -time.sin(), (2 * time).cos(), time.sin()])
    found = correlation(a, b)
    expected = torch.corrcoef(torch.stack([a[2], b[2]]))[0, 1]
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0, float(expected), 0.0]))
