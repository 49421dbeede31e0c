"""The points that carry a face: where they lie in the portrait, in a speaker's own face, and in each frame."""

from __future__ import annotations

import cv2
import numpy as np

from contracts.face import (
    BROWS,
    CHIN,
    LEFT_BROW,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    NOSE,
    NOSE_BRIDGE,
    OVAL,
    RIGHT_BROW,
    RIGHT_EYE,
    eye_centres,
)
from preprocessing.demo.cast import Shape
from preprocessing.demo.motion import Motion
from preprocessing.demo.portrait import SIDE, Portrait

_UNDER_LIP = (18, 200, 199, 175)  # between lower lip and chin
_CHEEKS = (50, 280, 205, 425, 187, 411)
_EYES = RIGHT_EYE[::2], LEFT_EYE[::2]
_SIDES = OVAL[5:-5]  # without the forehead, which the fringe covers: the hairline moves there
_FACE = (*_SIDES, *LIPS_OUTER, *LIPS_INNER, *_EYES[0], *_EYES[1], *BROWS, *NOSE, *_UNDER_LIP, *_CHEEKS)
_ROW = {index: row for row, index in enumerate(_FACE)}
_LOWER_OUTER, _UPPER_OUTER = LIPS_OUTER[1:10], LIPS_OUTER[11:]
_LOWER_INNER, _UPPER_INNER = LIPS_INNER[1:10], LIPS_INNER[11:]
_WIDEST = 0.145  # of the face's width: the lips' gap with the jaw wide open


def _rows(indices: tuple[int, ...]) -> list[int]:
    return [_ROW[index] for index in indices]


