"""Where the face is in a picture: dlib's HOG detector first, then its fall-backs in a fixed order."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from contracts.errors import Reject
from contracts.reasons import Reason

LONGEST_SIDE = 1920  # larger pictures are searched on a copy of this size
UPSAMPLE_BELOW = 480  # shorter side, px: HOG sees faces of 80 px, upsampled once of 40 px
COPIES = (640, 1280)  # px, longest side, of the copies in which wide faces are looked for first
HOG_SEES = 72  # px, width of the smallest box that HOG gives without upsampling
HINTED = 1.25  # of a hint's width, to each side: HOG needs some of what is around a face
CNN_SIDE = 640  # the CNN costs about 6 us a pixel
CNN_SHOT, CNN_GUESS = 480, 224  # px, of pictures in which HOG sees no face, and around a guess: it sees faces of 80 px
COMPARABLE = 0.5  # a second face at least this wide, relative to the widest, is a rival
SURE = 0.6  # confidence of mediapipe's detector: below it, cups and pictures pass for faces


@dataclass(frozen=True)
class Face:
    """A face's box in source pixels, and the detector that saw it."""

    x0: float
    y0: float
    x1: float
    y1: float
    detector: str = ""

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


class FaceFinder:
    """The detectors, each loaded on first use; one finder per worker process."""

    @cached_property
    def _hog(self) -> Any:
        import dlib

        return dlib.get_frontal_face_detector()

    @cached_property
    def _cnn(self) -> Any:
        import dlib

        return dlib.cnn_face_detection_model_v1(str(model_folder() / "mmod_human_face_detector.dat"))

    @cached_property
    def _blaze(self) -> Any:
        from preprocessing.landmarks import quiet

        with quiet():
            import mediapipe

            return mediapipe.solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=SURE)

    def hog(self, image: np.ndarray, upsample: int | None = None, longest: int = LONGEST_SIDE) -> list[Face]:
        """Faces that HOG sees in uint8 RGB [H, W, 3], widest first; ``upsample`` None chooses by size.

        Pictures with a side above ``longest`` are searched on a copy of that size.
        """
        small, scale = _shrunk(image, longest)
        if upsample is None:
            upsample = int(min(small.shape[:2]) < UPSAMPLE_BELOW)
        boxes, _, _ = self._hog.run(small, upsample, 0.0)
        return _widest_first(
            Face(b.left() / scale, b.top() / scale, b.right() / scale, b.bottom() / scale, f"hog{upsample}")
            for b in boxes
        )

    def wide(self, image: np.ndarray) -> list[Face]:
        """Faces by HOG on small copies of a large picture; none where a copy might hide one that could be meant.

        A copy counts where its widest face is so wide that any rival at least ``COMPARABLE`` to it shows there too.
        """
        longest = max(image.shape[:2])
        for copy in COPIES:
            faces = self.hog(image, 0, copy) if 3 * copy <= 2 * longest else []
            if not faces or COMPARABLE * faces[0].width * copy >= HOG_SEES * longest:
                return faces
        return []

    def hinted(self, image: np.ndarray) -> list[Face]:
        """Faces by HOG where it sees one that mediapipe's detector sees too: a picture without in a tenth of the time.

        Their boxes are those of the whole picture: the mesh is led astray by less on hard ones.
        """
        upsample = int(min(image.shape[:2]) < UPSAMPLE_BELOW)
        for hint in self.blaze(image):
            x0, y0, x1, y1 = _around(hint)
            if self.hog(image[y0:y1, x0:x1], upsample):
                return self.hog(image)
        return []

    def clahe(self, image: np.ndarray) -> list[Face]:
        """HOG on the picture with its local contrast evened out (backlit and dim faces)."""
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply(lab[..., 0])
        found = self.hog(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 1)
        return [Face(f.x0, f.y0, f.x1, f.y1, "hog-clahe") for f in found]

    def cnn(self, image: np.ndarray, longest: int = CNN_SIDE) -> list[Face]:
        """Faces that dlib's MMOD network sees on a copy of ``longest`` px at most: slow, good at turned heads."""
        small, scale = _shrunk(image, longest)
        boxes = [found.rect for found in self._cnn(small, 0)]
        return _widest_first(
            Face(b.left() / scale, b.top() / scale, b.right() / scale, b.bottom() / scale, "mmod") for b in boxes
        )

    def slow(self, image: np.ndarray, guesses: list[Face]) -> list[Face]:
        """Faces by ``cnn`` around the widest of ``guesses``, or everywhere where there are none."""
        if not guesses:
            return self.cnn(image, CNN_SHOT)
        x0, y0, x1, y1 = _around(guesses[0])
        faces = self.cnn(np.ascontiguousarray(image[y0:y1, x0:x1]), CNN_GUESS)
        return [replace(f, x0=f.x0 + x0, y0=f.y0 + y0, x1=f.x1 + x0, y1=f.y1 + y0) for f in faces]

    def blaze(self, image: np.ndarray) -> list[Face]:
        """Faces that mediapipe's full-range detector sees: the last resort."""
        height, width = image.shape[:2]
        faces = []
        for detection in self._blaze.process(np.ascontiguousarray(image)).detections or ():
            box = detection.location_data.relative_bounding_box
            x0, y0 = box.xmin * width, box.ymin * height
            faces.append(Face(x0, y0, x0 + box.width * width, y0 + box.height * height, "blaze"))
        return _widest_first(faces)

    def first(self, image: np.ndarray) -> list[Face]:
        """Faces by HOG alone, upsampled where the picture is small or nothing was seen."""
        faces = self.hog(image)
        return faces or (self.hog(image, 1) if min(image.shape[:2]) >= UPSAMPLE_BELOW else [])

    def fallback(self, image: np.ndarray) -> list[Face]:
        """Faces by what is tried once HOG has seen none, the first that sees any."""
        for look in (self.clahe, self.cnn, self.blaze):
            faces = look(image)
            if faces:
                return faces
        return []


