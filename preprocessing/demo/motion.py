"""How a face moves while it speaks: mouth from phonemes and loudness, head and brows from stress, blinks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from preprocessing.demo.voice import RATE, Utterance

_CLOCK = 200  # Hz, of the tracks before they are read at the frames' times

# espeak-ng's mnemonics for English, stress marks removed, to (jaw, wide, round, press, tuck), each 0..1
_VOWELS = {
    "a": (0.85, 0.30, 0.0),
    "A": (0.95, 0.0, 0.0),
    "0": (0.80, 0.0, 0.25),
    "V": (0.70, 0.10, 0.0),
    "O": (0.72, 0.0, 0.60),
    "o": (0.55, 0.0, 0.75),
    "E": (0.62, 0.50, 0.0),
    "e": (0.52, 0.60, 0.0),
    "I": (0.38, 0.55, 0.0),
    "i": (0.28, 0.90, 0.0),
    "u": (0.22, 0.0, 1.0),
    "U": (0.32, 0.0, 0.70),
    "@": (0.42, 0.10, 0.0),
    "3": (0.42, 0.0, 0.30),
}
_CONSONANTS = {
    **dict.fromkeys("mbp", (0.0, 0.0, 0.0, 1.0, 0.0)),
    **dict.fromkeys("fv", (0.08, 0.1, 0.0, 0.0, 1.0)),
    "w": (0.15, 0.0, 1.0, 0.0, 0.0),
    "r": (0.25, 0.0, 0.5, 0.0, 0.0),
    **dict.fromkeys("SZ", (0.20, 0.0, 0.6, 0.0, 0.0)),
    **dict.fromkeys("szt", (0.20, 0.3, 0.0, 0.0, 0.0)),
    **dict.fromkeys("dnlTD", (0.26, 0.2, 0.0, 0.0, 0.0)),
    **dict.fromkeys("kgNxC", (0.34, 0.1, 0.0, 0.0, 0.0)),
    "h": (0.42, 0.1, 0.0, 0.0, 0.0),
    "j": (0.24, 0.7, 0.0, 0.0, 0.0),
    "?": (0.30, 0.0, 0.0, 0.0, 0.0),
}
_SECOND = {"tS": "S", "dZ": "Z"}  # affricates look like their second half


@dataclass(frozen=True)
class Motion:
    """One value per frame, float64 [T]. Angles in radians, shifts in px of the 512 px picture, the rest 0..1."""

    jaw: np.ndarray
    wide: np.ndarray
    round: np.ndarray
    press: np.ndarray
    tuck: np.ndarray
    blink: np.ndarray  # 1 is shut
    brow: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray

    def __len__(self) -> int:
        return len(self.jaw)


def loudness(sound: np.ndarray, clock: int = _CLOCK) -> np.ndarray:
    """Loudness of ``sound`` (16 kHz) at ``clock`` Hz: root of the smoothed energy, 1 at its 95th percentile, 0..1."""
    hop = RATE // clock
    blocks = sound[: len(sound) // hop * hop].reshape(-1, hop).astype(np.float64)
    power = np.sqrt(gaussian_filter1d((blocks**2).mean(axis=1), 0.03 * clock))
    return np.asarray(np.clip(power / max(np.percentile(power, 95), 1e-6), 0, 1))


def move(said: Utterance, fps: float, rng: np.random.Generator, vigour: float = 1.0) -> Motion:
    """The motion that goes with ``said``, read at the middle of each frame; ``vigour`` scales mouth and head."""
    count = round(said.seconds * fps)
    loud = loudness(said.sound)
    mouth = _shapes(said, len(loud))
    jaw = vigour * (0.68 * mouth[0] * (0.40 + 0.60 * loud) + 0.34 * loud * (1 - mouth[3]))
    calm = gaussian_filter1d(loud, 0.12 * _CLOCK)
    beats = _beats(said, len(loud))
    tracks = [
        np.clip(gaussian_filter1d(jaw, 0.022 * _CLOCK), 0, 1.15),
        gaussian_filter1d(mouth[1], 0.045 * _CLOCK),
        gaussian_filter1d(mouth[2], 0.045 * _CLOCK),
        gaussian_filter1d(mouth[3], 0.016 * _CLOCK),
        gaussian_filter1d(mouth[4], 0.020 * _CLOCK),
        _blinks(len(loud), rng),
        np.clip(0.75 * beats + 0.25 * calm, 0, 1),
        vigour * (np.radians(4.5) * _drift(len(loud), rng) + np.radians(1.2) * calm),
        vigour * (np.radians(2.0) * _drift(len(loud), rng) + np.radians(2.4) * (beats - 0.3 * calm)),
        vigour * np.radians(2.2) * _drift(len(loud), rng),
        5.0 * vigour * _drift(len(loud), rng),
        3.0 * vigour * _drift(len(loud), rng) + 1.5 * beats,
    ]
    times = (np.arange(count) + 0.5) / fps * _CLOCK - 0.5
    return Motion(*(np.interp(times, np.arange(len(loud)), track) for track in tracks))


def _shapes(said: Utterance, length: int) -> np.ndarray:
    """Targets of jaw, wide, round, press, tuck: [5, length]; a diphthong is two vowels, half the time each."""
    shapes = np.zeros((5, length))
    ends = [start for start, _ in said.phonemes[1:]] + [said.seconds]
    for (start, name), end in zip(said.phonemes, ends):
        parts = _read(name)
        bounds = np.linspace(start, end, len(parts) + 1)
        for part, a, b in zip(parts, bounds, bounds[1:]):
            shapes[:, round(a * _CLOCK) : round(b * _CLOCK)] = np.array(part)[:, None]
    return shapes


def _read(name: str) -> list[tuple[float, ...]]:
    """Mouth shapes of one espeak mnemonic: ``'aU`` is stressed a, then U."""
    plain = name.strip("',%=;|!")
    if plain in _SECOND:
        return [_CONSONANTS[_SECOND[plain]]]
    if plain.startswith("_") or not plain:
        return [(0.0,) * 5]
    vowels: list[tuple[float, ...]] = [(*_VOWELS[letter], 0.0, 0.0) for letter in plain if letter in _VOWELS]
    if plain[0] in _VOWELS and vowels:
        return vowels[:1] if plain[1:2] in ("", ":", "2", "#", "L") else vowels
    return [_CONSONANTS.get(plain[0], (0.25, 0.1, 0.0, 0.0, 0.0))]


