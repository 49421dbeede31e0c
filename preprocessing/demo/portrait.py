"""The one portrait that every demo speaker is made from, taken apart: points, masks, a closed mouth, teeth.

The picture is NASA's portrait of the astronaut Eileen Collins (1999, public domain), which ships inside
scikit-image. She smiles; speech needs a face at rest, so her lips are closed here once, and her teeth kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from contracts.face import (
    BROWS,
    CHIN,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    NOSE,
    OVAL,
    RIGHT_EYE,
)
from preprocessing.demo.warp import Field, sample

SIDE = 512  # px of the working picture
_CUT = (107, 2, 240)  # x, y, side in the source: head and collar
_UPPER = (191, 80, 81, 82, 13, 312, 311, 310, 415)  # inner upper lip, right corner to left
_LOWER = (95, 88, 178, 87, 14, 317, 402, 318, 324)  # inner lower lip, the same columns
_OUTER_UPPER = (185, 40, 39, 37, 0, 267, 269, 270, 409)
_OUTER_LOWER = (146, 91, 181, 84, 17, 314, 405, 321, 375)
_CORNERS = (61, 291)
_INNER_CORNERS = (78, 308)
_SLIT = 1.2  # px left between closed lips, so that no two points coincide


@dataclass(frozen=True)
class Portrait:
    """The portrait at rest. Pictures are float32 in 0..1, RGB [512, 512, 3]; masks float32 [512, 512]."""

    picture: np.ndarray  # lips closed
    points: np.ndarray  # float64 [478, 3], px, of ``picture``; z towards the back
    person: np.ndarray  # mask of her against the background
    skin: np.ndarray
    hair: np.ndarray
    smile: np.ndarray  # the picture as it was, teeth showing
    mouth: np.ndarray  # mask of the teeth in ``smile``


@lru_cache(maxsize=1)
def portrait() -> Portrait:
    """Take the portrait apart (about a second, once per process)."""
    import skimage.data

    whole = skimage.data.astronaut()
    x, y, side = _CUT
    cut = whole[y : y + side, x : x + side]
    large = cv2.resize(cut, (SIDE, SIDE), interpolation=cv2.INTER_LANCZOS4)
    soft = cv2.GaussianBlur(large, (0, 0), 2.0)
    smile = np.clip(large.astype(np.float32) * 1.35 - soft.astype(np.float32) * 0.35, 0, 255) / 255.0
    points = _points(large)
    person = _person(whole, smile)
    skin, hair = _skin_and_hair(smile, points, person)
    rest = _at_rest(points)
    mouth = np.zeros((SIDE, SIDE), np.float32)
    ring = np.round(points[list(LIPS_INNER), :2] * 16).astype(np.int32)
    cv2.fillPoly(mouth, [ring], 1.0, cv2.LINE_AA, shift=4)
    upper, lower = _closing(points, rest)
    return Portrait(
        picture=_blend(smile, upper, lower, rest),
        points=rest,
        person=person,
        skin=_blend(skin, upper, lower, rest),
        hair=hair,
        smile=smile,
        mouth=cv2.GaussianBlur(mouth, (0, 0), 1.0),
    )


def _points(picture: np.ndarray) -> np.ndarray:
    from preprocessing.landmarks import quiet

    with quiet():
        import mediapipe

        with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
            found = mesh.process(picture).multi_face_landmarks
    if not found:
        raise RuntimeError("mediapipe sees no face in scikit-image's astronaut: make setup installs both again")
    points = np.array([(p.x, p.y, p.z) for p in found[0].landmark]) * SIDE
    # eighths of a pixel: rounding differences between processors must not reach the pictures
    return np.round(points * 8) / 8


def _person(whole: np.ndarray, guide: np.ndarray) -> np.ndarray:
    from preprocessing.landmarks import quiet

    with quiet():
        import mediapipe

        with mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0) as segmenter:
            mask = segmenter.process(whole).segmentation_mask
    x, y, side = _CUT
    mask = np.round(mask[y : y + side, x : x + side] * 64) / 64
    mask = cv2.resize(mask.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    mask = cv2.ximgproc.guidedFilter(guide, np.clip(mask, 0, 1), 6, 1e-3)
    return np.asarray(np.clip((mask - 0.35) / 0.5, 0, 1))


def _skin_and_hair(picture: np.ndarray, points: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Soft masks, by colour: three Gaussians learnt from where skin, hair and the wall behind surely are."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    oval = points[list(OVAL), :2]
    centre, width = oval.mean(axis=0), float(np.ptp(oval[:, 0]))
    brow_y, chin_y, nose_y = points[list(BROWS), 1].min(), points[CHIN, 1], points[list(NOSE), 1].max()
    yy, xx = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    across = np.abs(xx - centre[0]) / width
    inner = _filled(np.maximum(centre + (oval - centre) * 0.8, (0, brow_y + 2)))
    sure_skin = inner.copy()
    for ring in (LEFT_EYE, RIGHT_EYE, LIPS_OUTER):
        sure_skin &= ~cv2.dilate(_filled(points[list(ring), :2]).astype(np.uint8), np.ones((9, 9), np.uint8)).astype(
            bool
        )
    above = yy < brow_y - 0.10 * width
    sure_hair = (person > 0.95) & (above | ((across > 0.56) & (yy < nose_y))) & (yy < chin_y - 20)
    sure_wall = (person < 0.02) & (cv2.dilate(person, np.ones((61, 61))) > 0.5) & (yy < chin_y)
    skin, hair, wall = (_likelihood(lab, sure) for sure in (sure_skin, sure_hair, sure_wall))
    # what colour cannot know: the face below the brows is skin, the top of the head hair, and no wall is inside
    face = _filled(centre + (oval - centre) * 0.97) & (yy > brow_y + 0.3 * width)
    neck = (
        (across < np.where(xx < centre[0], 0.345, 0.31))
        & (yy > chin_y - 0.3 * width)
        & (yy < chin_y + 0.09 * width)
        & (lab[..., 0] > 18)
    )
    top = yy < brow_y - 0.27 * width
    deep = (cv2.erode(person, np.ones((41, 41))) > 0.9) | inner | face | neck
    wall = np.where(deep | (person > 0.98) & top, -1e3, wall)
    skin = np.where(inner | face | neck, 1e3, np.where(top, -1e3, skin))
    most = np.maximum(np.maximum(skin, hair), wall)
    parts = [np.exp(np.maximum(part - most, -30)) for part in (skin, hair, wall)]
    shares = [(part / sum(parts)).astype(np.float32) for part in parts]
    soft_skin, soft_hair = (cv2.ximgproc.guidedFilter(picture, share, 4, 4e-4) for share in shares[:2])
    below = np.clip((chin_y + 0.13 * width - yy) / 16, 0, 1)
    inside = (
        _filled(centre + (oval - centre) * 1.03)
        | (across < np.where(xx < centre[0], 0.345, 0.31))
        | (yy < nose_y + 0.05 * width) & (across < 0.6)
    )
    inside = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.5)
    mask_skin = np.clip((soft_skin - 0.25) / 0.5, 0, 1) * below * person * inside
    # her hair ends above the corners of her mouth; dark things further down are her collar
    ends = np.clip((nose_y + 0.16 * width - yy) / 10, 0, 1) * np.clip((0.85 - across) / 0.05, 0, 1)
    mask_hair = np.clip((soft_hair - 0.25) / 0.5, 0, 1) * ends * person
    return mask_skin.astype(np.float32), mask_hair.astype(np.float32)


def _filled(ring: np.ndarray) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.round(ring).astype(np.int32)], 1)
    return mask.astype(bool)


def _likelihood(lab: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Logarithm of how well each pixel's colour fits the pixels of ``sure``."""
    values = lab[sure]
    spread = np.cov(values.T) + 4 * np.eye(3)
    off = lab.reshape(-1, 3) - values.mean(axis=0)
    distance = np.einsum("ni,ij,nj->n", off, np.linalg.inv(spread), off)
    return np.asarray((-0.5 * distance - 0.5 * np.log(np.linalg.det(spread))).reshape(SIDE, SIDE))


