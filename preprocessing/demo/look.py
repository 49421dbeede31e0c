"""What a speaker looks like, painted onto the portrait: skin, hair, beard, clothes, glasses, and the room behind."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from contracts.face import (
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    LIPS_OUTER,
    OVAL,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
)
from preprocessing.demo.cast import Colour, Look
from preprocessing.demo.portrait import SIDE, Portrait
from preprocessing.demo.rig import Rig

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Painting:
    """Pictures in the portrait's geometry, float32, colour already multiplied by alpha."""

    person: np.ndarray  # [512, 512, 4]
    glasses: np.ndarray | None  # [512, 512, 4]


class Painter:
    """Paints one ``look`` onto the portrait; ``rng`` gives the grain of hair, beard and cloth."""

    def __init__(self, portrait: Portrait, rig: Rig, look: Look, rng: np.random.Generator) -> None:
        self._portrait, self._rig, self._look, self._rng = portrait, rig, look, rng
        self._y, self._x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
        self._u = (self._x - rig.centre_x) / rig.width
        self._v = (self._y - rig.eyes_y) / (rig.chin_y - rig.eyes_y)

    def paint(self) -> Painting:
        """All layers, from the back to the front."""
        look, portrait = self._look, self._portrait
        head = self._head()
        neck = self._neck()
        colour, alpha = np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE), np.float32)
        locks = self._long_hair() if look.long_hair else None
        layers = [self._skin_below(neck), self._garment()]
        if locks:
            back, front = locks
            layers = [back, *layers, front]
        layers.append((head, np.clip(portrait.skin + portrait.hair, 0, 1)))
        for picture, mask in layers:
            colour = colour * (1 - mask[..., None]) + picture * mask[..., None]
            alpha = alpha + mask * (1 - alpha)
        if look.light:
            colour = colour * (1 + 0.32 * look.light * np.clip(self._u * 1.6, -1, 1))[..., None]
        person = np.dstack([np.minimum(np.clip(colour, 0, 1), alpha[..., None]), alpha])
        return Painting(person.astype(np.float32), self._glasses() if look.glasses else None)

    def _polygon(self, points: np.ndarray, soft: float) -> np.ndarray:
        mask = np.zeros((SIDE, SIDE), np.float32)
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, shift=4)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), soft))

    def _ring(self, indices: tuple[int, ...], soft: float, grow: float = 1.0) -> np.ndarray:
        points = self._portrait.points[list(indices), :2]
        return self._polygon(points.mean(axis=0) + (points - points.mean(axis=0)) * grow, soft)

    def _grain(self, along_x: float, along_y: float) -> np.ndarray:
        """Noise of mean 0 and deviation 1, stretched."""
        noise = self._rng.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=along_x, sigmaY=along_y)
        return np.asarray(noise / noise.std())

    def _head(self) -> np.ndarray:
        look, portrait = self._look, self._portrait
        picture = portrait.picture
        eyes = np.maximum(self._ring(RIGHT_EYE, 1.2), self._ring(LEFT_EYE, 1.2))
        lips = self._ring(LIPS_OUTER, 1.5)
        skin = portrait.skin * (1 - eyes)
        picture = _tinted(picture, skin, portrait.skin > 0.9, look.skin)
        if look.lips:
            picture = _tinted(picture, lips * 0.8, lips > 0.8, look.lips)
        irises = np.maximum(self._ring(RIGHT_IRIS[1:], 0.8), self._ring(LEFT_IRIS[1:], 0.8)) * eyes
        picture = _tinted(picture, irises * 0.75, irises > 0.5, look.iris)
        if look.freckles:
            spots = np.clip(self._grain(1.7, 1.7) - 1.2, 0, 0.8) * np.clip(1 - np.abs(self._v - 0.3) / 0.35, 0, 1)
            spots = spots * skin * (1 - lips) * look.freckles
            picture = picture * (1 - 0.42 * spots[..., None] * np.array([0.6, 0.9, 1.0], np.float32))
        picture = self._brows(picture, skin)
        picture = self._beard(picture, skin * (1 - cv2.GaussianBlur(lips, (0, 0), 1.5)))
        return self._hair(picture)

    def _brows(self, picture: np.ndarray, skin: np.ndarray) -> np.ndarray:
        if not self._look.brow:
            return picture
        where = np.maximum(self._ring(RIGHT_BROW, 2.0, 1.04), self._ring(LEFT_BROW, 2.0, 1.04)) * skin
        where = where * np.clip(0.8 + 0.35 * self._grain(2.2, 1.0), 0, 1) * 0.75 * self._look.brow
        dark = np.array(self._look.hair, np.float32) * 0.55
        return np.asarray(picture * (1 - where[..., None]) + dark * where[..., None])

    def _beard(self, picture: np.ndarray, skin: np.ndarray) -> np.ndarray:
        look, u, v = self._look, np.abs(self._u), self._v
        points = self._portrait.points
        below_nose = (points[2, 1] + 2 - self._rig.eyes_y) / (self._rig.chin_y - self._rig.eyes_y)
        lip = (points[0, 1] - self._rig.eyes_y) / (self._rig.chin_y - self._rig.eyes_y)
        half = abs(points[61, 0] - points[291, 0]) / 2 / self._rig.width
        cheek = 0.80 - 1.25 * np.clip(u - 0.13, 0, 1)  # the beard's upper edge rises towards the ears
        jaw = np.clip((v - cheek) / 0.10, 0, 1) * np.clip((u + v * 0.9 - 0.62) / 0.12, 0, 1)
        goatee = np.clip((v - 0.79) / 0.05, 0, 1)
        above = np.clip((v - below_nose) / 0.05, 0, 1) * np.clip((0.69 - v) / 0.06, 0, 1)
        above = above * np.clip((half * 1.18 - u + 0.35 * (lip - v)) / 0.03, 0, 1)
        amount = np.maximum(np.maximum(jaw, goatee) * look.beard, above * look.moustache)
        if not amount.any():
            return picture
        amount = cv2.GaussianBlur(amount.astype(np.float32), (0, 0), 3.0) * skin * self._ring(OVAL, 3.0, 1.01)
        hairs = np.clip(0.55 + 0.30 * self._grain(0.6, 1.3), 0, 1)
        where = np.clip(amount * (0.50 + 0.55 * hairs), 0, 0.92)[..., None]
        tone = np.array(look.hair, np.float32) * (0.65 + 0.5 * hairs[..., None]) + 0.02
        return np.asarray(picture * (1 - where) + tone * where)

    def _hair(self, picture: np.ndarray) -> np.ndarray:
        look, mask = self._look, self._portrait.hair
        grey = picture @ _GREY
        mean = float((grey * mask).sum() / mask.sum())
        shine = np.clip(grey / mean, 0, 2.2)[..., None]
        tone = np.array(look.hair, np.float32)
        # dark hair keeps some gloss, else it is a hole in the picture
        painted = tone * shine**0.8 + 0.07 * np.clip(shine - 0.9, 0, 1.2)
        picture = picture * (1 - mask[..., None]) + np.clip(painted, 0, 1) * mask[..., None]
        if look.cap:
            edge = self._rig.eyes_y - 0.30 * self._rig.width + 0.10 * self._rig.width * self._u**2
            knit = np.clip((edge - self._y) / 3 + 0.5, 0, 1) * np.clip(mask * 1.5 + 0.0, 0, 1)
            ribs = 0.82 + 0.18 * np.sin(self._u * 95) * np.clip((self._y - 30) / 60, 0.2, 1)
            round_ = 1 - 0.45 * np.clip(np.abs(self._u) / 0.7, 0, 1) ** 2
            band = np.where(self._y > edge - 0.16 * self._rig.width, 0.86, 1.0)
            cloth = np.array(look.cap, np.float32) * (ribs * round_ * band)[..., None]
            picture = picture * (1 - knit[..., None]) + cloth * knit[..., None]
        return np.asarray(picture)

    def _neck(self) -> np.ndarray:
        w, x, y = self._rig.width, self._rig.centre_x, self._rig.chin_y
        outline = np.array([(-0.33, -0.30), (0.33, -0.30), (0.33, 0.14), (0.42, 0.30), (0.5, 0.7), (-0.5, 0.7)])
        outline = np.vstack([outline, [(-0.42, 0.30), (-0.33, 0.14)]])
        return self._polygon(outline * w + (x, y), 2.0)

    def _skin_below(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w, y = self._rig.width, self._rig.chin_y
        shade = 0.72 + 0.22 * np.clip((self._y - y) / (0.35 * w), 0, 1)  # the chin's shadow
        shade = shade * (1 - 0.9 * np.abs(self._u) ** 2) + 0.015 * self._grain(3, 3)
        return np.array(self._look.skin, np.float32) * shade[..., None], mask

    def _garment(self) -> tuple[np.ndarray, np.ndarray]:
        look, w, x, y = self._look, self._rig.width, self._rig.centre_x, self._rig.chin_y
        shoulder = np.array([(-1.8, 0.62), (-0.95, 0.40), (-0.5, 0.24), (-0.36, 0.12)])
        dip = {"crew": 0.12, "high": 0.03, "vee": 0.40}[look.collar]
        rim = {"crew": 0.04, "high": -0.05, "vee": 0.06}[look.collar]
        t = np.linspace(-1, 1, 21)
        curve = 1 - np.abs(t) if look.collar == "vee" else np.sqrt(1 - t**2)
        neckline = np.column_stack([0.36 * t, rim + (dip - rim) * curve])
        right = shoulder[::-1] * (-1, 1)
        outline = np.vstack([shoulder, neckline, right, [(1.8, 2.0), (-1.8, 2.0)]])
        mask = self._polygon(outline * w + (x, y), 1.4)
        folds = 0.88 + 0.07 * self._grain(22, 45) - 0.30 * np.clip(np.abs(self._u) - 0.45, 0, 1)
        under = 0.55 + 0.45 * np.clip((self._y - y + 0.02 * w) / (0.34 * w) + np.abs(self._u) * 0.7, 0, 1)
        knit = 1 + 0.05 * np.sin(self._x * 1.3) + 0.02 * self._grain(1, 1)
        cloth = np.array(look.wear, np.float32) * (folds * under * knit)[..., None]
        for offset in (0.0, 0.045):  # the collar's seams
            line = neckline * w + (x, y + offset * w)
            seam = np.zeros((SIDE, SIDE), np.float32)
            cv2.polylines(seam, [np.round(line * 16).astype(np.int32)], False, 1.0, 2, cv2.LINE_AA, shift=4)
            cloth = cloth * (1 - 0.4 * cv2.GaussianBlur(seam, (0, 0), 1.0))[..., None]
        return cloth, mask

    def _long_hair(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Hair behind the neck, and the locks that fall in front of the shoulders."""
        look, w, x, y = self._look, self._rig.width, self._rig.centre_x, self._rig.chin_y
        strands = np.clip(0.85 + 0.28 * self._grain(1.6, 60) + 0.10 * self._grain(0.8, 20), 0.2, 1.8)
        tone = np.array(look.hair, np.float32) * strands[..., None] + 0.02 * np.clip(strands - 1.1, 0, 1)[..., None]
        end = look.long_hair
        outer = np.array(
            [(0.60, -1.0), (0.74, -0.55), (0.76, -0.1), (0.78, 0.5 * end), (0.66, end), (0.50, end * 1.06)]
        )
        inner = np.array([(0.40, end * 0.9), (0.36, 0.4 * end), (0.40, 0.05), (0.42, -0.4), (0.40, -1.0)])
        sides = [np.vstack([outer, inner]) * (s, 1) * w + (x, y) for s in (-1, 1)]
        front = np.maximum(*(self._polygon(side, 2.0) for side in sides))
        back = self._polygon(np.vstack([outer, outer[::-1] * (-1, 1)]) * w + (x, y), 2.0)
        return (tone * 0.45, back), (tone, front)

    def _glasses(self) -> np.ndarray:
        frame = np.zeros((SIDE, SIDE), np.float32)
        points = self._portrait.points
        w = self._rig.width
        rims = []
        for ring in (RIGHT_EYE, LEFT_EYE):
            cx, cy = points[list(ring), :2].mean(axis=0) + np.array([0, 0.015 * w])
            if self._look.glasses == "round":
                angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
                rim = np.column_stack([np.cos(angle) * 0.165, np.sin(angle) * 0.155])
            else:
                angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
                power = lambda a: np.sign(a) * np.abs(a) ** 0.45  # noqa: E731
                rim = np.column_stack([power(np.cos(angle)) * 0.17, power(np.sin(angle)) * 0.12])
            rims.append(rim * w + (cx, cy))
        lines = [*rims]
        bridge = np.linspace(rims[0][:, 0].max(), rims[1][:, 0].min(), 9)
        level = (rims[0][:, 1].mean() + rims[1][:, 1].mean()) / 2 - 0.03 * w
        lines.append(np.column_stack([bridge, level - 5 * np.sin(np.linspace(0, np.pi, 9))]))
        for rim, side in ((rims[0], -1), (rims[1], 1)):
            edge = rim[:, 0].min() if side < 0 else rim[:, 0].max()
            lines.append(np.array([(edge, level), (self._rig.centre_x + side * 0.50 * w, level - 4)]))
        for number, line in enumerate(lines):
            closed = number < 2
            cv2.polylines(frame, [np.round(line * 16).astype(np.int32)], closed, 1.0, 4, cv2.LINE_AA, shift=4)
        frame = cv2.GaussianBlur(frame, (0, 0), 0.7) * 0.95
        lens = np.maximum(self._polygon(rims[0], 1.0), self._polygon(rims[1], 1.0))
        gleam = lens * (0.05 + 0.10 * np.clip(np.sin(self._x * 0.035 - self._y * 0.06), 0, 1))
        tone = np.array([0.08, 0.06, 0.06], np.float32)
        alpha = frame + gleam * (1 - frame)
        return np.dstack([tone * frame[..., None] + (gleam * (1 - frame))[..., None], alpha]).astype(np.float32)


def _tinted(picture: np.ndarray, mask: np.ndarray, learn: np.ndarray, colour: Colour) -> np.ndarray:
    """``picture`` with the mean colour of ``learn`` turned into ``colour`` where ``mask`` is."""
    mean = picture[learn].mean(axis=0)
    changed = picture * (np.array(colour, np.float32) / mean)
    changed = np.where(changed > 0.8, 0.8 + 0.2 * np.tanh((changed - 0.8) / 0.2), changed)  # highlights keep their form
    return np.asarray(picture * (1 - mask[..., None]) + changed * mask[..., None])


def room(look: Look, rng: np.random.Generator) -> np.ndarray:
    """The background: uint8 RGB [512, 512, 3]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    top, bottom = (np.array(colour, np.float32) for colour in look.wall)
    slope = np.clip(0.7 * y + 0.3 * np.abs(x - 0.4), 0, 1)[..., None]
    wall = top * (1 - slope) + bottom * slope
    if look.pattern == "glow":
        for cx, cy, radius, strength in rng.uniform((0, 0, 0.05, -0.10), (1, 0.9, 0.16, 0.16), (14, 4)):
            disc = np.clip((radius - np.hypot(x - cx, y - cy)) / 0.03, 0, 1)
            wall = wall + strength * disc[..., None]
    elif look.pattern == "stripes":
        wall = wall * (1 + 0.10 * np.sign(np.sin(x * 55 + 0.5)))[..., None]
    elif look.pattern == "tiles":
        rows = np.floor(y * 11)
        joint = (np.abs((y * 11) % 1 - 0.5) > 0.46) | (np.abs((x * 6 + 0.5 * (rows % 2)) % 1 - 0.5) > 0.475)
        tone = rng.uniform(0.92, 1.05, (12, 8))[rows.astype(int), np.floor(x * 6 + 0.5 * (rows % 2)).astype(int)]
        wall = wall * np.where(joint, 0.82, tone)[..., None]
    elif look.pattern == "window":
        light = np.clip(np.minimum(x - 0.55, 0.98 - x) / 0.01, 0, 1) * np.clip(
            np.minimum(y - 0.05, 0.62 - y) / 0.01, 0, 1
        )
        bars = (np.abs(x - 0.765) < 0.008) | (np.abs(y - 0.33) < 0.008)
        light = light * np.where(bars, 0.0, 1.0)
        sky = np.array([0.80, 0.89, 0.97], np.float32) * (1 - 0.25 * y[..., None])
        wall = wall * (1 - light[..., None]) + sky * light[..., None]
    elif look.pattern == "shelf":
        for shelf in range(3):
            base, left = 0.20 + 0.30 * shelf, 0.0
            while left < 1:
                thick, height = rng.uniform(0.025, 0.06), rng.uniform(0.14, 0.22)
                book = (x >= left) & (x < left + thick * 0.94) & (y < base) & (y > base - height)
                wall = np.where(
                    book[..., None], rng.uniform(0.12, 0.42) + rng.uniform(-0.08, 0.12, 3).astype(np.float32), wall
                )
                left += thick
            wall = np.where((np.abs(y - base - 0.012) < 0.012)[..., None], bottom * 0.7, wall)
    wall = cv2.GaussianBlur(np.clip(wall, 0, 1).astype(np.float32), (0, 0), 2.2)
    wall = wall + rng.uniform(-0.012, 0.012, wall.shape)
    return np.asarray(np.round(np.clip(wall, 0, 1) * 255).astype(np.uint8))
