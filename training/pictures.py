"""Pictures of training items: JPEGs become bytes where they are read, and numbers where they are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from contracts.sample import Frames
from systems.base import Batch

PICTURES = ("frames", "references")  # fields that hold pictures
COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# the decoder itself halves, while what is left is large enough: it takes less time, and nothing aliases
HALVED = {
    8: COLOUR | cv2.IMREAD_REDUCED_COLOR_8,
    4: COLOUR | cv2.IMREAD_REDUCED_COLOR_4,
    2: COLOUR | cv2.IMREAD_REDUCED_COLOR_2,
    1: COLOUR,
}

cv2.setNumThreads(1)  # one picture is too small to be shared out; loader processes are as many as it takes


def decode(jpeg: bytes | memoryview, side: int, size: int) -> np.ndarray:
    """One picture uint8 [s, s, 3], RGB, of a JPEG of ``side``: the smallest that the decoder can make with s >= size.

    That is the JPEG's own size where it is smaller. Raises ``ValueError`` where it is none.
    """
    way = next((way for halves, way in HALVED.items() if side >= halves * size), COLOUR)
    try:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), way)
    except cv2.error as error:
        raise ValueError(f"not a readable JPEG: {error}") from error
    if picture is None:
        raise ValueError("not a readable JPEG")
    return picture


def decode_into(rooms: np.ndarray, frames: Frames, index: Sequence[int]) -> None:
    """Decode ``frames[index]`` into ``rooms`` uint8 [n, S, S, 3], resized. Raises ``ValueError``."""
    size = rooms.shape[1]
    exact = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)  # of this thread: resizes twice as fast, and rounds otherwise
    try:
        for room, number in zip(rooms, index, strict=True):
            picture = decode(frames[number], frames.side, size)
            if picture.shape == room.shape:
                room[:] = picture
            else:
                cv2.resize(picture, (size, size), dst=room, interpolation=_filter(picture.shape[0] / size))
    finally:
        cv2.ipp.setUseIPP_NotExact(exact)


def _filter(times: float) -> int:
    """By how many times larger the picture is. Bilinear reads all pixels as long as these are not more than two."""
    return cv2.INTER_LINEAR if times <= 2 else cv2.INTER_AREA


def room_for(items: int, pictures: int, size: int) -> np.ndarray:
    """Room for the pictures of some items, uint8 [B, n, S, S, 3]."""
    return np.empty((items, pictures, size, size, 3), np.uint8)


def as_numbers(batch: Batch) -> Batch:
    """The batch with its pictures as ``View`` describes them: float32 [B, n, 3, S, S] in [-1, 1].

    They travel between processes, and to a device, as bytes [B, n, S, S, 3]: a quarter of that.
    """
    return batch | {name: _numbers(batch[name]) for name in PICTURES if name in batch}


def _numbers(pictures: Tensor) -> Tensor:
    if pictures.dtype != torch.uint8:
        return pictures
    return pictures.movedim(-1, -3).contiguous().float().div_(127.5).sub_(1.0)
