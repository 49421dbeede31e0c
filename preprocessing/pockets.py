"""What is kept of each frame while a clip is decoded: a pocket around the face, not the whole picture."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from contracts.errors import Transient
from preprocessing.crop import LARGEST, align, crop_side
from preprocessing.faces import Face
from preprocessing.warp import from_part, reach, warp

IN_MEMORY = 256 << 20  # bytes; beyond them the pockets of a clip lie in an unnamed temporary file
MARGIN = 0.12  # of the crop's reach on each side: smoothing moves the crop after the pocket was cut
FIRST = 2.6  # of a detector box's width, where no points have been found yet
FINER = 1.15  # of the largest crop's scale: a pocket is no finer than the crop needs


@dataclass(frozen=True)
class _Pocket:
    offset: int
    shape: tuple[int, ...]
    x0: int
    y0: int
    scale: float


class Spool:
    """Bytes put aside while a clip is decoded: in memory first, then in an unnamed temporary file.

    About 1 MB a frame for faces of 512 px and more. Raises ``Transient`` where the disk is full.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 (closed by close)

    def write(self, data: np.ndarray) -> int:
        """Put ``data`` (contiguous) aside; return where."""
        try:
            offset = self._file.seek(0, 2)
            self._file.write(data.data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Transient(f"NO_SPACE: {tempfile.gettempdir()}: free some space, or set TMPDIR") from error
            raise
        return offset

    @property
    def size(self) -> int:
        """Bytes put aside so far."""
        return self._file.seek(0, 2)

    def read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(count)

    def close(self) -> None:
        self._file.close()


class Pockets:
    """The part of every frame that an aligned crop can reach, at the face's own scale."""

    def __init__(self, face: Face, spool: Spool) -> None:
        self._spool = spool
        self._pockets: list[_Pocket] = []
        half = FIRST * face.width / 2  # until points say better
        (x, y) = face.centre
        self._low, self._high = np.array([x - half, y - half]), np.array([x + half, y + half])
        self._scale = min(1.0, FINER * LARGEST / (2 * half))

    def add(self, image: np.ndarray, points: np.ndarray | None) -> None:
        """Keep the pocket of ``image`` (uint8 [H, W, 3]) around ``points`` [478, 3], or around the last known place."""
        if points is not None:
            self._aim(points)
        height, width = image.shape[:2]
        x0, y0 = np.clip(np.floor(self._low), 0, (width - 2, height - 2)).astype(int)
        x1, y1 = np.clip(np.ceil(self._high), (x0 + 2, y0 + 2), (width, height)).astype(int)
        part = image[y0:y1, x0:x1]
        if self._scale < 1.0:
            size = (max(1, round((x1 - x0) * self._scale)), max(1, round((y1 - y0) * self._scale)))
            part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        part = np.ascontiguousarray(part)
        offset = self._spool.write(part)
        self._pockets.append(_Pocket(offset, part.shape, int(x0), int(y0), self._scale))

    def _aim(self, points: np.ndarray) -> None:
        side = crop_side(points[None])
        matrix = align(points[None], side)[0]
        low, high = reach(matrix, (side, side))
        margin = MARGIN * float((high - low).max())
        self._low, self._high = low - margin, high + margin
        self._scale = min(1.0, FINER * float(np.linalg.norm(matrix[:, 0])))

    def crops(self, matrices: np.ndarray, side: int) -> Iterator[np.ndarray]:
        """The crops, uint8 [side, side, 3] one after another, for affines [T, 2, 3] from source pixels."""
        for pocket, matrix in zip(self._pockets, matrices, strict=True):
            data = self._spool.read(pocket.offset, int(np.prod(pocket.shape)))
            part = np.frombuffer(data, np.uint8).reshape(pocket.shape)
            yield warp(part, from_part(matrix, pocket.x0, pocket.y0, pocket.scale), (side, side))

    def __len__(self) -> int:
        return len(self._pockets)
