"""Spectrogram and log-mel against values computed by hand."""

import numpy as np
import pytest

from contracts.speech import log_mel, mel_filters, power_spectrogram, six_seconds


def noise(length: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-0.5, 0.5, length).astype(np.float32)


def tone(hertz: float, length: int) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(length) / 16000).astype(np.float32)


def dft(samples: np.ndarray, bin_: int) -> complex:
    """One bin of the 512-point transform of 400 Hann-weighted samples, by its definition."""
    n = np.arange(400)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    return complex(np.sum(samples * hann * np.exp(-2j * np.pi * bin_ * n / 512)))


def test_short_speech_is_repeated():
    audio = noise(16000)
    six = six_seconds(audio)
    assert six.shape == (96000,)
    assert six.dtype == np.float32
    for second in range(6):
        np.testing.assert_array_equal(six[16000 * second : 16000 * (second + 1)], audio)


@pytest.mark.parametrize("length", [70001, 96000, 96001, 200000])
def test_six_seconds_of_any_length_begin_as_the_speech_does(length):
    audio = noise(length)
    six = six_seconds(audio)
    assert six.shape == (96000,)
    known = min(length, 96000)
    np.testing.assert_array_equal(six[:known], audio[:known])
    np.testing.assert_array_equal(six[known:], audio[: 96000 - known])


def test_no_speech_is_refused():
    with pytest.raises(ValueError, match="N > 0"):
        six_seconds(np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="N > 0"):
        six_seconds(np.zeros((2, 10), np.float32))


def test_spectrogram_has_598_columns():
    assert power_spectrogram(noise(96000)).shape == (2, 257, 598)
    assert power_spectrogram(noise(96000)).dtype == np.float32
    with pytest.raises(ValueError, match="400"):
        power_spectrogram(noise(399))


@pytest.mark.parametrize(("column", "bin_"), [(0, 0), (0, 5), (3, 32), (597, 256), (100, 200)])
def test_spectrogram_is_the_transform_by_definition(column, bin_):
    audio = noise(96000)
    s = dft(audio[160 * column : 160 * column + 400].astype(np.float64), bin_)
    expected = [np.sign(part) * abs(part) ** 0.3 for part in (s.real, s.imag)]
    if bin_ in (0, 256):  # the transform of real numbers: no imaginary part but rounding, which the power 0.3 magnifies
        assert abs(s.imag) < 1e-9
        np.testing.assert_allclose(power_spectrogram(audio)[0, bin_, column], expected[0], rtol=1e-5)
        return
    np.testing.assert_allclose(power_spectrogram(audio)[:, bin_, column], expected, rtol=1e-4)


def test_a_tone_of_1_khz_is_in_bin_32():
    parts = power_spectrogram(tone(1000, 96000))
    magnitude = np.hypot(np.abs(parts[0]) ** (1 / 0.3), np.abs(parts[1]) ** (1 / 0.3))
    assert (magnitude.argmax(axis=0) == 32).all()  # 32 * 16000 / 512 = 1000
    np.testing.assert_allclose(magnitude.max(axis=0), 100.0, rtol=1e-3)  # half the sum of the window, 200 / 2


def test_mel_bands_by_hand():
    filters = mel_filters()
    assert filters.shape == (80, 257)
    # 1 kHz is mel 15, 8 kHz mel 15 + 27 ln 8 / ln 6.4 = 45.2456; bands stand 45.2456 / 81 = 0.55859 apart
    step = (15 + 27 * np.log(8) / np.log(6.4)) / 81
    assert step == pytest.approx(0.55859, abs=1e-5)
    # band 0 spans 0 to 2 steps of 66.667 Hz: 74.48 Hz, its peak at 37.24 Hz; bin 1 is 31.25 Hz on the rising side
    assert filters[0, 1] == pytest.approx(31.25 / 37.2393 * 2 / 74.4786, rel=1e-4)
    assert filters[0, 2] == pytest.approx((74.4786 - 62.5) / 37.2393 * 2 / 74.4786, rel=1e-4)
    assert (filters[0, 3:] == 0).all()
    assert (filters.max(axis=1) > 0).all()  # every band hears something


def test_log_mel_has_four_columns_per_frame():
    assert log_mel(noise(640 * 7)).shape == (28, 80)
    assert log_mel(noise(0)).shape == (0, 80)
    with pytest.raises(ValueError, match="640"):
        log_mel(noise(641))


def test_log_mel_column_by_definition():
    audio = noise(640 * 4)
    column = 9
    samples = audio[160 * column - 120 : 160 * column + 280].astype(np.float64)  # 25 ms around 160 * 9 + 80
    magnitudes = np.array([abs(dft(samples, bin_)) for bin_ in range(257)])
    expected = np.log(np.maximum(mel_filters() @ magnitudes, 1e-5))
    np.testing.assert_allclose(log_mel(audio)[column], expected, rtol=1e-4)


def test_silence_has_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(1280, np.float32)), np.log(1e-5), rtol=1e-6)


def test_a_tone_of_1_khz_is_in_its_band():
    centres = mel_filters().argmax(axis=1) * 16000 / 512
    band = np.abs(centres - 1000).argmin()
    heard = log_mel(tone(1000, 6400))[4:-4].argmax(axis=1)
    assert np.abs(heard - band).max() <= 1


def test_a_click_is_heard_in_its_own_frame_most():
    audio = np.zeros(640 * 10, np.float32)
    audio[640 * 6 + 320] = 1.0  # the middle of frame 6
    loud = np.exp(log_mel(audio)).sum(axis=1).reshape(10, 4).sum(axis=1)
    assert loud.argmax() == 6
    assert loud[5] == pytest.approx(loud[7], rel=0.2)
    assert loud[:5].max() < 0.01 * loud[6]


def test_length_beyond_a_block_changes_nothing():
    audio = noise(640 * 1100)  # 4400 columns, more than a block
    np.testing.assert_allclose(log_mel(audio)[4000:4300], log_mel(audio[640 * 990 :])[40:340], rtol=1e-4, atol=1e-4)
