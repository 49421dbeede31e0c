"""Mel columns against their definition, windows against the frames they are of."""

import numpy as np
import torch

from contracts.speech import mel_filters
from systems.common.mel import mel_columns, mel_windows


def noise(samples: int) -> torch.Tensor:
    return torch.rand(samples, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5


def test_a_column_is_the_transform_by_definition() -> None:
    audio, column = noise(600 + 200 * 7), 4
    piece = audio[200 * column : 200 * column + 800].numpy()
    n = np.arange(800)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 800)
    spectrum = np.array([abs(np.sum(piece * hann * np.exp(-2j * np.pi * k * n / 800))) for k in range(401)])
    expected = np.log(np.maximum(mel_filters(800) @ spectrum, 1e-5))
    columns = mel_columns(audio)
    assert columns.shape == (7, 80)
    np.testing.assert_allclose(columns[column].numpy(), expected, rtol=1e-6)


def test_a_click_is_heard_in_the_windows_of_its_five_frames_alone() -> None:
    audio = torch.zeros(1, 640 * (20 + 6))
    frame = 9
    audio[0, 640 * (3 + frame) + 320] = 1.0
    windows = mel_windows(audio)
    assert windows.shape == (1, 20, 16, 80)
    heard = (windows.amax((2, 3)) > np.log(1e-4))[0].nonzero().flatten().tolist()
    assert heard == [frame - 2, frame - 1, frame, frame + 1, frame + 2]
    # the window of the frame itself has it in its middle
    loudest = windows[0, frame].amax(1).argsort(descending=True)[:2].sort().values.tolist()
    assert loudest == [7, 8]


def test_windows_of_a_longer_sound_are_the_same() -> None:
    audio = noise(640 * 40)
    torch.testing.assert_close(mel_windows(audio)[10:14], mel_windows(audio[640 * 10 : 640 * 20]))
