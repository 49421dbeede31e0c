"""From a planned row to samples and ledger lines: the list of steps, and the account of how each row ended."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from contracts.errors import Corrupt, Misuse, Reject, Transient
from contracts.face import eye_opening, mouth_opening
from contracts.files import sha256_file
from contracts.limits import Limits
from contracts.plan import ROWS_PER_SHARD, PlannedRow
from contracts.reasons import FailureCode, Reason, first
from contracts.sample import SAMPLE_RATE, Meta, encode
from contracts.settings import Settings, canonical_digest
from preprocessing import audio
from preprocessing.crop import align, aligned, apply, crop_side, encode_jpeg
from preprocessing.landmarks import face_width, fill
from preprocessing.pockets import Pockets
from preprocessing.quality import Sharpness, pose, spread
from preprocessing.step import Clip, Step, Tools, place, require_size
from preprocessing.sync import correlate
from preprocessing.watch import Watch

PEOPLE = ("corpus", "speaker", "gender", "age", "language", "licence", "consent", "split")
OF_A_SPAN = frozenset(
    {  # reasons that one span has and its neighbour may not
        Reason.NO_FACE,
        Reason.MANY_FACES,
        Reason.FACE_LOST,
        Reason.FACE_SMALL,
    }
)


class IngestSettings(Settings):
    """What shapes a dataset beside its sources."""

    limits: Limits = Limits()
    rows_per_shard: int = ROWS_PER_SHARD
    jpeg_quality: int = 95  # of stored crops: 38 dB and more on the corpus, a fifth of PNG's size

    @property
    def steps_digest(self) -> str:
        """Identity of the steps: their versions, and the settings that they read. Shards made by others are stale."""
        versions = [[type(step).__name__, step.version] for step in steps(Tools(), self)]
        return canonical_digest([versions, self.limits.model_dump(mode="json"), self.jpeg_quality])


class Look:
    """Stills (kind ``face``): one upright picture, one face."""

    version: ClassVar[int] = 1

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

    version: ClassVar[int] = 1

    def open(self) -> None:
        """Nothing to load."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.points is not None and clip.found is not None:
            turned = pose(clip.points)
            mouth = mouth_opening(clip.points).astype(np.float32)
            clip.features |= {"pose": turned, "mouth": mouth, "blink": eye_opening(clip.points).astype(np.float32)}
            clip.scores["yaw_range"] = spread(turned[clip.found, 0])
            clip.scores["pitch_range"] = spread(turned[clip.found, 1])
            if clip.sound is not None:
                best = correlate(mouth, clip.sound, clip.found)
                if best is not None:
                    clip.scores["sync_geometry"], clip.scores["sync_offset"] = best
        if clip.sound is not None:
            clip.scores["loudness_dbfs"] = audio.loudness(clip.sound)
            clip.scores["silence"] = audio.silence(clip.sound)
            clip.scores["clipping"] = audio.clipping(clip.sound)
            if clip.frames:
                from contracts.speech import log_mel

                clip.features["mel"] = log_mel(clip.sound.astype(np.float32) / 32768.0).astype(np.float16)
        return [clip]


