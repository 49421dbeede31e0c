"""The step: one clip in, its spans out, or a ``Reject``. What a clip is on its way, and the tools of a worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.manifest import Kind, Row
from contracts.plan import PlannedRow
from contracts.reasons import Reason
from preprocessing.faces import Face, FaceFinder, choose
from preprocessing.landmarks import FaceMesh, Follower, face_width
from preprocessing.picture import Picture
from preprocessing.pockets import Pockets, Spool

MOST_FACES = 8  # of a crowd, the widest
# limits that decoding picture and sound reads
OF_MEDIA = frozenset({"video_pixels", "streams", "duration_s", "shortest_s", "decode_deadline_s", "decode_memory_mb"})


@dataclass
class Clip:
    """A manifest row, or one span of it, on its way through the steps. Each step fills in what it finds."""

    planned: PlannedRow
    path: Path
    span: int = 0
    frames: int = 0  # T at 25 per second; 0 for speech
    start_s: float = 0.0  # on the container's clock
    end_s: float = 0.0
    sound: np.ndarray | None = None  # int16 [640 T], or [N] for speech
    points: np.ndarray | None = None  # [T, 478, 3] source pixels; NaN where lost, until filled
    found: np.ndarray | None = None  # bool [T]
    pockets: Pockets | None = None
    spool: Spool = field(default_factory=Spool)  # under the pockets; the spans of a row share it
    side: int = 0  # of the stored crop, px
    features: dict[str, np.ndarray] = field(default_factory=dict)  # of the sample, contracts.sample.Features
    source: dict[str, Any] = field(default_factory=dict)  # ledger columns of row and span
    scores: dict[str, Any] = field(default_factory=dict)  # ledger columns of the span
    members: dict[str, bytes] = field(default_factory=dict)  # the sample, once stored
    refusal: Reject | None = None  # why this span is none; later steps pass it over

    @property
    def kind(self) -> Kind:
        return self.planned.values.kind

    @property
    def key(self) -> str:
        """Of the sample: ``<row key>-s00``."""
        return f"{self.planned.key}-s{self.span:02d}"

    def close(self) -> None:
        """Free what was put aside; no pocket can be read afterwards."""
        self.spool.close()


class Step(Protocol):
    """One thing done to every clip. It refuses by raising ``Reject``."""

    version: ClassVar[int]  # raise it when the step's result changes: rows of its kinds are then made anew
    kinds: ClassVar[frozenset[Kind]]  # that it touches; rows of others do not come to it
    reads: ClassVar[frozenset[str]]  # settings (fields of Limits, or jpeg_quality) that its result depends on

    def open(self) -> None:
        """Load what is heavy, once per worker."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        """The clip itself, filled in; or several, where one span becomes more; kinds it does not know pass."""


class Tools:
    """Detectors and face mesh of one worker process, each loaded on first use."""

    def __init__(self) -> None:
        self.finder = FaceFinder()

    @cached_property
    def mesh(self) -> FaceMesh:
        return FaceMesh()

    def points(self, image: np.ndarray, point: tuple[float, float] | None, limits: Limits) -> tuple[np.ndarray, Face]:
        """Points [478, 3] of the face in a single picture, and the box it was found by.

        Raises ``Reject``: NO_FACE, MANY_FACES, FACE_LOST where no mesh fits, FACE_SMALL.
        """
        faces = self.finder.first(image) or self.finder.fallback(image)
        face = choose(faces if point else self.fitting(image, faces), point)
        points = Follower(self.mesh, self.finder, face).follow(image)
        if points is None:
            raise Reject(Reason.FACE_LOST, f"{face.detector} sees a face, no landmarks fit it")
        require_size(float(face_width(points)), limits)
        return points, face

    def fitting(self, image: Picture | np.ndarray, faces: list[Face]) -> list[Face]:
        """Those of several ``faces`` in ``image`` that the mesh fits: detectors see faces in folds of cloth."""
        return faces if len(faces) < 2 else self.fit(image, faces) or faces[:1]

    def fit(self, image: Picture | np.ndarray, faces: list[Face]) -> list[Face]:
        """Those of ``faces`` in ``image`` that the mesh fits, of the widest eight."""
        return [face for face in faces[:MOST_FACES] if Follower(self.mesh, self.finder, face).fits(image)]


def place(row: Row, width: int, height: int) -> tuple[float, float] | None:
    """Where the manifest says the face is, in pixels: its point, the middle of its box, or ``None``."""
    if row.face_x is not None and row.face_y is not None:
        return row.face_x * width, row.face_y * height
    if row.box is not None:
        x0, y0, x1, y1 = row.box
        return (x0 + x1) / 2 * width, (y0 + y1) / 2 * height
    return None


def require_size(width: float, limits: Limits) -> None:
    """Raise ``Reject(FACE_SMALL)`` where a face of ``width`` pixels is below the limit."""
    if width < limits.face_px:
        raise Reject(Reason.FACE_SMALL, f"the face is {width:.0f} px wide, {limits.face_px:.0f} are needed")
