"""The one decode of a clip: find the face of each shot, follow it, keep a pocket around it, all in a single pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from contracts.errors import Reject
from contracts.face import lip_motion
from contracts.limits import Limits
from contracts.manifest import Kind, Row
from contracts.reasons import Reason
from contracts.sample import FPS, SAMPLES_PER_FRAME
from preprocessing.faces import UPSAMPLE_BELOW, Face, choose, nearest, rivals
from preprocessing.landmarks import FaceMesh, Follower, empty, fill
from preprocessing.memory import settle
from preprocessing.picture import Picture
from preprocessing.pockets import Pockets, Spool
from preprocessing.quality import Stillness
from preprocessing.shots import Cuts, stride
from preprocessing.step import OF_MEDIA, Clip, Tools, place
from preprocessing.sync import correlate

if TYPE_CHECKING:
    from preprocessing.media import Probe

LATER = (6, 12, 24, 48)  # frames of a shot in which HOG looks again where it saw none in the first
HELD_BYTES = 256 << 20  # of pictures held while no face has been found
MOST_RIVALS = 3
LISTEN = 50  # frames needed to tell who speaks: in fewer, chance correlates
MOVES = 0.015  # of the eyes' distance: spread of the lips' height that is no noise of the mesh
NEARLY_IN_STEP = 6  # frames of shift looked at: every further one gives chance another try
# Correlation of the one who speaks, and its lead over the next, times the root of the frames. Of real pairs of 50
# frames, one face's sound, 46 % are told rightly, 5 % wrongly; of 125 frames 51 % and 2 %, of 200 frames 69 % and none.
SPEAKS, CLEARLY = 0.35, 1.7


class Track:
    """One face followed through a shot: its points and its pockets, frame by frame."""

    def __init__(self, mesh: FaceMesh, tools: Tools, face: Face, spool: Spool) -> None:
        self.face = face
        self.pockets = Pockets(face, spool)
        self._follower = Follower(mesh, tools.finder, face)
        self._points: list[np.ndarray | None] = []

    def see(self, image: Picture, *, slow: bool = True) -> None:
        points = self._follower.follow(image, slow=slow)
        self._points.append(points)
        self.pockets.add(image, points)

    @property
    def found(self) -> np.ndarray:
        return np.array([points is not None for points in self._points])

    @property
    def points(self) -> np.ndarray:
        return np.stack([empty() if points is None else points for points in self._points])


class Shot:
    """The frames between two cuts: first searched for a face, then followed."""

    def __init__(self, tools: Tools, row: Row, first: int, spool: Spool) -> None:
        self.first, self.frames, self.faces = first, 0, 0
        self.refusal: Reject | None = None
        self.still = Stillness()
        self._tools, self._row, self._spool = tools, row, spool
        self._held: list[Picture] = []
        self._tracks: list[Track] = []

    def see(self, image: Picture, thin: np.ndarray) -> None:
        """Look at the next frame, of which ``thin`` is a few pixels."""
        number, self.frames = self.frames, self.frames + 1
        self.still.see(thin)
        for track in self._tracks:
            track.see(image)
        if self._tracks or self.refusal:
            return
        self._held.append(image.copy())
        faces = self._look(image, number) if number == 0 or number in LATER else []
        if faces:
            self._begin(faces, seen=True)
        elif number == LATER[-1] or (number + 2) * image.nbytes > HELD_BYTES:
            self.end()

    def _look(self, image: Picture, number: int) -> list[Face]:
        """Faces that HOG sees in frame ``number``: everywhere in the first and the last of those looked at."""
        finder = self._tools.finder
        if 0 < number < LATER[-1]:
            return finder.hinted(image.rgb)
        if number == 0 and not self._large:
            return finder.hog(image.rgb) or finder.clahe(image.rgb)
        # what the manifest points at may be a small face behind a wide one
        pointed = place(self._row, image.width, image.height) is not None
        return (not pointed and finder.wide(image.rgb)) or finder.hog(image.rgb)

    def end(self) -> None:
        """No further frame is waited for: use the slow detectors where no face has been found yet."""
        if self._tracks or self.refusal or not self._held:
            return
        faces: list[Face] = []
        finder, ends = self._tools.finder, (self._held[0], self._held[-1])
        if self._large:
            faces = finder.hog(ends[0].rgb, 1) or finder.clahe(ends[0].rgb)
        if not faces:  # a face that the mesh fits spares the slow one
            guesses = [finder.blaze(image.rgb) for image in ends]
            fits = (self._tools.fit(image, guess) for image, guess in zip(ends, guesses))
            faces = _first(fits) or finder.slow(ends[0].rgb, _first(guesses)) or _first(guesses)
        if not faces and self._row.box is not None:
            faces = [_box(self._row.box, self._held[0])]
        if faces:
            self._begin(faces)
        else:
            self._refuse(Reject(Reason.NO_FACE, f"no detector sees a face in the first {len(self._held)} frames"))

    @property
    def _large(self) -> bool:
        """Whether upsampling, as the slower uses of HOG do, costs four plain looks: then later frames come first."""
        return min(self._held[0].width, self._held[0].height) >= UPSAMPLE_BELOW

    def speaker(self, sound: np.ndarray) -> Track:
        """The face that is meant: the only one, or the one whose lips move with int16 sound [640 T] of this shot.

        Raises ``Reject``: NO_FACE, or MANY_FACES where nothing decides.
        """
        if self.refusal is not None:
            raise self.refusal
        if len(self._tracks) == 1:
            return self._tracks[0]
        scores = []
        for track in self._tracks:
            found = track.found
            lips = lip_motion(fill(track.points, found)) if found.any() else np.zeros(len(found))
            moves = len(lips) >= LISTEN and lips.std() > MOVES
            best = correlate(lips, sound, found, NEARLY_IN_STEP) if moves else None
            scores.append(best[0] if best else 0.0)
        first, second, *_ = sorted(scores, reverse=True)
        if first < SPEAKS or first - second < CLEARLY / np.sqrt(self.frames):
            told = ", ".join(f"{score:.2f}" for score in scores)
            raise Reject(
                Reason.MANY_FACES,
                f"{len(scores)} comparable faces, and their lips' fit with the sound ({told}) decides for none: "
                "give face_x, face_y or box",
            )
        return self._tracks[scores.index(first)]

    def _begin(self, faces: list[Face], *, seen: bool = False) -> None:
        """Follow the faces that may be meant, from the shot's first frame on; HOG has ``seen`` them in the last."""
        self.faces = len(faces)
        point = place(self._row, self._held[0].width, self._held[0].height)
        chosen = [nearest(faces, *point)] if point else rivals(self._tools.fitting(self._held[-1], faces))
        if len(chosen) > MOST_RIVALS:
            try:
                choose(chosen, None)
            except Reject as error:
                self._refuse(error)
                return
        meshes = [self._tools.mesh] + [FaceMesh() for _ in chosen[1:]]
        self._tracks = [Track(mesh, self._tools, face, self._spool) for mesh, face in zip(meshes, chosen)]
        for image in self._held:
            for track in self._tracks:  # the slow one was asked already, or HOG saw the face in the last of these alone
                track.see(image, slow=seen and image is self._held[-1])
        self._held = []

    def _refuse(self, refusal: Reject) -> None:
        self.refusal, self._held = refusal, []


