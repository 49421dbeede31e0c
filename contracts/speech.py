"""What networks hear: the spectrogram of See the Speaker, and log-mel columns, four per frame."""

from __future__ import annotations

from functools import cache

import numpy as np

from contracts.sample import SAMPLE_RATE, SAMPLES_PER_FRAME

WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT = 512
POWER = 0.3
SIX_SECONDS = 6 * SAMPLE_RATE
VOICE = 250 * SAMPLES_PER_FRAME  # ten seconds
MEL_BANDS = 80
COLUMNS_PER_FRAME = SAMPLES_PER_FRAME // HOP  # 4
MEL_FLOOR = 1e-5
BLOCK = 4096  # columns transformed at once: memory stays flat in the length


def six_seconds(audio: np.ndarray) -> np.ndarray:
    """Speech of any length as float32 [96000]: repeated until it is longer than 6 s, then cut.

    See the Speaker, §IV-B. Raises ``ValueError`` for anything but a non-empty [N].
    """
    if audio.ndim != 1 or not audio.size:
        raise ValueError(f"audio must be [N] with N > 0, got {audio.shape}")
    return np.resize(audio, SIX_SECONDS).astype(np.float32)


def power_spectrogram(audio: np.ndarray) -> np.ndarray:
    """Compressed complex spectrogram, float32 [2, 257, 598], of speech [96000]: real parts, imaginary parts.

    Hann window of 25 ms, hop 10 ms, 512-point FFT, no padding; each part S becomes sgn(S) |S|^0.3 (See the Speaker,
    §IV-B). Any length of at least one window is taken; it has 1 + (N - 400) // 160 columns.
    """
    if audio.ndim != 1 or audio.size < WINDOW:
        raise ValueError(f"audio must be [N] with N >= {WINDOW}, got {audio.shape}")
    spectrum = _spectrum(audio)
    parts = np.stack([spectrum.real, spectrum.imag])
    return (np.sign(parts) * np.abs(parts) ** POWER).astype(np.float32)


def log_mel(audio: np.ndarray) -> np.ndarray:
    """Log-mel columns, float32 [4 T, 80], of speech [640 T] in -1..1; columns 4 t to 4 t + 3 belong to frame t.

    Natural logarithm of the magnitudes in 80 bands (Slaney's scale and norm, 0 to 8 kHz), not below log(1e-5).
    Column k looks at 25 ms around the middle of samples 160 k to 160 (k + 1); beyond the ends there is silence.
    """
    if audio.ndim != 1 or audio.size % SAMPLES_PER_FRAME:
        raise ValueError(f"audio must be [640 T], got {audio.shape}")
    edge = (WINDOW - HOP) // 2
    if not audio.size:
        return np.zeros((0, MEL_BANDS), np.float32)
    magnitudes = np.abs(_spectrum(np.pad(audio, edge)))
    return np.log(np.maximum(mel_filters() @ magnitudes, MEL_FLOOR)).T.astype(np.float32)


def voice_level(audio: np.ndarray) -> np.ndarray:
    """Mean log-mel column, float32 [80], of the first ten seconds of a recording [N] in -1..1.

    What voice and microphone give to every sound. Columns in which nothing is heard at all do not count, unless
    there are no others.
    """
    first = audio[:VOICE]
    columns = log_mel(np.pad(first, (0, -len(first) % SAMPLES_PER_FRAME)))
    heard = columns[(columns > np.log(MEL_FLOOR)).any(1)]
    mean: np.ndarray = (heard if len(heard) else np.full((1, MEL_BANDS), np.log(MEL_FLOOR))).mean(0)
    return mean.astype(np.float32)


def _spectrum(audio: np.ndarray) -> np.ndarray:
    """complex64 [257, columns]; windows start at multiples of the hop."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, WINDOW)[::HOP]
    # not in the paper: whether the window is periodic; it is here, as in torch.stft and librosa
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    blocks = [
        np.fft.rfft(windows[at : at + BLOCK] * hann, FFT).astype(np.complex64) for at in range(0, len(windows), BLOCK)
    ]
    return np.concatenate(blocks).T


@cache
def mel_filters(fft: int = FFT) -> np.ndarray:
    """Weights of the mel bands, float32 [80, fft / 2 + 1]: triangles of equal area on Slaney's mel scale."""
    top = _mel(np.array(SAMPLE_RATE / 2))
    edges = _hertz(np.linspace(0.0, top, MEL_BANDS + 2))
    bins = np.arange(fft // 2 + 1) * SAMPLE_RATE / fft
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    weights: np.ndarray = (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    weights.setflags(write=False)  # it is shared by all callers
    return weights


# Slaney's Auditory Toolbox: linear below 1 kHz, 27 steps per factor of 6.4 above
LINEAR_HZ = 200.0 / 3
KNEE_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27.0


def _mel(hertz: np.ndarray) -> np.ndarray:
    above = KNEE_HZ / LINEAR_HZ + np.log(np.maximum(hertz, KNEE_HZ) / KNEE_HZ) / LOG_STEP
    return np.where(hertz < KNEE_HZ, hertz / LINEAR_HZ, above)


def _hertz(mel: np.ndarray) -> np.ndarray:
    knee = KNEE_HZ / LINEAR_HZ
    return np.where(mel < knee, mel * LINEAR_HZ, KNEE_HZ * np.exp(LOG_STEP * (np.maximum(mel, knee) - knee)))
