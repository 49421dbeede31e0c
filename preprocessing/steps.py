"""What is done to a clip after it was watched: crops and landmarks, scores, the sample's members; stills and speech."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from contracts.errors import Reject
from contracts.face import eye_opening, gaze, lip_motion, mouth_opening
from contracts.limits import Limits
from contracts.manifest import KINDS, Kind
from contracts.reasons import Reason
from contracts.sample import SAMPLE_RATE, Meta, encode
from preprocessing import audio
from preprocessing.crop import align, aligned, apply, crop_side, encode_jpeg
from preprocessing.landmarks import face_width, fill
from preprocessing.likeness import Likeness, sound_digest
from preprocessing.pockets import Pockets
from preprocessing.quality import Sharpness, blink_rate, pose, spread
from preprocessing.step import OF_MEDIA, Clip, Tools, place, require_size
from preprocessing.sync import correlate

PEOPLE = ("corpus", "speaker", "gender", "age", "language", "licence", "consent", "split")


class Look:
    """Stills (kind ``face``): one upright picture, one face."""

    version: ClassVar[int] = 3
    kinds: ClassVar[frozenset[Kind]] = frozenset({"face"})
    reads: ClassVar[frozenset[str]] = frozenset({"still_pixels", "face_px"})

    def __init__(self, tools: Tools, limits: Limits) -> None:
        self._tools, self._limits = tools, limits

    def open(self) -> None:
        """Nothing of its own: ``Watch`` loads the mesh."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.kind == "face":
            from preprocessing.media import decode_still

            image = decode_still(clip.path, self._limits)
            height, width = image.shape[:2]
            clip.source |= {"source_width": width, "source_height": height, "source_frames": 1}
            clip.frames = 1
            points, face = self._tools.points(image, place(clip.planned.values, width, height), self._limits)
            clip.points, clip.found = points[None], np.ones(1, bool)
            clip.pockets = Pockets(face, clip.spool)
            clip.pockets.add(image, points)
            clip.scores["detector"] = face.detector
        return [clip]


class Listen:
    """Speech (kind ``speech``): sound without a face, T = 0."""

    version: ClassVar[int] = 1
    kinds: ClassVar[frozenset[Kind]] = frozenset({"speech"})
    reads: ClassVar[frozenset[str]] = OF_MEDIA

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def open(self) -> None:
        """Nothing to load."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.kind == "speech":
            from preprocessing.media import decode_sound

            row = clip.planned.values
            sound = decode_sound(clip.path, self._limits, start_s=row.start_s or 0.0, end_s=row.end_s)
            seconds = len(sound) / SAMPLE_RATE
            if seconds < self._limits.shortest_s:
                raise Reject(Reason.TOO_SHORT, f"{seconds:.2f} s, {self._limits.shortest_s} s are needed")
            clip.sound = np.clip(np.round(sound * 32768.0), -32768, 32767).astype(np.int16)
            clip.start_s = row.start_s or 0.0
            clip.end_s = clip.start_s + seconds
        return [clip]


class Align:
    """Fills gaps in the points, then fixes the crop: its side, its affines, the landmarks in it."""

    version: ClassVar[int] = 1
    kinds: ClassVar[frozenset[Kind]] = frozenset({"clip", "face"})
    reads: ClassVar[frozenset[str]] = frozenset({"face_px", "lost_frames"})

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def open(self) -> None:
        """Nothing to load."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.points is None or clip.found is None:
            return [clip]
        share = float(clip.found.mean())
        clip.scores["found"] = share
        if not clip.found.any() and not clip.scores["detector"].startswith("hog"):
            raise Reject(Reason.NO_FACE, f"{clip.scores['detector']} sees something, no landmarks fit it in any frame")
        if not clip.found.any() or share < 1 - self._limits.lost_frames:
            raise Reject(Reason.FACE_LOST, f"landmarks in {share:.0%} of {len(clip.found)} frames")
        width = float(np.median(face_width(clip.points[clip.found])))
        clip.scores["face_px"] = width
        require_size(width, self._limits)
        clip.points = fill(clip.points, clip.found)
        clip.side = crop_side(clip.points[clip.found])
        matrices = align(clip.points, clip.side)
        landmarks = apply(matrices, clip.points, clip.side)
        clip.features |= {"landmarks": landmarks, "landmarks_found": clip.found, "crop_from_source": matrices}
        clip.scores["aligned"] = float(aligned(landmarks).mean())
        return [clip]


