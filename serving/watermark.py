"""The invisible mark: a keyed pattern, added to every frame's brightness, and found again after re-encoding.

A spread-spectrum mark (Cox et al., 1997): noise made from the key, limited to a band of spatial frequencies that
encoders keep, the same in all frames, so that whatever moves averages out of the detector's sum. The pattern is
defined on a frame 256 high: scaled pictures carry a scaled pattern, and the detector scales them back. Cropped ones
are found by trying scales, and all shifts at once by a correlation in the frequency domain (phase only).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

SIDE = 256  # height, in units of the pattern, of every uncropped frame; also the period of the pattern
BAND = (1 / 40, 1 / 9)  # cycles per unit
STRENGTH = 1.7  # root mean square, in levels of 255: 43 dB; docs/provenance.md has what it survives
PUBLIC_KEY = b"voxface"  # whoever has the program can look for it, and take it out
SCALES = tuple(np.round(np.arange(0.70, 1.0, 0.01), 2))  # heights that a crop may have left, of the whole
NEAR = 1  # units of shift at which an uncropped frame is looked for
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709
LOOKED_AT = 75  # frames
FOUND = 1e-4  # a p-value below it: marked


class Mark(BaseModel):
    """What the detector found in some frames."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    found: bool
    p: float  # that frames without the mark correlate as well anywhere that was looked
    score: float  # standard deviations
    scale: float  # height of what is shown, of the whole: below 1, cropped
    frames: int


@lru_cache(maxsize=8)
def tile(key: bytes = PUBLIC_KEY) -> np.ndarray:
    """The pattern, periodic: float32 [256, 256], mean 0, root mean square 1."""
    seed = int.from_bytes(hashlib.sha256(b"voxface mark 1" + key).digest()[:16], "big")
    bits = np.random.Philox(key=seed).random_raw(SIDE * SIDE) & 1  # raw: the same in every version of numpy
    noise = bits.reshape(SIDE, SIDE).astype(np.float64) * 2 - 1
    made = np.fft.ifft2(np.fft.fft2(noise) * _band()).real
    return np.asarray(made / made.std(), np.float32)


