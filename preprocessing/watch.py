"""The one decode of a clip: find the face, follow it, keep a pocket around it, all in a single pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from contracts.errors import Reject
from contracts.face import mouth_opening
from contracts.limits import Limits
from contracts.reasons import Reason
from preprocessing.faces import Face, choose, nearest, rivals
from preprocessing.landmarks import FaceMesh, Follower, empty, fill
from preprocessing.pockets import Pockets
from preprocessing.quality import Stillness
from preprocessing.step import Clip, Tools, place
from preprocessing.sync import correlate

LATER = (6, 12, 24, 48)  # frames in which HOG looks again where it saw none in the first
HELD_BYTES = 256 << 20  # of pictures held while no face has been found
MOST_RIVALS = 3
LISTEN = 50  # frames needed to tell who speaks: in fewer, chance correlates
MOVES = 0.015  # of the eyes' distance: spread of a mouth's opening that is no noise of the mesh
SPEAKS, CLEARLY = 0.35, 0.15  # correlation of the one who speaks, and its lead over the next


class Track:
    """One face followed through a clip: its points and its pockets, frame by frame."""

    def __init__(self, mesh: FaceMesh, tools: Tools, face: Face) -> None:
        self.face = face
        self.pockets = Pockets(face)
        self._follower = Follower(mesh, tools.finder, face)
        self._points: list[np.ndarray | None] = []

    def see(self, image: np.ndarray) -> None:
        points = self._follower.follow(image)
        self._points.append(points)
        self.pockets.add(image, points)

    @property
    def found(self) -> np.ndarray:
        return np.array([points is not None for points in self._points])

    @property
    def points(self) -> np.ndarray:
        return np.stack([empty() if points is None else points for points in self._points])


class Watch:
    """Decodes clips: sound, points per frame, pockets. Raises ``Reject`` for what decoding and faces can lack."""

    version: ClassVar[int] = 1

    def __init__(self, tools: Tools, limits: Limits) -> None:
        self._tools, self._limits = tools, limits

    def open(self) -> None:
        self._tools.mesh  # noqa: B018 (loads it)

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.kind != "clip":
            return [clip]
        from preprocessing import media

        row = clip.planned.values
        probe = media.probe(clip.path, self._limits, start_s=row.start_s, end_s=row.end_s)
        clip.source |= {"source_width": probe.width, "source_height": probe.height, "source_fps": probe.fps}
        still = Stillness()
        tracks: list[Track] = []
        refusal: Reject | None = None
        try:
            with media.decode(probe, self._limits, start_s=row.start_s, end_s=row.end_s) as decoding:
                clip.frames, clip.start_s, clip.end_s = decoding.count, decoding.start_s, decoding.end_s
                frames = _seen(decoding, still)
                try:
                    tracks = self._begin(clip, frames)
                    for image in frames:
                        for track in tracks:
                            track.see(image)
                except Reject as error:
                    if error.reason not in (Reason.NO_FACE, Reason.MANY_FACES):
                        raise
                    refusal = error
                    for _ in frames:  # a fault in the file comes before a missing face
                        pass
                clip.sound = decoding.sound
                clip.source["source_frames"] = decoding.source_frames
            if refusal is not None:
                raise refusal
            track = self._speaker(tracks, clip.sound)
        except BaseException:
            for track in tracks:
                track.pockets.close()
            raise
        for other in tracks:
            if other is not track:
                other.pockets.close()
        clip.pockets, clip.points, clip.found = track.pockets, track.points, track.found
        clip.scores |= {"detector": track.face.detector, "static": still.value}
        return [clip]

    def _begin(self, clip: Clip, frames: Iterator[np.ndarray]) -> list[Track]:
        """Find the face in the first frames, and follow it through those that had to be held."""
        finder, held, faces = self._tools.finder, [], []
        for number, image in enumerate(frames):
            held.append(image)
            if number == 0:
                faces = finder.first(image) or finder.clahe(image)
            elif number in LATER:
                faces = finder.hog(image)
            if faces or number == LATER[-1] or (number + 2) * image.nbytes > HELD_BYTES:
                break
        point = place(clip.planned, held[0].shape[1], held[0].shape[0])
        for look in (finder.cnn, finder.blaze):
            for image in (held[0], held[-1]):
                faces = faces or look(image)
        if not faces and clip.planned.values.box is not None:
            faces = [_box(clip.planned.values.box, held[0])]
        clip.scores["faces"] = len(faces)
        if not faces:
            raise Reject(Reason.NO_FACE, f"no detector sees a face in the first {len(held)} frames")
        chosen = [nearest(faces, *point)] if point else rivals(self._tools.fitting(held[-1], faces))
        if len(chosen) > MOST_RIVALS:
            choose(chosen, None)
        meshes = [self._tools.mesh] + [FaceMesh() for _ in chosen[1:]]
        tracks = [Track(mesh, self._tools, face) for mesh, face in zip(meshes, chosen)]
        for image in held:
            for track in tracks:
                track.see(image)
        return tracks

    def _speaker(self, tracks: list[Track], sound: np.ndarray) -> Track:
        """The track whose mouth moves with the sound, where there are several."""
        if len(tracks) == 1:
            return tracks[0]
        scores = []
        for track in tracks:
            found = track.found
            mouth = mouth_opening(fill(track.points, found)) if found.any() else np.zeros(len(found))
            best = correlate(mouth, sound, found) if len(mouth) >= LISTEN and mouth.std() > MOVES else None
            scores.append(best[0] if best else 0.0)
        first, second, *_ = sorted(scores, reverse=True)
        if first < SPEAKS or first - second < CLEARLY:
            told = ", ".join(f"{score:.2f}" for score in scores)
            raise Reject(
                Reason.MANY_FACES,
                f"{len(tracks)} comparable faces, and their lips' fit with the sound ({told}) decides for none: "
                "give face_x, face_y or box",
            )
        return tracks[scores.index(first)]


def _seen(frames: Iterable[np.ndarray], still: Stillness) -> Iterator[np.ndarray]:
    for image in frames:
        still.see(image)
        yield image


def _box(box: tuple[float, float, float, float], image: np.ndarray) -> Face:
    height, width = image.shape[:2]
    return Face(box[0] * width, box[1] * height, box[2] * width, box[3] * height, "box")