def _rise(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


class Rig:
    """Control points of one speaker.

    ``sources`` [N, 2]: in the portrait; ``rest`` [N, 3]: in the speaker's face at rest; ``follow`` [N]: how far
    each goes with the head (1) or stays with the shoulders (0).
    """

    def __init__(self, portrait: Portrait, shape: Shape, zoom: float = 1.0) -> None:
        face = portrait.points[list(_FACE)]
        eyes = eye_centres(portrait.points)
        self.centre_x = float(portrait.points[[NOSE_BRIDGE, CHIN], 0].mean())
        self.eyes_y = float(eyes[:, 1].mean())
        self.chin_y = float(portrait.points[CHIN, 1])
        self.width = float(np.ptp(portrait.points[list(OVAL), 0]))
        self._zoom = zoom
        ring, hairline = self._hair(portrait), self._hairline(portrait)
        body, follow = self._body()
        self.sources = np.vstack([face, ring, hairline, body])[:, :2]
        rest = [self._features(face.copy(), eyes, shape), self._volume(ring, portrait, shape)]
        lifted = hairline.copy()
        lifted[:, 1] -= shape.hairline * self.width
        self.rest = np.vstack([*(self._proportions(part, shape) for part in (*rest, lifted)), self._sunk(body, shape)])
        self.follow = np.concatenate([np.ones(len(face) + len(ring) + len(hairline)), follow])
        mouth = self.rest[_rows(LIPS_OUTER), :2]
        self._mouth = mouth.mean(axis=0)
        self._mouth_half = float(np.ptp(mouth[:, 0]) / 2)
        self.inner_lips = _rows(LIPS_INNER)
        self.outer_lips = _rows(LIPS_OUTER)
        self.upper_jaw = _rows((*NOSE, *_UPPER_OUTER, 61, 291))
        self.under_lip = _ROW[18]

    def _hair(self, portrait: Portrait) -> np.ndarray:
        """The outline of the hair from ear over the top to ear, and the same a little further out."""
        centre = np.array([self.centre_x, self.eyes_y + 0.15 * self.width])
        radii = np.arange(0.35, 1.4, 0.005) * self.width
        inner, outer = [], []
        for angle in np.radians(np.linspace(168, 372, 15)):
            towards = np.array([np.cos(angle), np.sin(angle)])
            places = (centre + radii[:, None] * towards).astype(np.float32)
            mask = cv2.remap(portrait.hair, places[None], None, cv2.INTER_LINEAR)[0]
            radius = radii[np.flatnonzero(mask > 0.4)[-1]] if (mask > 0.4).any() else 0.6 * self.width
            inner.append(centre + radius * towards)
            outer.append(centre + (radius + 0.14 * self.width) * towards)
        depth = 0.45 * self.width  # the ears' depth, nearly
        return np.column_stack([np.vstack([inner, outer]), np.full(2 * len(inner), depth)])

    def _hairline(self, portrait: Portrait) -> np.ndarray:
        """Where the fringe ends over the forehead."""
        found = []
        brow_y = portrait.points[list(BROWS), 1].min()
        for x in self.centre_x + np.array([-0.26, -0.13, 0.0, 0.13, 0.26]) * self.width:
            column = portrait.skin[: int(brow_y), round(x)]
            covered = np.flatnonzero(column < 0.5)
            found.append((x, float(covered[-1]) if len(covered) else brow_y - 0.15 * self.width, 0.0))
        return np.array(found)

    def _body(self) -> tuple[np.ndarray, np.ndarray]:
        """Neck and shoulders, and how far they follow the head."""
        x, y, w = self.centre_x, self.chin_y, self.width
        places = [(x - 0.33 * w, y + 0.10 * w, 0.55), (x + 0.33 * w, y + 0.10 * w, 0.55), (x, y + 0.16 * w, 0.6)]
        places += [(x + dx * w, y + 0.36 * w, 0.15) for dx in (-0.75, -0.36, 0.0, 0.36, 0.75)]
        places += [(px, py, 0.0) for py in (SIDE - 30, SIDE + 20) for px in (0, SIDE / 3, SIDE * 2 / 3, SIDE)]
        places += [(px, py, 0.3) for py in (0, SIDE / 2) for px in (-20, SIDE + 20)]
        table = np.array(places, np.float64)
        return np.column_stack([table[:, :2], np.full(len(table), 0.3 * w)]), table[:, 2]

    def _features(self, face: np.ndarray, eyes: np.ndarray, shape: Shape) -> np.ndarray:
        """Eyes, brows, nose and lips of the speaker, before the whole head's proportions."""
        for rows, brow, centre in (
            (_rows(_EYES[0]), _rows(RIGHT_BROW), eyes[0]),
            (_rows(_EYES[1]), _rows(LEFT_BROW), eyes[1]),
        ):
            apart = (shape.eyes_apart - 1) * (centre[0] - self.centre_x)
            face[rows] = centre + (face[rows] - centre) * shape.eyes
            face[[*rows, *brow], 0] += apart
            face[brow, 1] -= shape.brows * self.width
        nose = _rows(NOSE)
        bridge = face[_ROW[NOSE_BRIDGE]].copy()
        low = _rise(0.0, 1.0, (face[nose, 1] - bridge[1]) / (face[nose, 1].max() - bridge[1]))
        face[nose, 0] = self.centre_x + (face[nose, 0] - self.centre_x) * (1 + (shape.nose_width - 1) * (0.3 + low))
        face[nose, 1] += (shape.nose_length - 1) * (face[nose, 1] - bridge[1]) * low
        lips = _rows((*LIPS_OUTER, *LIPS_INNER))
        face[lips, 0] = self.centre_x + (face[lips, 0] - self.centre_x) * shape.mouth
        for outer, inner in ((_LOWER_OUTER, _LOWER_INNER), (_UPPER_OUTER, _UPPER_INNER)):
            thick = face[_rows(outer), 1] - face[_rows(inner), 1]
            face[_rows(outer), 1] += thick * (shape.lips - 1)
        return face

    def _volume(self, ring: np.ndarray, portrait: Portrait, shape: Shape) -> np.ndarray:
        """The outline of the hair with more or less of it above and beside the face."""
        centre = np.array([self.centre_x, self.eyes_y + 0.15 * self.width])
        oval = portrait.points[list(OVAL), :2] - centre
        angles = np.arctan2(oval[:, 1], oval[:, 0])
        order = np.argsort(angles)
        off = ring[:, :2] - centre
        angle, radius = np.arctan2(off[:, 1], off[:, 0]), np.linalg.norm(off, axis=1)
        face = np.interp(angle, angles[order], np.linalg.norm(oval, axis=1)[order], period=2 * np.pi)
        up = np.clip(-np.sin(angle), 0, 1) ** 1.5
        factor = shape.hair_sides + (shape.hair_top - shape.hair_sides) * up
        half = len(ring) // 2  # the outer half keeps its distance from the inner one
        thick = (radius[:half] - face[:half]) * (factor[:half] - 1)
        changed = ring.copy()
        changed[:, :2] += np.tile(thick, 2)[:, None] * off / radius[:, None]
        return changed

    def _proportions(self, points: np.ndarray, shape: Shape) -> np.ndarray:
        """Width of cheeks and jaw, length below the eyes."""
        moved = points.copy()
        u = (points[:, 0] - self.centre_x) / self.width
        v = (points[:, 1] - self.eyes_y) / (self.chin_y - self.eyes_y)
        wide = shape.cheeks + (shape.jaw - shape.cheeks) * _rise(0.30, 0.85, v)
        moved[:, 0] += (wide - 1) * u * self.width * np.clip(np.abs(u) / 0.4, 0, 1)
        below = np.clip(v, 0, 1)
        moved[:, 1] += (shape.length - 1) * below * (self.chin_y - self.eyes_y)
        moved[:, 1] += shape.chin * self.width * _rise(0.7, 1.0, v)
        return moved

    def _sunk(self, body: np.ndarray, shape: Shape) -> np.ndarray:
        """Neck and shoulders, moved as far as the chin is, so that a longer face keeps its neck."""
        moved = body.copy()
        moved[:, 1] += (shape.length - 1) * (self.chin_y - self.eyes_y) + shape.chin * self.width
        return moved

    def spoken(self, motion: Motion, t: int) -> np.ndarray:
        """The points of frame ``t`` before the head moves: float64 [N, 3]."""
        points = self.rest.copy()
        w = self.width
        lips = _rows((*LIPS_OUTER, *LIPS_INNER))
        press, tuck, rounded = motion.press[t], motion.tuck[t], motion.round[t]
        gap = w * (_WIDEST * motion.jaw[t] * (1 - 0.3 * rounded) + 0.02 * rounded) * (1 - press) * (1 - 0.8 * tuck)
        squeeze = (1 - 0.30 * rounded) * (1 + 0.09 * motion.wide[t]) * (1 - 0.05 * motion.jaw[t])
        points[lips, 0] = self._mouth[0] + (points[lips, 0] - self._mouth[0]) * squeeze
        half = self._mouth_half * squeeze
        for rows, part, sharp in (
            (_rows(_LOWER_INNER), 0.86, True),
            (_rows(_UPPER_INNER), -0.14, True),
            (_rows(_LOWER_OUTER), 0.80, False),
            (_rows(_UPPER_OUTER), -0.12, False),
        ):
            side = np.clip(np.abs(points[rows, 0] - self._mouth[0]) / half, 0, 1)
            bell = np.sqrt(1 - 0.98 * side**2) if sharp else 1 - 0.75 * side**2
            points[rows, 1] += part * gap * bell
        thick = 0.055 * w
        points[_rows(_UPPER_OUTER), 1] += thick * (0.22 * press - 0.16 * rounded)
        points[_rows(_LOWER_OUTER), 1] += thick * (-0.22 * press + 0.20 * rounded - 0.25 * tuck)
        points[_rows(_UPPER_INNER), 1] -= 0.018 * w * tuck
        corners = _rows((61, 291, 78, 308))
        points[corners, 1] += 0.10 * gap - 0.010 * w * motion.wide[t]
        below = _rise(self._mouth[1], self.rest[_ROW[CHIN], 1], self.rest[:, 1])
        oval = _rows((*_SIDES, *_UNDER_LIP[1:]))
        points[oval, 1] += 0.66 * gap * below[oval]
        points[self.under_lip, 1] += 0.76 * gap
        points[_rows(_CHEEKS), 1] += 0.06 * gap
        points[_rows(BROWS), 1] -= 0.028 * w * motion.brow[t]
        return points

    def placed(self, points: np.ndarray, motion: Motion, t: int) -> np.ndarray:
        """``points`` [N, 3] of the face, turned and shifted as the head is in frame ``t``: [N, 2], px."""
        pivot = np.array([self.centre_x, self.chin_y + 0.1 * self.width, 0.35 * self.width])
        turn = _rotation(motion.yaw[t], motion.pitch[t], motion.roll[t])
        moved = (points - pivot) @ turn.T + pivot + (motion.shift_x[t], motion.shift_y[t], 0.0)
        mixed = points[:, :2] + self.follow[: len(points), None] * (moved - points)[:, :2]
        still = np.array([SIDE / 2, SIDE * 0.56])
        return np.asarray(still + (mixed - still) * self._zoom)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    return np.asarray(
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    )
