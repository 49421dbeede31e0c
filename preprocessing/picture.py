"""A picture as the decoder left it: brightness and colour apart, and made RGB only where it is looked at."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from preprocessing.warp import halved, warp

# Share of red and blue in brightness, by ffmpeg's numbers of colour spaces; those without one are taken as BT.601,
# as ffmpeg takes them. BT.709; BT.470BG, SMPTE 170M; BT.2020, not constant luminance.
SHARES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def to_rgb(space: int, full: bool = False) -> np.ndarray:
    """Affine [3, 4] from Y, Cb, Cr (8 bits) to R, G, B in 0..255; ``space`` is ffmpeg's number.

    ITU-R BT.601-7, 709-6, 2020-2: E'Y = Kr R + (1 - Kr - Kb) G + Kb B; Y = 16 + 219 E'Y; Cb, Cr = 128 ± 112; in the
    ``full`` range (T.871) Y = 255 E'Y; Cb, Cr = 128 ± 127.5.
    """
    red, blue = SHARES[space]
    green = 1 - red - blue
    y, c, black = (1.0, 1.0, 0) if full else (255 / 219, 255 / 224, 16)
    turn = np.array(
        [
            [y, 0, 2 * (1 - red) * c],
            [y, -2 * (1 - blue) * blue / green * c, -2 * (1 - red) * red / green * c],
            [y, 2 * (1 - blue) * c, 0],
        ]
    )
    return np.column_stack([turn, -turn @ [black, 128, 128]])


BT601 = to_rgb(5)


class Picture:
    """One plane, RGB uint8 [H, W, 3]; or three, Y [H, W], Cb and Cr [H/2, W/2] (H, W even), and ``to_rgb`` of them.

    A sample of colour lies in the middle of the four of brightness that it is for.
    """

    def __init__(self, planes: tuple[np.ndarray, ...], matrix: np.ndarray | None = None) -> None:
        self.planes, self.matrix = planes, matrix

    @classmethod
    def of(cls, image: Picture | np.ndarray) -> Picture:
        """``image`` itself, or the picture of an RGB array."""
        return image if isinstance(image, Picture) else cls((image,))

    def copy(self) -> Picture:
        """A picture of its own, where this one's planes lie in memory that will be used again."""
        return Picture(tuple(plane.copy() for plane in self.planes), self.matrix)

    @property
    def height(self) -> int:
        return int(self.planes[0].shape[0])

    @property
    def width(self) -> int:
        return int(self.planes[0].shape[1])

    @property
    def nbytes(self) -> int:
        return sum(plane.nbytes for plane in self.planes)

    @cached_property
    def rgb(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        if self.matrix is None:
            return self.planes[0]
        y, *colours = self.planes
        size = (self.width, self.height)
        full = [cv2.resize(colour, size, interpolation=cv2.INTER_LINEAR) for colour in colours]
        return np.asarray(cv2.transform(cv2.merge([y, *full]), self.matrix))

    def part(self, x0: int, y0: int, x1: int, y1: int) -> Picture:
        """The pixels from (x0, y0) to before (x1, y1), all even and inside: a view, nothing is copied."""
        if self.matrix is None:
            return Picture((self.planes[0][y0:y1, x0:x1],))
        y, *colours = self.planes
        cut = (colour[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for colour in colours)
        return Picture((y[y0:y1, x0:x1], *cut), self.matrix)

    def padded(self, top: int, bottom: int, left: int, right: int) -> Picture:
        """The picture with that many (even) rows and columns of black around it."""
        if self.matrix is None:
            return Picture((cv2.copyMakeBorder(self.planes[0], top, bottom, left, right, cv2.BORDER_CONSTANT),))
        rims = [(top, bottom, left, right)] + [(top // 2, bottom // 2, left // 2, right // 2)] * 2
        blacks = (16 if self.matrix[0, 0] > 1 else 0, 128, 128)  # where brightness is stretched, it has limited range
        planes = zip(self.planes, rims, blacks)
        return Picture(
            tuple(cv2.copyMakeBorder(plane, *rim, cv2.BORDER_CONSTANT, value=black) for plane, rim, black in planes),
            self.matrix,
        )

    def resized(self, width: int, height: int) -> Picture:
        """The picture at another size (even numbers), halved where it shrinks by more than that, then bilinear."""
        sizes = [(width, height)] + [(width // 2, height // 2)] * (len(self.planes) - 1)
        how = cv2.INTER_LINEAR
        scaled = (cv2.resize(halved(p, size), size, interpolation=how) for p, size in zip(self.planes, sizes))
        return Picture(tuple(scaled), self.matrix)

    def warped(self, matrix: np.ndarray, side: int) -> np.ndarray:
        """RGB uint8 [side, side, 3] (``side`` even) through the affine ``matrix`` [2, 3] from pixels of this picture.

        Colour is warped at half the side, as JPEG stores it.
        """
        if self.matrix is None:
            return warp(self.planes[0], matrix, (side, side))
        y, *colours = self.planes
        # between pixels of half the size: x = 2 c + 0.5 on both sides
        halves = np.array([[a, b, ((a + b) / 2 + e - 0.5) / 2] for a, b, e in matrix.tolist()])
        half = (side // 2, side // 2)
        moved = (warp(y, matrix, (side, side)), *(warp(colour, halves, half, smooth=False) for colour in colours))
        return _blocky(moved, self.matrix)

    def thin(self, stride: int) -> np.ndarray:
        """Every ``stride``-th pixel (an even number) of every ``stride``-th row: RGB uint8 [h, w, 3]."""
        if self.matrix is None:
            return np.ascontiguousarray(self.planes[0][::stride, ::stride])
        y, *colours = self.planes
        few = [y[::stride, ::stride], *(colour[:: stride // 2, :: stride // 2] for colour in colours)]
        return np.asarray(cv2.transform(cv2.merge([np.ascontiguousarray(plane) for plane in few]), self.matrix))


def in_memory(data: np.ndarray, height: int, width: int, matrix: np.ndarray) -> Picture:
    """The picture whose planes lie one behind another in uint8 ``data``; colour of every pixel is averaged by fours."""
    area, size = height * width, (width // 2, height // 2)
    colours = list(data[area:].reshape(2, -1))
    if len(colours[0]) == area:
        planes = (colour.reshape(height, width) for colour in colours)
        colours = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes]
    halves = (colour.reshape(height // 2, width // 2) for colour in colours)
    return Picture((data[:area].reshape(height, width), *halves), matrix)


def _blocky(planes: tuple[np.ndarray, ...], matrix: np.ndarray) -> np.ndarray:
    """RGB where four pixels share their sample of colour: JPEG's averages of fours are then that sample again."""
    y, *colours = planes
    height, width = y.shape
    if matrix[0, 3] == BT601[0, 3] and matrix[2, 3] == BT601[2, 3]:  # OpenCV has it in one pass over adjoining planes
        joined = np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)
        return np.asarray(cv2.cvtColor(joined, cv2.COLOR_YUV2RGB_I420))
    full = [cv2.resize(colour, (width, height), interpolation=cv2.INTER_NEAREST) for colour in colours]
    return np.asarray(cv2.transform(cv2.merge([y, *full]), matrix))
