"""What is kept of each frame while a clip is decoded: a pocket around the face, not the whole picture."""

from __future__ import annotations

import errno
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from contracts.errors import Transient
from preprocessing.crop import LARGEST, align, crop_side
from preprocessing.faces import Face
from preprocessing.picture import Picture
from preprocessing.warp import from_part, reach

IN_MEMORY = 256 << 20  # bytes; beyond them the pockets of a clip lie in an unnamed temporary file
BLOCK = 4 << 20  # bytes asked for at once: a few huge pages, where planes one by one would be hundreds of small ones
MARGIN = 0.12  # of the crop's reach on each side: smoothing moves the crop after the pocket was cut
FIRST = 2.6  # of a detector box's width, where no points have been found yet
SIGHTS = (33, 263, 1, 168)  # outer corners of the eyes, tip and bridge of the nose: nothing that speech moves
STEADY = 0.02  # of the pocket's side: while none of those moves further, the pocket stays
FINER = 1.1  # of the largest crop's scale: a pocket is no finer than the crop needs


@dataclass(frozen=True)
class _Pocket:
    planes: list[int]  # their numbers in the spool
    matrix: np.ndarray | None  # of the picture
    x0: int
    y0: int
    scale: tuple[float, float]  # of x and y


class Spool:
    """Planes put aside while a clip is decoded: in memory first, then in an unnamed temporary file.

    About 0.5 MB a frame for faces of 512 px and more. Raises ``Transient`` where the disk is full.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._held: dict[int, np.ndarray] = {}  # by number
        self._block = np.empty(0, np.uint8)  # what is left of the last
        self._offsets: dict[int, tuple[int, tuple[int, ...]]] = {}  # in the file, and shapes
        self.size = 0  # bytes put aside so far

    def write(self, plane: np.ndarray) -> int:
        """Put a copy of ``plane`` (uint8) aside; return its number."""
        number = len(self._held) + len(self._offsets)
        if self.size + plane.nbytes <= IN_MEMORY:
            if self._block.size < plane.size:
                self._block = np.empty(max(BLOCK, plane.size), np.uint8)
            held, self._block = self._block[: plane.size].reshape(plane.shape), self._block[plane.size :]
            np.copyto(held, plane)
            self._held[number] = held
        else:
            try:
                self._offsets[number] = (self._file.seek(0, 2), plane.shape)
                self._file.write(np.ascontiguousarray(plane).data)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Transient(f"NO_SPACE: {tempfile.gettempdir()}: free some space, or set TMPDIR") from error
                raise
        self.size += plane.nbytes
        return number

    def read(self, number: int) -> np.ndarray:
        """The plane that was put aside under ``number``."""
        if number in self._held:
            return self._held[number]
        offset, shape = self._offsets[number]
        self._file.seek(offset)
        return np.frombuffer(self._file.read(math.prod(shape)), np.uint8).reshape(shape)

    def close(self) -> None:
        """Free it all."""
        self._held.clear()
        self._block = np.empty(0, np.uint8)
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
        self._sights: np.ndarray | None = None  # [4, 2], where the pocket was last aimed

    def add(self, image: Picture | np.ndarray, points: np.ndarray | None) -> None:
        """Keep the pocket of ``image`` (or uint8 RGB [H, W, 3]) around ``points`` [478, 3], or the last known place."""
        if points is not None:
            self._aim(points)
        picture = Picture.of(image)
        x0, x1 = _even(self._low[0], self._high[0], picture.width)
        y0, y1 = _even(self._low[1], self._high[1], picture.height)
        part, width, height = picture.part(x0, y0, x1, y1), x1 - x0, y1 - y0
        if self._scale < 1.0:
            width, height = (max(2, 2 * round(size * self._scale / 2)) for size in (width, height))
            part = part.resized(width, height)
        numbers = [self._spool.write(plane) for plane in part.planes]
        self._pockets.append(_Pocket(numbers, picture.matrix, x0, y0, (width / (x1 - x0), height / (y1 - y0))))

    def _aim(self, points: np.ndarray) -> None:
        sights = points[SIGHTS, :2]
        if self._sights is not None and np.abs(sights - self._sights).max() < STEADY * (self._high - self._low).max():
            return
        self._sights = sights
        side = crop_side(points[None])
        matrix = align(points[None], side)[0]
        low, high = map(np.array, reach(matrix, (side, side)))
        margin = MARGIN * float((high - low).max())
        self._low, self._high = low - margin, high + margin
        self._scale = min(1.0, FINER * float(np.linalg.norm(matrix[:, 0])))

    def crops(self, matrices: np.ndarray, side: int) -> Iterator[np.ndarray]:
        """The crops, uint8 [side, side, 3] one after another, for affines [T, 2, 3] from source pixels."""
        for number, matrix in zip(range(len(self)), matrices, strict=True):
            yield self.crop(number, matrix, side)

    def crop(self, number: int, matrix: np.ndarray, side: int) -> np.ndarray:
        """The crop of one frame, uint8 [side, side, 3], for its affine [2, 3] from source pixels."""
        pocket = self._pockets[number]
        part = Picture(tuple(self._spool.read(plane) for plane in pocket.planes), pocket.matrix)
        return part.warped(from_part(matrix, pocket.x0, pocket.y0, pocket.scale), side)

    def __len__(self) -> int:
        return len(self._pockets)


def _even(low: float, high: float, limit: int) -> tuple[int, int]:
    """From ``low`` to ``high`` in even numbers, within 0..limit."""
    start = min(max(2 * math.floor(low / 2), 0), (limit - 2) // 2 * 2)
    return start, min(max(2 * math.ceil(high / 2), start + 2), limit)