class Watch:
    """Decodes clips into shots: sound, points per frame, pockets. Raises ``Reject`` for what a file can lack."""

    version: ClassVar[int] = 10
    kinds: ClassVar[frozenset[Kind]] = frozenset({"clip"})
    reads: ClassVar[frozenset[str]] = OF_MEDIA

    def __init__(self, tools: Tools, limits: Limits) -> None:
        self._tools, self._limits = tools, limits

    def open(self) -> None:
        from preprocessing.media.nursery import NURSERY

        self._tools.mesh  # noqa: B018 (loads it)
        NURSERY.open()
        settle()

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.kind != "clip":
            return [clip]
        from preprocessing import media

        row = clip.planned.values
        probe = media.probe(clip.path, self._limits, start_s=row.start_s, end_s=row.end_s)
        clip.source |= {"source_width": probe.width, "source_height": probe.height, "source_fps": probe.fps}
        clip.source["av_gap_s"] = _gap(probe, row)
        apart = stride(probe.width, probe.height)
        cuts, shots = Cuts(), [Shot(self._tools, row, 0, clip.spool)]
        with media.decode(probe, self._limits, start_s=row.start_s, end_s=row.end_s) as decoding:
            clip.frames, clip.start_s, clip.end_s = decoding.count, decoding.start_s, decoding.end_s
            # a missing face stops no decoding: a fault in the file comes before it
            for number, image in enumerate(decoding.pictures()):
                thin = image.thin(apart)
                if cuts.begins(thin):
                    if not self._short(shots[-1]):
                        shots[-1].end()
                    shots.append(Shot(self._tools, row, number, clip.spool))
                shots[-1].see(image, thin)
            if not self._short(shots[-1]):  # which is refused whatever is in it
                shots[-1].end()
            sound = decoding.sound
            clip.source["source_frames"] = decoding.source_frames
        return [self._span(clip, number, shot, sound) for number, shot in enumerate(shots)]

    def _short(self, shot: Shot) -> bool:
        return shot.frames < self._limits.shortest_s * FPS - 1

    def _span(self, clip: Clip, number: int, shot: Shot, sound: np.ndarray) -> Clip:
        start = clip.start_s + shot.first / FPS
        span = Clip(clip.planned, clip.path, number, shot.frames, start, start + shot.frames / FPS, spool=clip.spool)
        span.source = clip.source
        span.sound = sound[SAMPLES_PER_FRAME * shot.first :][: SAMPLES_PER_FRAME * shot.frames]
        span.scores |= {"faces": shot.faces, "static": shot.still.value}
        try:
            if self._short(shot):
                raise Reject(Reason.TOO_SHORT, f"a shot of {shot.frames} frames")
            track = shot.speaker(span.sound)
        except Reject as error:
            span.refusal = error
        else:
            span.pockets, span.points, span.found = track.pockets, track.points, track.found
            span.scores["detector"] = track.face.detector
        return span


def _first(looks: Iterable[list[Face]]) -> list[Face]:
    """Of several looks for faces, the first that saw any; none are taken beyond it."""
    return next(filter(None, looks), [])


def _gap(probe: Probe, row: Row) -> float:
    """Seconds by which pictures and sound differ in length, inside the span that ``row`` asks for."""
    lengths = []
    for track in (probe.video, probe.audio):
        assert track is not None  # the probe refuses what has not both
        start = track.start_s if row.start_s is None else max(track.start_s, row.start_s)
        end = track.end_s if row.end_s is None else min(track.end_s, row.end_s)
        lengths.append(max(end - start, 0.0))
    return abs(lengths[0] - lengths[1])


def _box(box: tuple[float, float, float, float], image: Picture) -> Face:
    width, height = image.width, image.height
    return Face(box[0] * width, box[1] * height, box[2] * width, box[3] * height, "box")
