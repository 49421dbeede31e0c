"""A small dataset of drawn faces that speak in tones: nobody's face, nobody's voice."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from contracts import face
from contracts.sample import EYES_DISTANCE, EYES_MIDPOINT, FPS, SAMPLES_PER_FRAME, Meta, encode
from contracts.selection import Chosen, Selection, write_selection
from contracts.shards import dataset_digest, write_shard

SIDE = 128  # of the stored crops, pixels
SPEAKERS = 8  # half of them women; the last of each gender is held out
CLIP_FRAMES = (90, 60)  # of a speaker's two clips: one long enough for unseen seconds, one not
STILLS = 2  # of each speaker


class Small(NamedTuple):
    """A committed dataset, the folder of a selection over all of it, and that selection."""

    dataset: Path
    selection_folder: Path
    selection: Selection


def draw_dataset(dataset: Path, selection_folder: Path) -> Small:
    """Draw, encode and commit the samples, two speakers to a shard, and select all of them."""
    dataset.mkdir(parents=True)
    chosen = []
    for number in range(SPEAKERS // 2):
        samples, lines = [], []
        for speaker in (2 * number, 2 * number + 1):
            for take, frames in enumerate((*CLIP_FRAMES, *[1] * STILLS)):
                row = speaker * (len(CLIP_FRAMES) + STILLS) + take
                meta, members = _sample(speaker, take, frames, row)
                facts = meta.model_dump(include={"kind", "frames", "side", "corpus", "speaker", "gender", "native_id"})
                for level, key in (("row", meta.key.removesuffix("-s00")), ("span", meta.key)):
                    span = {"span": 0} if level == "span" else {}
                    lines.append(facts | span | {"level": level, "key": key, "row": row, "state": "kept"})
                samples.append((meta.key, members))
                split = "val" if speaker >= SPEAKERS - 2 else "train"
                facts = {"kind": meta.kind, "frames": frames, "speaker": meta.speaker, "gender": meta.gender}
                chosen.append(Chosen(key=meta.key, shard=number, split=split, **facts))
        write_shard(dataset, number, samples, lines, steps="drawn", rows=f"drawn-{number}")
    selection = Selection(dataset=dataset_digest(dataset), samples=tuple(chosen), refused={})
    write_selection(selection_folder, selection)
    return Small(dataset, selection_folder, selection)


def _sample(speaker: int, take: int, frames: int, row: int) -> tuple[Meta, dict[str, bytes]]:
    from contracts.speech import log_mel

    rng = np.random.default_rng([speaker, take])
    gender = "fm"[speaker % 2]
    clip = frames > 1
    opening = _opening(rng, frames)  # 0 closed .. 1 wide
    points = np.stack([_points(speaker, rng_sway, o) for rng_sway, o in zip(_sway(rng, frames), opening, strict=True)])
    jpegs = [_draw(speaker, gender, p) for p in points]
    features = {
        "landmarks": points.astype(np.float32),
        "landmarks_found": np.ones(frames, bool),
        "crop_from_source": np.tile(np.eye(2, 3), (frames, 1, 1)),
        "pose": np.zeros((frames, 3), np.float32),
        "blink": np.full(frames, 0.3, np.float32),
        "mouth": face.mouth_opening(points).astype(np.float32),
    }
    audio = None
    if clip:
        audio = _voice(speaker, gender, opening, rng)
        features["mel"] = log_mel(audio.astype(np.float32) / 32768).astype(np.float16)
    meta = Meta(
        key=f"drawn-s{speaker}-t{take}-{row:012x}-s00",
        kind="clip" if clip else "face",
        frames=frames,
        side=SIDE,
        corpus="drawn",
        native_id=f"s{speaker}/t{take}",
        file=f"s{speaker}/t{take}.{'mp4' if clip else 'png'}",
        source_sha256=f"{row:064x}",
        start_s=0.0,
        end_s=frames / FPS,
        speaker=f"s{speaker}",
        gender=gender,
    )
    return meta, encode(meta, features, audio, jpegs)


def _opening(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Syllables, three to five a second, with pauses."""
    t = np.arange(frames) / FPS
    wave = np.sin(2 * np.pi * rng.uniform(3, 5) * t + rng.uniform(0, 6))
    return np.clip(wave * (np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6)) > -0.6), 0, 1)


def _sway(rng: np.random.Generator, frames: int) -> np.ndarray:
    t = np.arange(frames) / FPS
    return 0.01 * np.stack([np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in (0.4, 0.3)], axis=1)


