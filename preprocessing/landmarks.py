"""The 478 points of one face, followed through a clip: mediapipe's mesh on a region around the face."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from contracts.face import LEFT_CHEEK, POINTS, RIGHT_CHEEK
from preprocessing.faces import LONGEST_SIDE, Face, FaceFinder, nearest
from preprocessing.picture import Picture

MESH_SIDE = 256  # px; the network works on 192 px inside, and full frames cost ten times as much
AROUND = 1.9  # region's side over the face's larger side
DRIFT = 0.1  # of the region's side: within it the region stays, so that the mesh's own tracking holds
LOOK_AGAIN = 5  # frames between searches with the detectors while the face is lost
CNN_AT = (5, 25, 125, 625)  # frames lost at which the slow one of them is asked, too: most losses are shorter
SEARCH = 1.6  # region's side over its usual one, in those searches
HOG_AROUND = 480  # px of that region, where it is not upsampled: the box of a face is a quarter of it
CNN_AROUND = 304  # px of that region: the face is a third of it, and the network sees faces of 80 px and more
ANSWER = "multi_face_landmarks"  # the stream of the graph that is read
FRAME_US = 33_333  # between pictures on the graph's clock, as mediapipe's own solutions count them
BOX_TO_FACE = 1.25  # dlib's boxes end at the brows and the chin


@contextmanager
def quiet() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: mediapipe's C++ log cannot be turned off before it starts."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


class FaceMesh:
    """mediapipe's refined face mesh in tracking mode; one per process, :meth:`reset` before each clip.

    What it returns for a frame depends on the frames since the last reset and on nothing before.
    """

    def __init__(self) -> None:
        with quiet():
            import mediapipe
            from mediapipe.python._framework_bindings import _packet_getter

            solution = mediapipe.solutions.face_mesh.FaceMesh(
                static_image_mode=False, max_num_faces=1, refine_landmarks=True
            )
            self._found: dict[str, Any] = {}
            self._graph = _unthreaded(solution, self._found)
        self._time = 0  # on the graph's clock, us
        self._packet = mediapipe.packet_creator.create_image_frame
        self._format = mediapipe.ImageFormat.SRGB
        self._lists = _packet_getter._get_serialized_proto_list
        cv2.setNumThreads(1)
        with quiet():  # it logs on its first picture, too
            self._warm()

    def reset(self) -> None:
        """Forget the frames seen: in an empty picture the face is lost, in a second there is nothing to track.

        The graph's own reset loads its networks anew, for 25 ms; the points that follow are the same, to the bit.
        """
        self._warm()
        self._warm()

    def _warm(self) -> None:
        self._process(np.zeros((MESH_SIDE, MESH_SIDE, 3), np.uint8))

    def _process(self, image: np.ndarray) -> bytes | None:
        """The face in uint8 RGB [S, S, 3], a serialized ``NormalizedLandmarkList``, or ``None``.

        What ``FaceMesh.process`` does, without the class that it makes for each answer and the 478 objects in it,
        which cost a fifth of its time. Private names, hence the exact version of mediapipe in pyproject.toml.
        """
        self._found.clear()
        self._time += FRAME_US
        packet = self._packet(np.ascontiguousarray(image), image_format=self._format)
        self._graph.add_packet_to_input_stream("image", packet.at(self._time))
        self._graph.wait_until_idle()
        found = self._found.get(ANSWER)
        if found is None or found.is_empty():
            return None
        faces: list[bytes] = self._lists(found)
        return faces[0] if faces else None

    def find(self, image: np.ndarray) -> np.ndarray | None:
        """Points [478, 3] in pixels of ``image`` (uint8 RGB [S, S, 3]; z in pixels too), or ``None``."""
        found = self._process(image)
        if found is None:
            return None
        points = _points(found)
        # the mesh counts a point at the middle of pixel i as (i + 0.5) / S
        return points * image.shape[0] - (0.5, 0.5, 0.0)

    def close(self) -> None:
        self._graph.close()


def _unthreaded(solution: Any, found: dict[str, Any]) -> Any:
    """The graph of a mediapipe ``solution``, run by the thread that waits for it; answers go into ``found``.

    A graph's own threads hand each frame over ten times, for a quarter of its processor time; the answers are the
    same, to the bit.
    """
    from mediapipe.framework.calculator_pb2 import CalculatorGraphConfig
    from mediapipe.python._framework_bindings import calculator_graph

    config = CalculatorGraphConfig.FromString(solution._graph.binary_config)
    del config.executor[:]
    config.executor.add(type="ApplicationThreadExecutor")
    graph = calculator_graph.CalculatorGraph(graph_config=config)
    graph.observe_output_stream(ANSWER, found.__setitem__, True)
    graph.start_run(solution._input_side_packets)
    solution.close()
    return graph


# a point of a serialized list: tag and length, then x, y, z, each a tag (field 1 to 3, four bytes) and a float
POINT = np.dtype([("tag", "<u2"), ("tx", "u1"), ("x", "<f4"), ("ty", "u1"), ("y", "<f4"), ("tz", "u1"), ("z", "<f4")])
TAGS = {place: bytes([tag]) * POINTS for place, tag in ((0, 0x0A), (1, 0x0F), (2, 0x0D), (7, 0x15), (12, 0x1D))}


def _points(face: bytes) -> np.ndarray:
    """float64 [478, 3] of a serialized list, read from its bytes, in a tenth of the time, where each point has 17."""
    size = POINT.itemsize
    if len(face) == POINTS * size and all(face[place::size] == tags for place, tags in TAGS.items()):
        data, points = np.frombuffer(face, POINT), np.empty((POINTS, 3))
        for axis, name in enumerate("xyz"):
            points[:, axis] = data[name]
        return points
    from mediapipe.framework.formats.landmark_pb2 import NormalizedLandmarkList

    return np.array([(p.x, p.y, p.z) for p in NormalizedLandmarkList.FromString(face).landmark], np.float64)


class Follower:
    """Follows one face through the frames of a clip, from the box where it was first seen."""

    def __init__(self, mesh: FaceMesh, finder: FaceFinder, face: Face) -> None:
        self._mesh, self._finder = mesh, finder
        self._centre = np.array(face.centre)
        self._side = AROUND * BOX_TO_FACE * face.width
        self._lost, self._begun = 0, False
        mesh.reset()

    def follow(self, image: Picture | np.ndarray, *, slow: bool = True) -> np.ndarray | None:
        """Points [478, 3] in pixels of the frame ``image`` (or uint8 RGB [H, W, 3]), or ``None`` where it is lost.

        ``slow``: whether the slow detector may be asked, too.
        """
        image = Picture.of(image)
        points = self._look(image, self._centre, self._side)
        if points is None and self._lost % LOOK_AGAIN == 0:
            points = self._search(image, slow)
        if points is None:
            self._lost += 1
            return None
        self._lost, self._begun = 0, True
        self._keep_up(points)
        return points

    def fits(self, image: Picture | np.ndarray) -> bool:
        """Whether the mesh fits the box that the follower began with; no detector is asked again."""
        return self._look(Picture.of(image), self._centre, self._side) is not None

    def _look(self, image: Picture, centre: np.ndarray, side: float) -> np.ndarray | None:
        whole = max(16, 2 * round(side / 2))
        x0, y0 = (2 * round((float(c) - whole / 2) / 2) for c in centre)
        x1, y1 = min(x0 + whole, image.width), min(y0 + whole, image.height)
        part = image.part(max(x0, 0), max(y0, 0), max(x1, 0), max(y1, 0))
        if not (part.height and part.width):
            return None
        if (part.width, part.height) != (whole, whole):  # beyond the picture it is black
            left, top = max(-x0, 0), max(-y0, 0)
            right, bottom = whole - left - part.width, whole - top - part.height
            part = part.padded(top, bottom, left, right)
        points = self._mesh.find(part.resized(MESH_SIDE, MESH_SIDE).rgb)
        if points is None:
            return None
        scale = whole / MESH_SIDE
        points[:, :2] = (points[:, :2] + 0.5) * scale - 0.5 + (x0, y0)
        points[:, 2] *= scale
        return points

    def _search(self, image: Picture, slow: bool) -> np.ndarray | None:
        """Look around the place where the face was, with the mesh's own detector and then with the others."""
        points = self._look(image, self._centre, self._side)  # having lost the track, the mesh now detects
        if points is not None:
            return points
        half = SEARCH * self._side / 2
        limit = np.array([image.width, image.height])
        x0, y0 = (2 * np.clip(np.floor((self._centre - half) / 2), 0, limit // 2)).astype(int).tolist()
        x1, y1 = np.clip(2 * np.ceil((self._centre + half) / 2), 0, limit).astype(int).tolist()
        if min(x1 - x0, y1 - y0) < 16:
            return None
        around = image.part(x0, y0, x1, y1).rgb
        upsample = int(self._side < 4 * 80)
        faces = self._finder.hog(around, upsample, LONGEST_SIDE if upsample else HOG_AROUND) or self._finder.blaze(
            around
        )
        if not faces and slow and (self._lost in CNN_AT if self._begun else not self._lost):
            faces = self._finder.cnn(around, CNN_AROUND)
        for face in [nearest(faces, *(self._centre - (x0, y0)))] if faces else []:
            self._mesh.reset()
            centre = np.add(face.centre, (x0, y0))
            for side in (AROUND * BOX_TO_FACE * face.width, 1.4 * AROUND * BOX_TO_FACE * face.width):
                points = self._look(image, centre, side)
                if points is not None:
                    return points
        return None

    def _keep_up(self, points: np.ndarray) -> None:
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        side = AROUND * float((high - low).max())
        centre = (low + high) / 2
        if np.abs(centre - self._centre).max() > DRIFT * self._side or not 0.8 < side / self._side < 1.25:
            self._centre, self._side = centre, side


def fill(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Points [T, 478, 3] with lost frames filled in: straight lines across gaps, the nearest frame at the ends.

    ``found`` bool [T] says which frames count; at least one must.
    """
    if not found.any():
        raise ValueError("no frame to fill from")
    filled = points.copy()
    there = np.flatnonzero(found)
    for t in np.flatnonzero(~found):
        after = int(np.searchsorted(there, t))
        low, high = there[max(after - 1, 0)], there[min(after, len(there) - 1)]
        share = 0.0 if low == high else (t - low) / (high - low)
        filled[t] = (1 - share) * points[low] + share * points[high]
    return filled


def face_width(points: np.ndarray) -> np.ndarray:
    """Width between the cheeks, in space, so that a turned head is as wide: [..., 478, 3] to [...]."""
    return np.asarray(np.linalg.norm(points[..., LEFT_CHEEK, :] - points[..., RIGHT_CHEEK, :], axis=-1))


def empty() -> np.ndarray:
    """Points of a frame in which the face is lost: [478, 3] of NaN, never stored."""
    return np.full((POINTS, 3), np.nan)
