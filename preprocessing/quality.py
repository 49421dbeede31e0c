"""What a selection may later ask of a clip: pose, sharpness, frozen frames. Columns, never reasons for refusal."""

from __future__ import annotations

import cv2
import numpy as np

from contracts.face import FOREHEAD, eye_centres
from contracts.sample import FPS
from preprocessing.crop import view
from preprocessing.warp import warp

SHARPNESS_SIDE = 256
SHARPNESS_EVERY = 5  # frames: neighbours are alike
SAME = 0.05  # grey levels of 255: a frozen picture, coded again, differs by less
NOSE_WINGS = (48, 278)
CLOSED, LONGEST_BLINK = 0.6, 12  # share of the median opening; frames
UPRIGHT_PITCH = 8.0  # degrees by which nose wings stand before the forehead on a face that looks ahead


def pose(points: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll in degrees, float32 [T, 3], for points [T, 478, 3] in source pixels.

    From the eyes and the line from forehead to nose wings in space, never from lips or jaw. Yaw is above 0 where
    the face turns to the picture's right, pitch where it looks down, roll where it leans clockwise.
    """
    eyes = eye_centres(points)
    across = eyes[:, 1] - eyes[:, 0]
    down = points[:, NOSE_WINGS].mean(axis=1) - points[:, FOREHEAD]
    yaw = np.degrees(np.arctan2(across[:, 2], np.hypot(across[:, 0], across[:, 1])))
    pitch = np.degrees(np.arctan2(down[:, 2], np.hypot(down[:, 0], down[:, 1])))
    roll = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    return np.stack([yaw, pitch + UPRIGHT_PITCH, roll], axis=1).astype(np.float32)


def spread(values: np.ndarray) -> float:
    """Range that holds the middle 95 % of ``values`` [T]."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(high - low)


def blink_rate(opening: np.ndarray, found: np.ndarray) -> float | None:
    """Blinks per minute for eye openings [T] at 25 per second; frames that are not ``found`` (bool [T]) do not count.

    A blink is a fall below 0.6 of the median opening that ends within half a second; longer ones are eyes cast down.
    ``None`` where no frame counts.
    """
    if not found.any():
        return None
    closed = found & (opening < CLOSED * np.median(opening[found]))
    edges = np.flatnonzero(np.diff(closed.astype(np.int8), prepend=0, append=0))
    lengths = edges[1::2] - edges[::2]
    return float((lengths <= LONGEST_BLINK).sum() * 60 * FPS / found.sum())


class Sharpness:
    """Median variance of the Laplacian on the 256 px view, over every fifth crop."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._seen = 0

    def see(self, crop: np.ndarray) -> np.ndarray | None:
        """Look at a crop, uint8 [S, S, 3]; every fifth is returned as the grey picture [256, 256] that was judged."""
        grey = None
        if self._seen % SHARPNESS_EVERY == 0:
            grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
            size = (SHARPNESS_SIDE, SHARPNESS_SIDE)
            if len(crop) % SHARPNESS_SIDE == 0:  # whole pixels are averaged: nothing is left to interpolate
                grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
            else:
                grey = warp(grey, view(len(crop), SHARPNESS_SIDE), size)
            _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
            self._values.append(float(deviation[0, 0]) ** 2)
        self._seen += 1
        return grey

    @property
    def value(self) -> float | None:
        return float(np.median(self._values)) if self._values else None


class Stillness:
    """Share of frames that equal the one before, on a few pixels (``shots.stride``) of the whole picture."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._same = self._seen = 0

    def see(self, thin: np.ndarray) -> None:
        """Look at the pixels kept of a frame, uint8 [h, w, 3]."""
        if self._last is not None:
            self._same += cv2.norm(thin, self._last, cv2.NORM_L1) < SAME * thin.size
            self._seen += 1
        self._last = thin

    @property
    def value(self) -> float | None:
        return self._same / self._seen if self._seen else None
