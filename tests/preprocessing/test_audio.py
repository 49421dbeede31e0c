"""Level, silence and clipping of sounds whose values are known."""

import numpy as np
import pytest

from preprocessing.audio import clipping, energy, level_swing, loudness, silence


def sine(amplitude: float, samples: int = 16000) -> np.ndarray:
    return np.rint(32768 * amplitude * np.sin(2 * np.pi * 250 * np.arange(samples) / 16000)).astype(np.int16)


def test_loudness_of_a_sine_is_3_db_below_its_peak():
    assert loudness(sine(0.5)) == pytest.approx(-6.02 - 3.01, abs=0.01)
    assert loudness(sine(0.05)) == pytest.approx(-26.02 - 3.01, abs=0.01)


def test_digital_silence_is_finite():
    quiet = np.zeros(1280, np.int16)
    assert loudness(quiet) == -100.0
    assert silence(quiet) == 1.0
    assert clipping(quiet) == 0.0


def test_no_sound_at_all():
    nothing = np.zeros(0, np.int16)
    assert (loudness(nothing), silence(nothing), clipping(nothing)) == (-100.0, 1.0, 0.0)
    assert energy(nothing).shape == (0,)


def test_silence_counts_frames_below_50_db():
    # -49 dBFS is no silence, -51 dBFS is: sine amplitudes with that root mean square
    louder, quieter = (sine(np.sqrt(2) * 10 ** (level / 20), 6400) for level in (-49, -51))
    assert silence(louder) == 0.0
    assert silence(quieter) == 1.0
    assert silence(np.concatenate([louder, quieter, quieter, quieter])) == 0.75


def test_clipping_counts_both_signs():
    sound = np.array([0, 32767, -32768, -32767, 32766, 100, 0, 0], np.int16)
    assert clipping(sound) == 3 / 8


def test_energy_is_one_value_per_frame():
    sound = np.concatenate([np.full(640, 16384), np.zeros(640), np.full(640, -32768)]).astype(np.int16)
    np.testing.assert_allclose(energy(sound), [0.5, 0.0, 1.0])
    assert energy(sound).dtype == np.float32
    np.testing.assert_allclose(energy(np.full(650, 8192, np.int16)), [0.25, 0.25])  # a last part counts, too


def test_a_tone_has_no_swing_and_syllables_have():
    t = np.arange(640 * 75) / 16000
    tone = (9000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    assert level_swing(tone) < 1
    syllables = (tone * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)) ** 2).astype(np.int16)
    assert level_swing(syllables) > 10
    assert level_swing(np.zeros(0, np.int16)) == level_swing(np.zeros(6400, np.int16)) == 0.0