def _at_rest(points: np.ndarray) -> np.ndarray:
    """The points with the smile gone: corners in and down, lips together."""
    rest = points.copy()
    middle = points[[13, 14], :2].mean(axis=0)
    half = np.linalg.norm(points[291, :2] - points[61, :2]) / 2
    gap = points[14, 1] - points[13, 1]
    slit_y = points[13, 1] + 0.42 * gap
    lowered = 0.62 * (slit_y - points[list(_CORNERS), 1].mean())

    def corner(index: int) -> np.ndarray:
        moved = points[index, :2].copy()
        moved[0] = middle[0] + (moved[0] - middle[0]) * 0.84
        moved[1] += lowered
        return moved

    for index in (*_CORNERS, *_INNER_CORNERS):
        rest[index, :2] = corner(index)
    level = rest[list(_INNER_CORNERS), 1].mean()
    for upper, lower, outer_upper, outer_lower in zip(_UPPER, _LOWER, _OUTER_UPPER, _OUTER_LOWER):
        x = middle[0] + (points[[upper, lower], 0].mean() - middle[0]) * 0.84
        t = np.clip(abs(x - middle[0]) / (half * 0.84), 0, 1)
        seam = slit_y + (level - slit_y) * t**2
        thick_up = points[upper, 1] - points[outer_upper, 1]
        thick_low = points[outer_lower, 1] - points[lower, 1]
        rest[upper, :2] = x, seam - _SLIT / 2
        rest[lower, :2] = x, seam + _SLIT / 2
        rest[outer_upper, :2] = middle[0] + (points[outer_upper, 0] - middle[0]) * 0.86, seam - thick_up * 1.08
        rest[outer_lower, :2] = middle[0] + (points[outer_lower, 0] - middle[0]) * 0.86, seam + thick_low * 1.05
    return rest


