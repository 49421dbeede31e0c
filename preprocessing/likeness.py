"""Copies of one recording: perceptual digests of picture and sound, which re-encoding changes in a few bits only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from contracts.speech import log_mel

GRID = 16  # rows of the mean picture, and its columns less one
SLOTS, BANDS = 17, 17  # of the sound: time and frequency
QUIET = 1.0  # nepers: a sound whose bands nowhere rise by more above their floor is silent
# Bits of 256 that may differ. On 9 clips (7 real) re-encoding (crf 34, 48 kbit/s; 0.6 of the size at 30 frames/s, mp3;
# padded, 9 dB quieter, 16 kHz) changes at most 32 of the picture and 30 of the sound; unrelated clips differ in at
# least 99 of the sound, unrelated stills in at least 52 of the picture.
SAME_PICTURE, SAME_SOUND = 48, 64
# Where no sound can agree: two photographs of one sitting may be as near as 11. So strict, it finds light copies of
# stills alone: of 11 real ones at 0.7 of the size and JPEG quality 60, 3 (the others differ in 9 to 22, one in 100).
SAME_PICTURE_ALONE = 8


class Likeness:
    """Digest of a clip's crops: which of two neighbours in their mean picture is the brighter."""

    def __init__(self) -> None:
        self._seen: list[np.ndarray] = []

    def see(self, grey: np.ndarray) -> None:
        """Look at a grey picture, uint8 [S, S]; at evenly spaced moments of the clip."""
        self._seen.append(cv2.resize(grey, (GRID + 1, GRID), interpolation=cv2.INTER_AREA).astype(np.float32))

    @property
    def value(self) -> str | None:
        """64 hexadecimal digits; ``None`` where nothing was seen."""
        if not self._seen:
            return None
        return _hex(np.diff(np.mean(self._seen, axis=0), axis=1) > 0)


def sound_digest(sound: np.ndarray) -> str | None:
    """64 hexadecimal digits for int16 sound [N]; ``None`` where it is silent or shorter than 0.7 s.

    Whether a band's lead over its neighbour grows or falls from one seventeenth of the time to the next: after
    Haitsma and Kalker, A highly robust audio fingerprinting system (ISMIR 2002), section 4.2, over the whole sound.
    """
    whole = len(sound) - len(sound) % 640
    mel = log_mel(sound[:whole].astype(np.float32) / 32768.0)
    if len(mel) < 4 * SLOTS or float(mel.max() - mel.min()) < QUIET:
        return None
    slots = np.stack([part.mean(axis=0) for part in np.array_split(mel, SLOTS)])
    bands = np.stack([part.mean(axis=1) for part in np.array_split(slots, BANDS, axis=1)], axis=1)
    return _hex(np.diff(np.diff(bands, axis=1), axis=0) > 0)


def copies(lines: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Which samples repeat an earlier one: key to the key of the first, for ledger lines of samples in their order.

    Two samples of one kind are copies where picture and sound both agree, or, with no sound in either, the picture
    alone. A part of a recording, or a picture under another sound, is no copy.
    """
    first: dict[tuple[str, bool, bool], list[tuple[str, int, int]]] = {}
    found: dict[str, str] = {}
    for line in lines:
        picture, sound = line["picture_digest"], line["sound_digest"]
        if picture is None and sound is None:
            continue
        most = (SAME_PICTURE if sound else SAME_PICTURE_ALONE, SAME_SOUND)
        seen = first.setdefault((line["kind"], picture is None, sound is None), [])
        bits = int(picture or "0", 16), int(sound or "0", 16)
        for key, *others in seen:
            if all((a ^ b).bit_count() <= limit for a, b, limit in zip(bits, others, most, strict=True)):
                found[line["key"]] = key
                break
        else:
            seen.append((line["key"], *bits))
    return found


def distance(one: str, other: str) -> int:
    """Bits in which two digests differ; unrelated ones differ in about 128 of 256."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _hex(bits: np.ndarray) -> str:
    return np.packbits(bits.ravel()).tobytes().hex()
