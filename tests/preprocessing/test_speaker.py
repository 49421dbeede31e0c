"""Which of several faces is meant: the one named, else the one that speaks; and that no face takes another's place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from contracts.files import sha256_file
from contracts.manifest import row_from
from contracts.plan import PlannedRow
from contracts.sample import decode_features
from preprocessing.build import IngestSettings, build_row
from preprocessing.demo.cast import cast
from preprocessing.demo.motion import move
from preprocessing.demo.render import Performer
from preprocessing.demo.scene import spoken
from preprocessing.media import encode_video
from preprocessing.step import Tools

SIDE = 320
SAYINGS = (
    "Bob may move five of my maps to the open boat before noon.",
    "We all saw you leave the room with a wide smile.",
)


class Talk(NamedTuple):
    frames: list[np.ndarray]  # uint8 [SIDE, SIDE, 3], 25 per second
    sound: np.ndarray  # float32 [N], 16 kHz


@pytest.fixture(scope="module")
def talks() -> tuple[Talk, Talk]:
    """Two people, each saying something else."""
    made = []
    for number, (speaker, text) in enumerate(zip(cast(2, 0), SAYINGS, strict=True)):
        rng = np.random.default_rng(number)
        said = spoken(text, speaker.voice, rng)
        made.append(Talk(list(Performer(speaker, 0).frames(move(said, 25, rng), SIDE)), said.sound))
    return made[0], made[1]


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools()


@pytest.fixture
def ingest(tmp_path: Path, tools: Tools) -> Callable[..., list[tuple[str | None, np.ndarray]]]:
    """Encode frames and sound, build the row: per span its reason and where the nose is, [T, 2] in source pixels."""

    def run(frames: list[np.ndarray], sound: np.ndarray, **values: float) -> list[tuple[str | None, np.ndarray]]:
        encode_video(tmp_path / "x.mp4", frames, sound[: 640 * len(frames)], fps=25, crf=18)
        row = row_from({"file": "x.mp4", **values})
        path = tmp_path / "x.mp4"
        digest, size = sha256_file(path), path.stat().st_size
        planned = PlannedRow(row=0, shard=0, key=row.key, sha256=digest, bytes=size, values=row)
        samples, lines = build_row(planned, tmp_path, tools, IngestSettings())
        assert sha256_file(path) == digest  # the input is never changed
        places = {key: _nose(decode_features(members["npz"]), members) for key, members in samples}
        nothing = np.zeros((0, 2))
        return [(line["reason"], places.get(line["key"], nothing)) for line in lines if line["level"] == "span"]

    return run


def _nose(features: dict[str, np.ndarray], members: dict[str, bytes]) -> np.ndarray:
    from contracts.face import NOSE_TIP
    from contracts.sample import decode_meta

    crop = features["landmarks"][:, NOSE_TIP, :2] * decode_meta(members["json"]).side - 0.5
    turn, shift = features["crop_from_source"][:, :, :2], features["crop_from_source"][:, :, 2]
    return np.einsum("tij,tj->ti", np.linalg.inv(turn), crop - shift)


def _beside(left: list[np.ndarray], right: list[np.ndarray], scale: float = 1.0) -> list[np.ndarray]:
    """Frames side by side, the right ones ``scale`` times as large, on a grey ground."""
    side = round(scale * SIDE / 2) * 2
    frames = []
    for a, b in zip(left, right):
        picture = np.full((max(SIDE, side), SIDE + side, 3), 96, np.uint8)
        picture[:SIDE, :SIDE] = a
        picture[:side, SIDE:] = cv2.resize(b, (side, side), interpolation=cv2.INTER_AREA)
        frames.append(picture)
    return frames


@pytest.mark.parametrize("speaks", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 1.6, 0.7])
def test_the_face_that_moves_with_the_sound_is_chosen(talks, ingest, speaks, scale):
    """Both move their lips; only one is heard. The right face is larger, as large, or smaller."""
    frames = _beside(talks[0].frames, talks[1].frames, scale)
    ((reason, nose),) = ingest(frames, talks[speaks].sound)
    assert reason is None
    assert ((nose[:, 0] > SIDE) == bool(speaks)).all()


@pytest.mark.parametrize("speaks", [0, 1])
def test_a_larger_face_that_only_listens_is_not_chosen(talks, ingest, speaks):
    listener = [talks[1 - speaks].frames[0]] * len(talks[speaks].frames)
    sides = (talks[0].frames, listener) if speaks == 0 else (listener, talks[1].frames)
    ((reason, nose),) = ingest(_beside(*sides, scale=1.5 if speaks == 0 else 0.8), talks[speaks].sound)
    assert reason is None
    assert ((nose[:, 0] > SIDE) == bool(speaks)).all()


def test_coordinates_win_over_sound(talks, ingest):
    frames = _beside(talks[0].frames, talks[1].frames)[:40]
    ((reason, nose),) = ingest(frames, talks[0].sound, face_x=0.75, face_y=0.4)
    assert reason is None
    assert (nose[:, 0] > SIDE).all()


def test_nobody_is_chosen_where_a_third_is_heard(talks, ingest):
    sound = np.random.default_rng(0).normal(0, 0.05, 640 * 75).astype(np.float32)
    ((reason, _),) = ingest(_beside(talks[0].frames, talks[1].frames)[:75], sound)
    assert reason == "MANY_FACES"


def test_a_face_that_leaves_and_returns_is_the_same_and_its_absence_is_told(talks, ingest, tools):
    """Behind a wall of its own colour for 20 frames: found again, and marked as not found in between."""
    frames = [frame.copy() for frame in talks[0].frames[:75]]
    for frame in frames[30:50]:
        frame[:] = 96
    spans = ingest(frames, talks[0].sound)
    assert all(reason in (None, "NO_FACE", "TOO_SHORT") for reason, _ in spans)
    kept = [nose for reason, nose in spans if reason is None]
    assert sum(len(nose) for nose in kept) >= 50
    for nose in kept:
        assert np.abs(np.diff(nose, axis=0)).max() < 0.1 * SIDE


def test_who_walks_in_front_of_another_keeps_their_name(talks, ingest):
    """They change places. (Whoever is hidden behind the other for a while may be lost to them: a known limit.)"""
    count, frames = 60, []
    for t in range(count):
        picture = np.full((SIDE, 2 * SIDE, 3), 96, np.uint8)
        x = round(SIDE * t / (count - 1))
        picture[:, SIDE - x : 2 * SIDE - x] = talks[1].frames[0]
        picture[:, x : x + SIDE] = talks[0].frames[0]  # in front
        frames.append(picture)
    ((reason, nose),) = ingest(frames, talks[0].sound, face_x=0.25, face_y=0.4)
    assert reason is None
    expected = SIDE * np.arange(count) / (count - 1) + SIDE / 2
    assert np.abs(nose[:, 0] - expected).max() < 0.2 * SIDE


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_a_neighbour_does_not_take_the_place_of_a_face_that_is_gone(talks, ingest, scale):
    """The one who is meant fades into the wall; the other stays. The place is then empty, and not the neighbour's."""
    side = round(scale * SIDE)
    frames = []
    for t in range(60):
        gone = min(max(t - 25, 0) / 10, 1.0)
        picture = np.full((SIDE, 2 * SIDE, 3), 96, np.uint8)
        people = [cv2.resize(talk.frames[0], (side, side), interpolation=cv2.INTER_AREA) for talk in talks]
        picture[:side, :side] = np.round((1 - gone) * people[0] + gone * 96.0)
        picture[:side, side : 2 * side] = people[1]
        frames.append(picture)
    for reason, nose in ingest(frames, talks[0].sound, face_x=side / (4 * SIDE), face_y=0.4 * scale)[:1]:
        assert reason in (None, "FACE_LOST")
        assert (nose[:, 0] < side).all()