def _still() -> list[int]:
    """Points that closing the mouth leaves where they are."""
    chin = {OVAL[(OVAL.index(CHIN) + k) % len(OVAL)] for k in range(-3, 4)}
    return [*(i for i in OVAL if i not in chin), *chin, *NOSE, *BROWS, *LEFT_EYE, *RIGHT_EYE]


def _closing(points: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fields of the picture above and below the seam of the lips."""
    edge = np.array([(x, y) for x in (0, SIDE / 2, SIDE) for y in (0, SIDE / 2, SIDE) if (x, y) != (SIDE / 2,) * 2])
    fields = []
    for lips in ((*_UPPER, *_OUTER_UPPER), (*_LOWER, *_OUTER_LOWER)):
        chosen = [*_still(), *_CORNERS, *_INNER_CORNERS, *lips]
        field = Field(np.vstack([rest[chosen, :2], edge]), np.vstack([points[chosen, :2], edge]))
        fields.append(field.over(SIDE, SIDE, step=2))
    return fields[0], fields[1]


def _blend(image: np.ndarray, upper: np.ndarray, lower: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """``image`` seen through the upper field above the seam and the lower one below, softer away from the lips."""
    seam = rest[[_INNER_CORNERS[0], *_UPPER, _INNER_CORNERS[1]], :2]
    yy, xx = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    height = np.interp(xx[0], seam[:, 0], seam[:, 1] + _SLIT / 2).astype(np.float32)
    beyond = np.maximum(np.maximum(seam[0, 0] - xx, xx - seam[-1, 0]), 0)
    below = np.clip((yy - height) / (1.0 + beyond * 0.8) + 0.5, 0, 1)
    if image.ndim == 3:
        below = below[..., None]
    return np.asarray(sample(image, upper) * (1 - below) + sample(image, lower) * below)