def _beats(said: Utterance, length: int) -> np.ndarray:
    """Soft bumps at stressed vowels: 0..1."""
    bumps = np.zeros(length)
    for start, name in said.phonemes:
        if name.startswith("'") and round(start * _CLOCK) < length:
            bumps[round(start * _CLOCK)] += 1.0
    soft = gaussian_filter1d(bumps, 0.09 * _CLOCK)
    return np.asarray(np.clip(soft / max(soft.max(), 1e-6), 0, 1))


def _blinks(length: int, rng: np.random.Generator) -> np.ndarray:
    """Shut in 80 ms, open in 160 ms; the first within 1.4 s, then every 2 to 4 s."""
    shut = np.zeros(length)
    at = rng.uniform(0.5, 1.4)
    time = np.arange(length) / _CLOCK
    while at < length / _CLOCK:
        since = time - at
        shape = np.where(since < 0, 1 + since / 0.08, 1 - (since - 0.05) / 0.16)
        shut = np.maximum(shut, np.clip(shape, 0, 1))
        at += rng.uniform(2.0, 4.0)
    return np.asarray(shut * shut * (3 - 2 * shut))


def _drift(length: int, rng: np.random.Generator) -> np.ndarray:
    """Slow wandering around zero, about -1..1."""
    noise = gaussian_filter1d(rng.uniform(-1, 1, length + 8 * _CLOCK), 0.45 * _CLOCK)[4 * _CLOCK :][:length]
    return np.asarray(np.clip(noise * np.sqrt(3 * 2 * np.sqrt(np.pi) * 0.45 * _CLOCK) * 0.6, -1.2, 1.2))
