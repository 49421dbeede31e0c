"""Alignment: the similarity that puts eyes in place, the crop it makes, and views of that crop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from contracts.face import NOSE, NOSE_BRIDGE, eye_centres
from contracts.limits import Limits
from contracts.sample import EYES_DISTANCE, EYES_MIDPOINT
from preprocessing.warp import warp

if TYPE_CHECKING:
    from preprocessing.step import Tools

LARGEST, SMALLEST, MULTIPLE = 512, 128, 64  # px, of a stored crop's side
SMOOTH = 2.0  # frames, sigma: a shaking crop would teach a model to shake
PROFILE = 0.35  # eyes nearer than this, over their distance in space, give no angle
LEVEL_DEG, PLACE = 5.0, 0.1  # what counts as aligned: eye line, and mid-point as a share of the side


def eye_distance(points: np.ndarray) -> np.ndarray:
    """Distance of the eyes in space, source pixels, which a turned head keeps: [..., 478, 3] to [...]."""
    eyes = eye_centres(points)
    return np.asarray(np.linalg.norm(eyes[..., 1, :] - eyes[..., 0, :], axis=-1))


def crop_side(points: np.ndarray) -> int:
    """Side of the stored crop for points [T, 478, 3]: the face's own scale, at most 512, a multiple of 64."""
    native = float(np.median(eye_distance(points))) / EYES_DISTANCE
    return int(np.clip(MULTIPLE * round(native / MULTIPLE), SMALLEST, LARGEST))


def align(points: np.ndarray, side: int) -> np.ndarray:
    """Affines [T, 2, 3] (float64) from source to crop pixels, for points [T, 478, 3] in source pixels.

    Only eyes and nose count, so that speech moves no crop. One scale for the clip (the median distance
    of the eyes in space: a profile is no smaller than a front view); place and angle per frame, smoothed.
    """
    eyes = eye_centres(points)
    distance = eye_distance(points)
    scale = EYES_DISTANCE * side / float(np.median(distance))
    middle = _smooth(eyes.mean(axis=1)[:, :2])
    across = (eyes[:, 1] - eyes[:, 0])[:, :2] / distance[:, None]
    # in profile the eyes fall together and the line through them is noise: the nose says what is up
    down = (points[:, NOSE].mean(axis=1) - points[:, NOSE_BRIDGE])[:, :2] / distance[:, None]
    upright = np.stack([down[:, 1], -down[:, 0]], axis=1)
    weight = np.clip(np.linalg.norm(across, axis=1, keepdims=True) / PROFILE, 0.0, 1.0) ** 4
    direction = _smooth(weight * across + (1 - weight) * upright)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    cos, sin = scale * direction[:, 0], scale * direction[:, 1]
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1)  # [T, 2, 2], by minus the angle
    place = np.array(EYES_MIDPOINT) * side - 0.5
    shift = place - np.einsum("tij,tj->ti", turn, middle)
    return np.concatenate([turn, shift[:, :, None]], axis=2)


def apply(matrices: np.ndarray, points: np.ndarray, side: int) -> np.ndarray:
    """Landmarks float32 [T, 478, 3] in 0..1 of the crop, for points in source pixels and their affines."""
    scale = np.linalg.norm(matrices[:, :, 0], axis=1)
    moved = np.empty_like(points)
    moved[..., :2] = np.einsum("tij,tpj->tpi", matrices[:, :, :2], points[..., :2]) + matrices[:, None, :, 2] + 0.5
    moved[..., 2] = points[..., 2] * scale[:, None]
    return np.asarray(moved / side, np.float32)


def aligned(landmarks: np.ndarray) -> np.ndarray:
    """Whether each frame's eyes are level (5 degrees) and in place (10 % of the side): [T, 478, 3] to bool [T]."""
    eyes = eye_centres(landmarks)[..., :2].astype(np.float64)
    across = eyes[:, 1] - eyes[:, 0]
    angle = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    away = np.linalg.norm(eyes.mean(axis=1) - EYES_MIDPOINT, axis=1)
    return np.asarray((np.abs(angle) <= LEVEL_DEG) & (away <= PLACE))


def view(side: int, size: int | tuple[int, int]) -> np.ndarray:
    """Affine [2, 3] from a stored crop of ``side`` pixels to a system's view of it.

    ``size`` is the side of a square view (256, 512), which shows the whole crop, or (height, width):
    (416, 320) shows the crop's whole height and the middle of its width.
    """
    height, width = (size, size) if isinstance(size, int) else size
    scale = height / side
    left = (width - 1) / 2 - scale * (side - 1) / 2  # middle on middle
    return np.array([[scale, 0.0, left], [0.0, scale, (scale - 1) / 2]])


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """JPEG bytes of uint8 RGB [H, W, 3]; equal pictures give equal bytes."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("the picture cannot be stored as JPEG")
    return bytes(data)


def aligned_portrait(path: Path, side: int, limits: Limits | None = None, tools: Tools | None = None) -> np.ndarray:
    """A still, aligned as stored crops are: uint8 RGB [side, side, 3].

    Raises ``Reject``: NO_FACE, MANY_FACES, FACE_LOST, FACE_SMALL, or what decoding a still raises.
    """
    from preprocessing.media import decode_still
    from preprocessing.step import Tools

    limits = limits or Limits()
    image = decode_still(path, limits)
    points, _ = (tools or Tools()).points(image, None, limits)
    return warp(image, align(points[None], side)[0], (side, side))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian over time, [T, D]; the ends lean on what there is."""
    if len(values) == 1:
        return values
    radius = int(3 * SMOOTH)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SMOOTH) ** 2)
    padded = np.pad(values, ((radius, radius), (0, 0)))
    weight = np.convolve(np.pad(np.ones(len(values)), radius), kernel, "valid")
    smoothed = np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)
    return np.asarray(smoothed / weight[:, None])