class Store:
    """Cuts the crops and packs the sample's members."""

    version: ClassVar[int] = 1

    def __init__(self, settings: IngestSettings) -> None:
        self._quality = settings.jpeg_quality
        self._settings = settings

    def open(self) -> None:
        """Nothing to load."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        jpegs = []
        if clip.pockets is not None:
            sharpness = Sharpness()
            for crop in clip.pockets.crops(clip.features["crop_from_source"], clip.side):
                sharpness.see(crop)
                jpegs.append(encode_jpeg(crop, self._quality))
            clip.scores["sharpness"] = sharpness.value
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
            steps=self._settings.steps_digest,
            **{name: getattr(row, name) for name in PEOPLE},
        )
        clip.members = encode(meta, clip.features, clip.sound, jpegs)
        return [clip]


def steps(tools: Tools, settings: IngestSettings) -> list[Step]:
    """What is done to every row, in order."""
    limits = settings.limits
    return [Watch(tools, limits), Look(tools, limits), Listen(limits), Align(limits), Measure(), Store(settings)]


Samples = list[tuple[str, dict[str, bytes]]]
Lines = list[dict[str, Any]]


def build_row(planned: PlannedRow, data_root: Path, tools: Tools, settings: IngestSettings) -> tuple[Samples, Lines]:
    """The samples of one planned row (key, members by extension), and its ledger lines: the row's, then its spans'.

    Every line ends in exactly one state. What this row lacks becomes ``rejected``; an error of ours ``failed``
    with its traceback. Raises only what must stop the run: ``Transient``, ``Corrupt``, ``Misuse``.
    """
    if planned.reason is not None:
        return [], [_line(planned, "row", "rejected", planned.reason, planned.detail)]
    clip = Clip(planned, data_root / planned.values.file)
    ended: tuple[str, str | None, str] = ("kept", None, "")
    spans: list[Clip] = []
    try:
        clip.path = _source(planned, data_root)
        spans = _run(clip, steps(tools, settings))
        _unchanged(clip)
    except Reject as error:
        ended, spans = ("rejected", error.reason, error.detail), []
    except (Transient, Corrupt, Misuse):
        raise
    except Exception:
        ended, spans = ("failed", FailureCode.INTERNAL, traceback.format_exc()), []
    finally:
        clip.close()
    samples = [(span.key, span.members) for span in spans if span.refusal is None]
    if spans and not samples:
        refusals = {span.refusal.reason: span.refusal.detail for span in reversed(spans) if span.refusal}
        reason = first(list(refusals))
        ended = ("rejected", reason, refusals[reason])
    lines = [_line(planned, "row", *ended) | clip.source | {"start_s": clip.start_s, "end_s": clip.end_s}]
    for span in spans:
        how = ("rejected", span.refusal.reason, span.refusal.detail) if span.refusal else ("kept", None, "")
        columns = {"key": span.key, "span": span.span, "frames": span.frames, "side": span.side or None}
        times = {"start_s": span.start_s, "end_s": span.end_s}
        lines.append(_line(planned, "span", *how) | columns | times | span.source | span.scores)
    return samples, lines


def failed(planned: PlannedRow, code: FailureCode, detail: str) -> Lines:
    """The ledger line of a row that could not be worked on at all."""
    return [_line(planned, "row", "failed", code, detail)]


def _run(clip: Clip, todo: list[Step]) -> list[Clip]:
    spans = [clip]
    for step in todo:
        made: list[Clip] = []
        for span in spans:
            try:
                made += [span] if span.refusal else step(span)
            except Reject as error:
                if error.reason not in OF_A_SPAN:
                    raise
                span.refusal = error
                made.append(span)
        spans = made
    return spans


def _source(planned: PlannedRow, data_root: Path) -> Path:
    """The row's file, if it still holds the bytes that were planned. Raises ``Reject``."""
    from preprocessing.media import safe_path

    path = safe_path(data_root, planned.values.file)
    if path.stat().st_size != planned.bytes or sha256_file(path) != planned.sha256:
        raise Reject(Reason.HASH_MISMATCH, f"{planned.values.file} has changed since it was planned")
    return path


def _unchanged(clip: Clip) -> None:
    """Raise ``Reject(HASH_MISMATCH)`` where the file changed while it was decoded."""
    if sha256_file(clip.path) != clip.planned.sha256:
        raise Reject(Reason.HASH_MISMATCH, f"{clip.planned.values.file} changed while it was read")


def _line(planned: PlannedRow, level: str, state: str, reason: str | None, detail: str) -> dict[str, Any]:
    row = planned.values
    return {
        "level": level,
        "key": planned.key,
        "row": planned.row,
        "state": state,
        "reason": None if reason is None else str(reason),
        "detail": detail,
        "file": row.file,
        "native_id": row.native_id,
        "source_sha256": planned.sha256,
        "source_bytes": planned.bytes,
        "kind": row.kind,
        **{name: getattr(row, name) for name in PEOPLE},
        **{f"extra.{name}": value for name, value in sorted(row.extra.items())},
    }