class Measure:
    """Scores of face and sound: columns for a selection to judge, never reasons for refusal here."""

    version: ClassVar[int] = 3
    kinds: ClassVar[frozenset[Kind]] = frozenset(KINDS)
    reads: ClassVar[frozenset[str]] = frozenset()

    def open(self) -> None:
        """Nothing to load."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.points is not None and clip.found is not None:
            clip.features |= {
                "pose": pose(clip.points),
                "gaze": gaze(clip.points).astype(np.float32),
                "mouth": mouth_opening(clip.points).astype(np.float32),
                "blink": eye_opening(clip.points).astype(np.float32),
            }
            clip.scores |= _head(clip.features, clip.found)
            if clip.sound is not None:
                clip.scores["blink_rate"] = blink_rate(clip.features["blink"], clip.found)
                best = correlate(lip_motion(clip.points), clip.sound, clip.found)
                if best is not None:
                    clip.scores["sync_geometry"], clip.scores["sync_offset"], clip.scores["sync_lead"] = best
        if clip.sound is not None:
            clip.scores["loudness_dbfs"] = audio.loudness(clip.sound)
            clip.scores["silence"] = audio.silence(clip.sound)
            clip.scores["clipping"] = audio.clipping(clip.sound)
            clip.scores["level_swing"] = audio.level_swing(clip.sound)
            clip.scores["sound_digest"] = sound_digest(clip.sound)
            if clip.frames:
                from contracts.speech import log_mel

                clip.features["mel"] = log_mel(clip.sound.astype(np.float32) / 32768.0).astype(np.float16)
        return [clip]


def _head(features: dict[str, np.ndarray], found: np.ndarray) -> dict[str, float]:
    """Columns of pose and gaze, over the frames ``found``."""
    turned, looks = features["pose"][found], features["gaze"][found]
    return {
        "yaw_range": spread(turned[:, 0]),
        "pitch_range": spread(turned[:, 1]),
        "roll_range": spread(turned[:, 2]),
        "yaw_abs": float(np.abs(turned[:, 0]).mean()),
        "gaze_x": float(np.median(looks[:, 0])),
        "gaze_y": float(np.median(looks[:, 1])),
        "gaze_range": spread(looks[:, 0]),
    }


class Store:
    """Cuts the crops and packs the sample's members."""

    version: ClassVar[int] = 4
    kinds: ClassVar[frozenset[Kind]] = frozenset(KINDS)
    reads: ClassVar[frozenset[str]] = frozenset({"jpeg_quality"})

    def __init__(self, quality: int, steps: Mapping[Kind, str]) -> None:
        self._quality = quality  # of JPEG
        self._steps = steps  # digest by kind, told in every sample

    def open(self) -> None:
        """Nothing to load."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        jpegs = []
        if clip.pockets is not None:
            sharpness, likeness = Sharpness(), Likeness()
            for crop in clip.pockets.crops(clip.features["crop_from_source"], clip.side):
                grey = sharpness.see(crop)
                if grey is not None:
                    likeness.see(grey)
                jpegs.append(encode_jpeg(crop, self._quality))
            clip.scores |= {"sharpness": sharpness.value, "picture_digest": likeness.value}
        row = clip.planned.values
        meta = Meta(
            key=clip.key,
            kind=clip.kind,
            frames=clip.frames,
            side=clip.side,
            native_id=row.native_id,
            file=row.file,
            source_sha256=clip.planned.sha256,
            start_s=clip.start_s,
            end_s=clip.end_s,
            source_width=clip.source.get("source_width", 0),
            source_height=clip.source.get("source_height", 0),
            steps=self._steps[clip.kind],
            **{name: getattr(row, name) for name in PEOPLE},
        )
        clip.members = encode(meta, clip.features, clip.sound, jpegs)
        return [clip]
