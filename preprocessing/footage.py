"""A source video for dubbing: where its one face is in every frame, and its frames, as often as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.manifest import row_from
from contracts.plan import PlannedRow
from contracts.reasons import Reason, first
from preprocessing import media
from preprocessing.crop import align, apply
from preprocessing.landmarks import face_width, fill
from preprocessing.picture import Picture
from preprocessing.step import Clip, Tools, require_size
from preprocessing.watch import Watch

HELD = 6  # frames for which a lost face is taken to be between where it was and where it is again
GATHERED = 8  # frames with a face that are handed on together


@dataclass(frozen=True)
class Shot:
    """The frames between two cuts. ``there`` bool [T] says in which the face is; in a shot without, in none."""

    first: int
    there: np.ndarray
    matrices: np.ndarray | None = None  # [T, 2, 3], crop from source
    references: np.ndarray | None = None  # uint8 [k, S, S, 3]
    landmarks: np.ndarray | None = None  # float32 [k, 478, 2], 0..1 of the crop
    points: np.ndarray | None = None  # float32 [T, 478, 2], the same of all frames


@dataclass(frozen=True)
class Gathered:
    """Successive frames of a shot: with a face in each, or none in any (``crops`` is None then)."""

    shot: Shot
    frames: list[np.ndarray]  # uint8 [H, W, 3]
    crops: np.ndarray | None = None  # uint8 [n, S, S, 3]
    matrices: np.ndarray | None = None  # [n, 2, 3]
    points: np.ndarray | None = None  # float32 [n, 478, 2], 0..1 of the crops


class Footage:
    """A video watched once, then decoded anew as often as its frames are asked for: memory holds no pictures.

    What stays is 4 kB a frame, landmarks for the most part, and each shot's references.
    """

    def __init__(self, path: Path, shots: list[Shot], side: int, limits: Limits, end_s: float | None) -> None:
        self.shots, self.side = shots, side
        self.count = sum(len(shot.there) for shot in shots)
        self._path, self._limits, self._end_s = path, limits, end_s

    def gather(self, total: int) -> Iterator[Gathered]:
        """``total`` frames in order, from the start again where the video is over, at most eight at a time."""
        given = 0
        while given < total:
            for part in self._pass(min(self.count, total - given)):
                given += len(part.frames)
                yield part

    def untouched(self, total: int) -> int:
        """How many of ``total`` frames have no face."""
        without = ~np.concatenate([shot.there for shot in self.shots])
        whole, rest = divmod(total, self.count)
        return int(whole * without.sum() + without[:rest].sum())

    def _pass(self, total: int) -> Iterator[Gathered]:
        found = media.probe(self._path, self._limits, end_s=self._end_s)
        with media.decode(found, self._limits, end_s=self._end_s) as decoding:
            pictures = decoding.pictures()
            for shot in self.shots:
                held: list[Picture] = []
                length = min(len(shot.there), total - shot.first)
                for number in range(max(length, 0)):
                    held.append(next(pictures).copy())  # its memory is used again
                    ends = number + 1 == length or len(held) == GATHERED
                    if ends or shot.there[number + 1] != shot.there[number]:
                        yield self._gathered(shot, number + 1 - len(held), held)
                        held = []

    def _gathered(self, shot: Shot, start: int, held: list[Picture]) -> Gathered:
        frames = [np.ascontiguousarray(picture.rgb) for picture in held]
        if not shot.there[start]:
            return Gathered(shot, frames)
        assert shot.matrices is not None
        assert shot.points is not None
        part = slice(start, start + len(held))
        matrices = shot.matrices[part]
        crops = np.stack([picture.warped(m, self.side) for picture, m in zip(held, matrices, strict=True)])
        return Gathered(shot, frames, crops, matrices, shot.points[part])


def watch(
    path: Path, side: int, references: int, seconds: float, limits: Limits | None = None, tools: Tools | None = None
) -> Footage:
    """Find and follow the face of the video at ``path``, as ingestion does, as far as ``seconds`` of it are needed.

    ``side``: of the aligned crops, px; ``references``: how many of each shot are kept, evenly spread over it. Where
    several faces are comparable the one whose lips move with the video's own sound is meant. Shots without a face
    stay as they are. Raises ``Reject`` where no shot has one, and what decoding raises (a video needs sound, too).
    """
    limits = limits or Limits()
    found = media.probe(path, limits)
    start, end = found.overlap
    end_s = start + seconds if start + max(seconds, limits.shortest_s) < end else None
    row = row_from({"file": path.name, "kind": "clip", "end_s": end_s})
    clip = Clip(PlannedRow(row=0, shard=0, key="footage", values=row), path)
    try:
        spans = list(Watch(tools or Tools(), limits)(clip))
        shots, number = [], 0
        for span in spans:
            shots.append(_shot(span, number, side, references, limits))
            number += span.frames
    finally:
        clip.close()
    if not any(shot.there.any() for shot in shots):
        refusals = {span.refusal.reason: span.refusal for span in spans if span.refusal is not None}
        raise refusals[first(list(refusals))]
    return Footage(path, shots, side, limits, end_s)


def _shot(span: Clip, number: int, side: int, references: int, limits: Limits) -> Shot:
    """What is kept of a span that was watched. A shot that cannot be used has its ``refusal`` set, and no face."""
    nobody = Shot(number, np.zeros(span.frames, bool))
    if span.refusal is not None or span.points is None or span.found is None or span.pockets is None:
        return nobody
    try:
        if not span.found.any():
            raise Reject(Reason.FACE_LOST, "a detector sees a face, no landmarks fit it in any frame")
        require_size(float(np.median(face_width(span.points[span.found]))), limits)
    except Reject as refusal:
        span.refusal = refusal
        return nobody
    points = fill(span.points, span.found)
    matrices = align(points, side)
    seen = np.flatnonzero(span.found)
    chosen = seen[np.linspace(0, len(seen) - 1, references).round().astype(int)]
    crops = np.stack([span.pockets.crop(int(t), matrices[t], side) for t in chosen])
    landmarks = np.ascontiguousarray(apply(matrices, points, side)[..., :2])
    return Shot(number, _held(span.found), matrices, crops, landmarks[chosen], landmarks)


def _held(found: np.ndarray) -> np.ndarray:
    """``found`` bool [T] with its gaps of at most ``HELD`` frames closed; its ends stay as they are."""
    there = found.copy()
    seen = np.flatnonzero(found)
    for before, after in pairwise(seen):
        if after - before - 1 <= HELD:
            there[before:after] = True
    return there
