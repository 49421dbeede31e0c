"""The sound of a training item: a view's fields of it, out of a clip's samples."""

from __future__ import annotations

import numpy as np

from contracts.sample import SAMPLES_PER_FRAME
from contracts.speech import SIX_SECONDS, power_spectrogram, six_seconds, voice_level
from systems.base import View

SOUNDS = frozenset({"audio", "spectrogram", "voice"})  # fields that are made of it
LOUDEST = np.float32(1 / 32768)  # makes int16 samples numbers in [-1, 1)


def sound_fields(
    view: View,
    sound: np.ndarray,
    part: tuple[int, int],
    index: np.ndarray,
    back: int,
    rng: np.random.Generator | None,
) -> dict[str, np.ndarray]:
    """Of int16 samples, those of ``part`` (first, end) alone; shapes as in ``View``.

    ``index`` are frames of the clip; what is heard about them may begin ``back`` frames before the part. ``rng`` picks
    the seconds that a spectrogram shows; without it, it shows the first six.
    """
    fields: dict[str, np.ndarray] = {}
    first, end = part
    heard = sound[first:end]
    if "spectrogram" in view.fields:
        shown = heard if rng is None else _some_seconds(heard, rng)
        fields["spectrogram"] = np.asarray(power_spectrogram(six_seconds(_float(shown))), np.float32)
    if "voice" in view.fields:
        fields["voice"] = voice_level(_float(heard))
    if "audio" in view.fields:
        begin = first - back * SAMPLES_PER_FRAME
        fields["audio"] = _audio(sound[begin:end], index - begin // SAMPLES_PER_FRAME, view)
    return fields


def _some_seconds(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Six seconds of ``sound`` at random; of a shorter sound half of it or more, so that no two draws are alike."""
    longest = min(len(sound), SIX_SECONDS)
    length = longest if len(sound) > SIX_SECONDS else int(rng.integers(longest // 2, longest + 1))
    start = int(rng.integers(len(sound) - length + 1))
    return sound[start : start + length]


def _audio(sound: np.ndarray, index: np.ndarray, view: View) -> np.ndarray:
    """Float32 about the frames ``index`` of ``sound``, zeros beyond its ends."""
    successive, c = view.pick == "successive", view.context
    starts, frames = (index[:1], len(index) + 2 * c) if successive else (index, 2 * c + 1)
    parts = np.zeros((len(starts), frames * SAMPLES_PER_FRAME), np.float32)
    for part, start in zip(parts, starts.tolist(), strict=True):
        begin = (start - c) * SAMPLES_PER_FRAME  # may be negative
        heard = sound[max(0, begin) : max(0, begin + len(part))]
        place = max(0, -begin)
        np.multiply(heard, LOUDEST, out=part[place : place + len(heard)])
    return parts[0] if successive else parts


def _float(sound: np.ndarray) -> np.ndarray:
    """Int16 samples as float32 in [-1, 1)."""
    return np.multiply(sound, LOUDEST, dtype=np.float32)