def _voice(speaker: int, gender: str, opening: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Int16 [640 T]: four harmonics of the speaker's pitch, as loud as the mouth is open."""
    pitch = (200 if gender == "f" else 110) + 7 * speaker
    t = np.arange(len(opening) * SAMPLES_PER_FRAME) / (FPS * SAMPLES_PER_FRAME)
    envelope = np.interp(t, (np.arange(len(opening)) + 0.5) / FPS, opening)
    tone = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 5))
    return ((0.2 * tone * envelope + 0.002 * rng.standard_normal(len(t))) * 32767).astype(np.int16)


def _ring(
    indices: tuple[int, ...],
    points: np.ndarray,
    centre: tuple[float, float],
    radii: tuple[float, float],
    turn: tuple[float, int] = (0.0, 1),
) -> None:
    """Put a ring of points on an ellipse, from an angle on, clockwise in the picture (1) or against it (-1)."""
    start, way = turn
    angles = start + way * np.linspace(0, 2 * np.pi, len(indices), endpoint=False)
    points[list(indices), 0] = centre[0] + radii[0] * np.cos(angles)
    points[list(indices), 1] = centre[1] + radii[1] * np.sin(angles)


def _points(speaker: int, sway: np.ndarray, opening: float) -> np.ndarray:
    """Landmarks [478, 3] in 0..1 of the crop."""
    (mx, my), half = EYES_MIDPOINT, EYES_DISTANCE / 2
    points = np.zeros((478, 3))
    points[:, :2] = (mx, my + 0.1)  # what no set below names: mid-face
    wide = 0.24 + 0.006 * speaker
    _ring(face.OVAL, points, (mx, my + 0.07), (wide, 0.33), (-np.pi / 2, 1))
    # rings run from the outer corner, or the mouth's corner, over the lower edge
    for eye, brow, iris, side, turn in (
        (face.RIGHT_EYE, face.RIGHT_BROW, face.RIGHT_IRIS, -1, (np.pi, -1)),
        (face.LEFT_EYE, face.LEFT_BROW, face.LEFT_IRIS, 1, (0.0, 1)),
    ):
        centre = (mx + side * half, my)
        _ring(eye, points, centre, (0.045, 0.018), turn)
        _ring(iris, points, centre, (0.012, 0.012))
        points[list(brow), 0] = centre[0] + np.linspace(-0.06, 0.06, len(brow))
        points[list(brow), 1] = my - 0.06
    points[list(face.NOSE), 0] = mx + np.linspace(-0.03, 0.03, len(face.NOSE))
    points[list(face.NOSE), 1] = my + 0.14
    points[face.NOSE_TIP, :2] = (mx, my + 0.13)
    mouth = (mx, my + 0.22)
    _ring(face.LIPS_OUTER, points, mouth, (0.09, 0.025 + 0.04 * opening), (np.pi, -1))
    _ring(face.LIPS_INNER, points, mouth, (0.07, 0.002 + 0.035 * opening), (np.pi, -1))
    points[:, :2] += sway
    return points


def _draw(speaker: int, gender: str, points: np.ndarray) -> bytes:
    """A JPEG of the face at twice the size, halved for soft edges."""
    tone = 110 + 16 * (speaker // 2)
    skin, hair = (tone + 60, tone + 20, tone - 10), (40 + 20 * speaker, 30 + 8 * speaker, 30)
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), (40, 60 + 15 * speaker, 120))
    pen = ImageDraw.Draw(image)

    def shape(indices: tuple[int, ...], colour: tuple[int, int, int]) -> None:
        pen.polygon([tuple(p) for p in points[list(indices), :2] * 2 * SIDE], fill=colour)

    x0, y0 = (points[list(face.OVAL), :2].min(0) - 0.04) * 2 * SIDE
    x1, y1 = (points[list(face.OVAL), :2].max(0) + 0.04) * 2 * SIDE
    pen.ellipse((x0, y0, x1, y1 if gender == "f" else (y0 + y1) / 2), fill=hair)
    shape(face.OVAL, skin)
    for eye, iris in ((face.RIGHT_EYE, face.RIGHT_IRIS), (face.LEFT_EYE, face.LEFT_IRIS)):
        shape(eye, (245, 245, 245))
        shape(iris, (40, 40, 60))
    for brow in (face.RIGHT_BROW, face.LEFT_BROW):
        pen.line([tuple(p) for p in points[list(brow), :2] * 2 * SIDE], fill=hair, width=6)
    pen.line(
        [tuple(points[i, :2] * 2 * SIDE) for i in (face.NOSE_BRIDGE, face.NOSE_TIP)],
        fill=(tone, tone - 30, 60),
        width=4,
    )
    shape(face.LIPS_OUTER, (170, 60, 70))
    shape(face.LIPS_INNER, (50, 10, 15))
    data = io.BytesIO()
    image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(data, "JPEG", quality=92)
    return data.getvalue()