def model_folder() -> Path:
    """Folder of dlib's weights, inside the wheel of face_recognition_models (which is not imported)."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("face_recognition_models is not installed: make setup")
    return Path(spec.origin).parent / "models"


def rivals(faces: list[Face]) -> list[Face]:
    """The faces that could be meant: the widest, and those at least half as wide."""
    return [face for face in faces if face.width >= COMPARABLE * faces[0].width]


def nearest(faces: list[Face], x: float, y: float) -> Face:
    """The face whose centre is nearest to (x, y), in source pixels."""
    return min(faces, key=lambda face: (face.centre[0] - x) ** 2 + (face.centre[1] - y) ** 2)


def choose(faces: list[Face], point: tuple[float, float] | None) -> Face:
    """The face that is meant: the one nearest to ``point`` (source pixels), else the only one that counts.

    Raises ``Reject``: NO_FACE, or MANY_FACES where several are comparable and no point decides.
    """
    if not faces:
        raise Reject(Reason.NO_FACE, "no detector sees a face")
    if point is not None:
        return nearest(faces, *point)
    comparable = rivals(faces)
    if len(comparable) > 1:
        widths = ", ".join(f"{face.width:.0f}" for face in comparable)
        raise Reject(Reason.MANY_FACES, f"{len(comparable)} comparable faces ({widths} px): give face_x, face_y or box")
    return faces[0]


def _around(hint: Face) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the region in which a face that is hinted at is looked for."""
    x0, y0 = (max(int(middle - HINTED * hint.width), 0) for middle in hint.centre)
    x1, y1 = (int(middle + HINTED * hint.width) for middle in hint.centre)
    return x0, y0, x1, y1


def _widest_first(faces: Iterable[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: (-face.width, face.x0, face.y0))


def _shrunk(image: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    """The picture with no side above ``longest``, and the factor that made it."""
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale < 1.0:
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image), scale
