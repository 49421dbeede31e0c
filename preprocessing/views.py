"""Views of a stored crop, and the way back: every system sees an affine of the crop, and pastes through its inverse.

| who                                            | view of the crop | what it shows                                   |
|------------------------------------------------|------------------|-------------------------------------------------|
| TalkFormer, See the Speaker, the lip prior     | ``FACE``         | all of it, 256 x 256                            |
| See the Speaker's high resolution (VFHQ)       | ``LARGE``        | all of it, 512 x 512                            |
| G4G                                            | ``TALL``         | its height, the middle of its width, 416 x 320  |
| G4G's mouth, which alone is generated          | ``MOUTH``        | 256 x 256 of ``TALL``, unscaled                 |

Affines are [2, 3] (or [T, 2, 3]), pixels to pixels, pixel centres at integers. ``crop_from_source`` is in every
sample; ``a_from_b`` takes points of b to points of a, and warps pictures of b into a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.crop import view
from preprocessing.warp import warp

SOFT = 4.0  # px of the view over which a pasted view fades out at its edge: no seam, and nothing beyond it changes


@dataclass(frozen=True)
class View:
    """What a system sees of a stored crop: its size, and for a part of a larger view that part's place in it."""

    height: int
    width: int
    left: int = 0  # of the part, in pixels of the larger view
    top: int = 0
    within: tuple[int, int] | None = None  # height and width of the larger view

    def from_crop(self, side: int) -> np.ndarray:
        """Affine [2, 3] from a stored crop of ``side`` pixels."""
        matrix = view(side, self.within or (self.height, self.width))
        matrix[:, 2] -= (self.left, self.top)
        return matrix

    def from_source(self, crop_from_source: np.ndarray, side: int) -> np.ndarray:
        """Affines [..., 2, 3] from source pixels, for those of a sample's crops of ``side`` pixels."""
        return compose(self.from_crop(side), crop_from_source)


FACE, LARGE, TALL = View(256, 256), View(512, 512), View(416, 320)
# in TALL the middle of the mouth lies at 272 px (median over the samples of 45 clips and 160 faces), the chin of an
# open mouth at 367 (median) to 399 (95 %): the part reaches from above the eyes (lower lids: 179) to below it
MOUTH = View(256, 256, left=32, top=152, within=(416, 320))


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The affine that does ``first``, then ``second``: both [..., 2, 3], leading axes broadcast."""
    turn = second[..., :2] @ first[..., :2]
    shift = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return np.asarray(np.concatenate([turn, shift], axis=-1))


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The way back through affines [..., 2, 3]. Raises ``numpy.linalg.LinAlgError`` where there is none."""
    turn = np.linalg.inv(matrix[..., :2])
    return np.asarray(np.concatenate([turn, -turn @ matrix[..., 2:]], axis=-1))


def move(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., N, 2] through affines [..., 2, 3]."""
    return np.asarray(points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2])


def paste(
    source: np.ndarray, seen: np.ndarray, view_from_source: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """``source`` (uint8 [H, W, 3]) with the view ``seen`` (uint8 [h, w, 3]) put back where it was taken from.

    Pixels whose centres lie outside of the view are kept to the bit; at its edge it fades in over 4 px. With ``mask``
    (float32 [h, w] in 0..1) it counts only that much, and where the mask is 0 the source is kept to the bit, too.
    """
    height, width = source.shape[:2]
    h, w = seen.shape[:2]
    back = inverse(np.asarray(view_from_source, np.float64))
    corners = move(back, np.array([[0.0, 0.0], [w - 1.0, 0.0], [0.0, h - 1.0], [w - 1.0, h - 1.0]]))
    x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, (width, height)).astype(int)
    if x0 >= x1 or y0 >= y1:
        return source.copy()
    back[:, 2] -= (x0, y0)
    new = warp(seen, back, (y1 - y0, x1 - x0)).astype(np.float32)
    y, x = np.mgrid[y0:y1, x0:x1]
    at = move(np.asarray(view_from_source, np.float64), np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(*x.shape, 2)
    inside = np.minimum(at, np.array([w - 1.0, h - 1.0]) - at).min(axis=-1)  # px to the nearest edge
    weight = np.clip(inside / SOFT, 0.0, 1.0)[..., None].astype(np.float32)
    if mask is not None:
        moved = warp(np.ascontiguousarray(mask, np.float32), back, (y1 - y0, x1 - x0), smooth=False)
        weight = weight * np.clip(moved, 0.0, 1.0)[..., None]
    pasted = source.copy()
    part = pasted[y0:y1, x0:x1]
    mixed = np.clip(np.rint(part + weight * (new - part)), 0, 255).astype(np.uint8)
    pasted[y0:y1, x0:x1] = np.where(weight > 0, mixed, part)
    return pasted
