"""Mouth against sound: the shift is found, its sign is right, and nothing is claimed where nothing moves."""

import numpy as np
import pytest

from preprocessing.sync import FARTHEST, correlate


def _speech(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A mouth opening [T], and int16 noise [640 T] whose level follows it."""
    opening = np.convolve(rng.random(frames + 8), np.ones(4) / 4, "valid")[:frames]
    opening = (opening - opening.min()) / (opening.max() - opening.min())
    sound = np.repeat(10 ** (2 * opening - 2), 640) * rng.normal(0, 8000, 640 * frames)
    return opening, np.clip(sound, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("shift", [-9, -1, 0, 3, 12])
def test_shift_and_sign(shift):
    opening, sound = _speech(np.random.default_rng(0), 120)
    best = correlate(opening, np.roll(sound, 640 * shift))  # above 0: the sound trails
    assert best is not None
    assert best.shift == shift
    assert best.value > 0.9
    assert best.lead > 0.3


def test_lost_frames_do_not_count():
    opening, sound = _speech(np.random.default_rng(1), 150)
    found = np.ones(150, bool)
    found[40:70] = False
    broken = np.where(found, opening, 5.0)
    assert correlate(broken, sound)[0] < 0.6
    assert correlate(broken, sound, found)[0] > 0.95
    assert correlate(broken, sound, found)[1] == 0


def test_unrelated_sound_scores_low():
    rng = np.random.default_rng(2)
    assert correlate(_speech(rng, 400)[0], _speech(rng, 400)[1])[0] < 0.4


@pytest.mark.parametrize("frames", [20, 400])
def test_nothing_to_compare(frames):
    _, sound = _speech(np.random.default_rng(3), frames)
    assert correlate(np.full(frames, 0.2), sound) is None
    assert correlate(np.random.default_rng(0).random(frames), np.zeros(640 * frames, np.int16)) is None
    assert FARTHEST == 12
