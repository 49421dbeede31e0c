"""Frames of a speaker: the painted portrait warped by the rig, with eyelids, an inner mouth and a room."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from contracts.face import LEFT_EYE, RIGHT_EYE
from preprocessing.demo.cast import Speaker
from preprocessing.demo.look import Painter, room
from preprocessing.demo.motion import Motion
from preprocessing.demo.portrait import SIDE, Portrait, portrait
from preprocessing.demo.rig import Rig
from preprocessing.demo.warp import FINE, Field, sample

_LID = 13  # px above the eye that a lid may colour
_BELOW = 9  # px under the eye, where the skin has the lid's colour and no brow comes near
_AROUND_LIPS = 26  # px


class Performer:
    """One speaker, ready to act. What costs time is done here, once."""

    def __init__(self, speaker: Speaker, seed: int) -> None:
        cv2.setNumThreads(1)
        base = portrait()
        rng = np.random.default_rng([seed, *speaker.name.encode()])
        self._mirrored = speaker.look.mirrored
        self.rig = Rig(base, speaker.shape, speaker.zoom)
        painting = Painter(base, self.rig, speaker.look, rng).paint()
        self._person = _bytes(painting.person)
        self._glasses = None if painting.glasses is None else _bytes(painting.glasses)
        self._lids = [_Lid(base, RIGHT_EYE), _Lid(base, LEFT_EYE)]
        self._teeth = _bytes(np.dstack([base.smile * base.mouth[..., None] * 0.92, base.mouth]))
        self.room = room(speaker.look, rng)

    def frames(self, motion: Motion, side: int = SIDE) -> Iterator[np.ndarray]:
        """Every frame of ``motion``: uint8 RGB [side, side, 3]."""
        for t in range(len(motion)):
            frame = self.frame(motion, t)
            if side != SIDE:
                frame = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
            yield frame

    def frame(self, motion: Motion, t: int) -> np.ndarray:
        """Frame ``t`` of ``motion``: uint8 RGB [512, 512, 3]."""
        rig = self.rig
        points = rig.placed(rig.spoken(motion, t), motion, t)
        field = Field(points, rig.sources)
        where = field.over(SIDE, SIDE)
        x0, y0, x1, y1 = self._lip_box(points)
        where[y0:y1, x0:x1] = field.over(x1 - x0, y1 - y0, x0, y0, FINE)
        person = sample(self._eyes(float(motion.blink[t])), where)
        self._inner_mouth(person[y0:y1, x0:x1], points, motion, t, (x0, y0))
        clear = cv2.cvtColor(255 - cv2.extractChannel(person, 3), cv2.COLOR_GRAY2RGB)
        frame = cv2.add(cv2.multiply(self.room, clear, scale=1 / 255), cv2.cvtColor(person, cv2.COLOR_RGBA2RGB))
        return np.asarray(cv2.flip(frame, 1) if self._mirrored else frame)

    def _lip_box(self, points: np.ndarray) -> tuple[int, int, int, int]:
        lips = points[self.rig.outer_lips]
        low = np.maximum(np.floor(lips.min(axis=0)).astype(int) - _AROUND_LIPS, 0)
        high = np.minimum(np.ceil(lips.max(axis=0)).astype(int) + _AROUND_LIPS, SIDE)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _eyes(self, shut: float) -> np.ndarray:
        """The painting with the lids lowered and the glasses on."""
        if shut < 0.01 and self._glasses is None:
            return self._person
        person = self._person.copy()
        if shut >= 0.01:
            for lid in self._lids:
                lid.lower(person, shut)
        if self._glasses is not None:
            person = cv2.add(
                cv2.multiply(person, cv2.merge([255 - self._glasses[..., 3]] * 4), scale=1 / 255), self._glasses
            )
        return person

    def _inner_mouth(
        self, person: np.ndarray, points: np.ndarray, motion: Motion, t: int, corner: tuple[int, int]
    ) -> None:
        """Paint what the open lips show into ``person`` [h, w, 4], the part of the frame at ``corner``."""
        rig = self.rig
        ring = points[rig.inner_lips] - corner
        middle = len(ring) // 4 + 1  # of the lower row
        gap = float(ring[5, 1] - ring[15, 1])
        if gap < 2.0:
            return
        height, width = person.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [np.round(ring * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        # upper teeth sit in the skull, so they move with the head alone
        still = rig.placed(rig.rest, motion, t)[rig.upper_jaw]
        matrix, *_ = np.linalg.lstsq(
            np.column_stack([still - corner, np.ones(len(still))]), rig.sources[rig.upper_jaw], rcond=None
        )
        teeth = cv2.warpAffine(
            self._teeth, matrix.T, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        ).astype(np.float32)
        inside = np.empty((height, width, 3), np.float32)
        inside[:] = (46.0, 16.0, 16.0)
        tongue = np.zeros((height, width), np.float32)
        centre = ring[middle - 1] + (0, 1)
        size = (0.62 * np.ptp(ring[:, 0]) / 2, max(2.0, 0.42 * gap))
        angle = np.linspace(0, 2 * np.pi, 40)
        outline = centre + np.column_stack([np.cos(angle) * size[0], np.sin(angle) * size[1]])
        cv2.fillPoly(tongue, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_AA, shift=4)
        tongue = cv2.GaussianBlur(tongue, (0, 0), 2.0)[..., None] * 0.8
        inside = inside * (1 - tongue) + np.array([140.0, 62.0, 62.0], np.float32) * tongue
        inside = inside * (1 - teeth[..., 3:] / 255) + teeth[..., :3]
        deep = cv2.GaussianBlur(mask, (0, 0), max(1.5, 0.16 * gap)).astype(np.float32)[..., None] / 255
        inside = inside * np.clip(1.25 * deep - 0.15, 0.1, 1)
        cover = cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32)[..., None] / 255
        person[..., :3] = np.round(person[..., :3] * (1 - cover) + inside * cover).astype(np.uint8)


class _Lid:
    """The upper lid of one eye: smooth skin that comes down over the eye, lashes at its edge."""

    def __init__(self, base: Portrait, ring: tuple[int, ...]) -> None:
        points = base.points[list(ring), :2]
        lower, upper = points[:9], np.vstack([points[8:], points[:1]])
        x0, x1 = int(np.floor(points[:, 0].min())) - 3, int(np.ceil(points[:, 0].max())) + 4
        y0, y1 = int(np.floor(points[:, 1].min())) - _LID - 4, int(np.ceil(points[:, 1].max())) + 6
        self._box = (slice(y0, y1), slice(x0, x1))
        columns = np.arange(x0, x1)
        self._top = _curve(columns, upper) - 2.0
        self._bottom = np.maximum(_curve(columns, lower) + 0.5, self._top)
        # no lid where there is no eye
        self._open = np.clip((self._bottom - self._top - 2.0) / 3.0, 0, 1)
        self._y = np.arange(y0, y1)[:, None] + np.zeros(len(columns))
        self._skin_row = np.round(self._bottom + _BELOW).astype(int), columns

    def lower(self, person: np.ndarray, shut: float) -> None:
        """Lower the lid by ``shut`` (0..1) in ``person`` [512, 512, 4], in place."""
        edge = self._top + shut * (self._bottom - self._top)
        skin = person[self._skin_row][None].astype(np.float32)
        skin = cv2.GaussianBlur(skin, (0, 0), sigmaX=4.0, sigmaY=0.1, borderType=cv2.BORDER_REPLICATE)
        round_ = 1 - 0.16 * np.clip((self._y - self._top) / np.maximum(self._bottom - self._top, 1), 0, 1)
        lash = np.clip(1.8 - np.abs(self._y - edge), 0, 1) * min(1.0, 4 * shut) * self._open
        lid = skin * (round_ * (1 - 0.72 * lash))[..., None]
        cover = np.clip((self._y - self._top + 5.0) / 3.0, 0, 1) * np.clip(edge + 1.6 - self._y, 0, 1)
        cover = (cover * self._open * min(1.0, 5 * shut))[..., None]
        part = person[self._box]
        part[..., :3] = np.round(part[..., :3] * (1 - cover) + lid[..., :3] * cover)


def _curve(columns: np.ndarray, points: np.ndarray) -> np.ndarray:
    order = np.argsort(points[:, 0])
    return np.interp(columns, points[order, 0], points[order, 1])


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