class Marker:
    """Marks the frames of one video."""

    def __init__(self, key: bytes = PUBLIC_KEY, strength: float = STRENGTH) -> None:
        self.key, self.strength = key, strength
        self._pattern = np.zeros((0, 0, 1), np.int16)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Marked copies of uint8 [n, H, W, 3]."""
        height, width = frames.shape[1:3]
        if self._pattern.shape[:2] != (height, width):
            self._pattern = self._drawn(height, width)
        raised = frames.astype(np.int16)
        raised += self._pattern
        return np.clip(raised, 0, 255, out=raised).astype(np.uint8)

    def _drawn(self, height: int, width: int) -> np.ndarray:
        rows, columns = (_lines(count, SIDE / height) for count in (height, width))
        drawn = rows @ tile(self.key) @ columns.T
        return np.asarray(np.rint(self.strength * drawn)[..., None], np.int16)


def detect(frames: Iterable[np.ndarray], key: bytes = PUBLIC_KEY) -> Mark:
    """Look for the mark in uint8 [H, W, 3] frames of one size; more of them find it more surely."""
    total, count = summed(frames)
    return look(total, count, key)


def summed(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """What :func:`look` looks at, float32 [256, W], and of how many frames it is the sum; [0, 0] of none."""
    total, count = np.zeros((0, 0), np.float32), 0
    for frame in frames:
        picture = _whitened(_scaled(frame @ LUMA, SIDE))
        total = total + picture if count else picture
        count += 1
    return total, count


def look(total: np.ndarray, count: int, key: bytes = PUBLIC_KEY) -> Mark:
    """Look for the mark of ``key`` in what :func:`summed` made of ``count`` frames."""
    if not count:
        return Mark(found=False, p=1.0, score=0.0, scale=1.0, frames=0)
    near = _correlation(total, key)
    reach = np.arange(-NEAR, NEAR + 1)
    straight = float(near[np.ix_(reach, reach)].max())
    best, scale, tried = float(near.max()), 1.0, near.size
    for each in SCALES:
        here = _correlation(_scaled(total, round(each * SIDE)), key)
        tried += here.size
        if (peak := float(here.max())) > best:
            best, scale = peak, float(each)
    # looked at two ways, each given half: as it was made, and anywhere
    whole, anywhere = reach.size**2 * _tail(straight), tried * _tail(best)
    p = min(1.0, 2 * min(whole, anywhere))
    if whole <= anywhere:
        best, scale = straight, 1.0
    return Mark(found=p < FOUND, p=p, score=best, scale=scale, frames=count)


def detect_in(video: Path, key: bytes = PUBLIC_KEY) -> Mark:
    """Look for the mark in the first ``LOOKED_AT`` frames of a video. Raises ``Reject`` where it cannot be decoded."""
    from preprocessing.media import decode, probe

    with decode(probe(video)) as clip:
        return detect(islice(clip, LOOKED_AT), key)


@lru_cache(maxsize=8)
def _sought(key: bytes) -> np.ndarray:
    return np.asarray(np.conj(np.fft.fft2(tile(key))))


@lru_cache(maxsize=1)
def _band() -> np.ndarray:
    frequencies = np.fft.fftfreq(SIDE)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    return (radius >= BAND[0]) & (radius <= BAND[1])


def _lines(count: int, step: float) -> np.ndarray:
    """Weights [count, 256] that read a periodic line of 256 at the middles of pixels ``step`` wide, linearly."""
    at = (np.arange(count) + 0.5) * step - 0.5
    low = np.floor(at).astype(int)
    weights = np.zeros((count, SIDE), np.float32)
    share = (at - low).astype(np.float32)
    np.add.at(weights, (np.arange(count), low % SIDE), 1 - share)
    np.add.at(weights, (np.arange(count), (low + 1) % SIDE), share)
    return weights


def _scaled(picture: np.ndarray, height: int) -> np.ndarray:
    """float32 [H, W] at another height, its shape kept; averaged where it shrinks."""
    import torch
    from torch.nn.functional import interpolate

    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    tensor = torch.from_numpy(np.ascontiguousarray(picture, np.float32))[None, None]
    scaled = interpolate(tensor, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return np.asarray(scaled[0, 0].numpy())


def _blurred(picture: np.ndarray, reach: int) -> np.ndarray:
    """Mean of the (2 reach + 1)^2 neighbours, edges repeated."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach + 1, reach)
        sums = np.cumsum(np.pad(picture, pad, mode="edge"), axis=axis, dtype=np.float64)
        count = picture.shape[axis]
        upper, lower = (np.take(sums, np.arange(count) + shift, axis=axis) for shift in (2 * reach + 1, 0))
        picture = ((upper - lower) / (2 * reach + 1)).astype(np.float32)
    return picture


def _whitened(picture: np.ndarray) -> np.ndarray:
    """What is left of a frame [256, W] when its slow changes are gone and strong places are no louder than others."""
    rest = picture - _blurred(picture, 8)
    rest /= np.sqrt(_blurred(rest**2, 8)) + 2.0
    return np.clip(rest, -3, 3)


def _correlation(picture: np.ndarray, key: bytes) -> np.ndarray:
    """Correlation with the pattern at every shift, [256, 256], in standard deviations of what no mark gives.

    Phase only: each frequency of the band counts the same, however loud the picture is there. Against a pattern made
    independently of the picture, each value is then a sum of independent phases: normal, and of known spread.
    """
    folded = np.zeros((SIDE, SIDE), np.float64)
    for top in range(0, picture.shape[0], SIDE):
        for left in range(0, picture.shape[1], SIDE):
            part = picture[top : top + SIDE, left : left + SIDE]
            folded[: part.shape[0], : part.shape[1]] += part
    seen = np.fft.fft2(folded)
    phases = np.where(_band(), seen / np.maximum(np.abs(seen), 1e-9), 0)
    answer = np.fft.ifft2(phases * _sought(key)).real
    return np.asarray(answer / max(float(np.sqrt((answer**2).mean())), 1e-12))


def _tail(score: float) -> float:
    """Probability that a standard normal exceeds ``score``."""
    return 0.5 * math.erfc(score / math.sqrt(2))
