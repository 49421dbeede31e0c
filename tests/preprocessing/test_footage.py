"""Footage for dubbing: faces where they are, frames as the decoder gives them, from the start again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contracts.errors import Reject
from contracts.limits import Limits
from contracts.reasons import Reason
from preprocessing.footage import HELD, Footage, Shot, _held, watch
from preprocessing.media import decode, encode_video, probe
from preprocessing.views import paste

FACE, NONE = 20, 14  # frames with the face, and after the cut without
SIDE = 104


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that drifts, 360 x 300; then a cut to an empty wall."""
    data = pytest.importorskip("skimage.data")
    image = np.ascontiguousarray(data.astronaut()[:320, 24:424])
    face = [image[10:310, t : t + 360] for t in range(FACE)]
    wall = np.tile(np.linspace(40, 90, 360).astype(np.uint8)[None, :, None], (300, 1, 3))
    path = tmp_path_factory.mktemp("footage") / "face.mp4"
    sound = 0.1 * np.sin(np.arange((FACE + NONE) * 640) / 9).astype(np.float32)
    encode_video(path, [*face, *[wall] * NONE], sound)
    return path


@pytest.fixture(scope="module")
def footage(video: Path) -> Footage:
    return watch(video, SIDE, 5, 60.0)


def test_the_face_is_found_in_its_shot_and_nowhere_else(footage: Footage) -> None:
    assert footage.count == FACE + NONE
    assert [(shot.first, len(shot.there), shot.there.all(), shot.there.any()) for shot in footage.shots] == [
        (0, FACE, True, True),
        (FACE, NONE, False, False),
    ]
    shot = footage.shots[0]
    assert shot.references is not None
    assert shot.landmarks is not None
    assert shot.references.shape == (5, SIDE, SIDE, 3)
    assert shot.landmarks.shape == (5, 478, 2)
    eyes = shot.landmarks[:, [33, 133, 362, 263]].mean(1)
    assert np.abs(eyes - (0.5, 0.42)).max() < 0.03, "references are not aligned as stored crops are"
    assert shot.points is not None
    assert shot.points.shape == (FACE, 478, 2)
    assert np.array_equal(shot.points[0], shot.landmarks[0]), "references are evenly spread, the first frame among them"


def test_frames_are_the_decoder_s_and_begin_again(footage: Footage, video: Path) -> None:
    limits = Limits()
    with decode(probe(video, limits), limits) as decoding:
        true = list(decoding)
    total = 2 * footage.count + 5
    parts = list(footage.gather(total))
    frames = [frame for part in parts for frame in part.frames]
    assert len(frames) == total
    assert all(np.array_equal(frame, true[t % footage.count]) for t, frame in enumerate(frames))
    assert max(len(part.frames) for part in parts) <= 8, "memory must not grow with the length"
    for part in parts:
        if part.points is not None:
            eyes = part.points[:, [33, 133, 362, 263]].mean(1)
            assert len(part.points) == len(part.frames)
            assert np.abs(eyes - (0.5, 0.42)).max() < 0.05, "points are not those of the crops"
    with_face = [part.crops is not None for part in parts for _ in part.frames]
    assert with_face == [t % footage.count < FACE for t in range(total)]
    assert footage.untouched(total) == total - sum(with_face)


def test_a_crop_put_back_where_it_was_fits(footage: Footage) -> None:
    part = next(footage.gather(3))
    assert part.crops is not None
    assert part.matrices is not None
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[60:90, 30:70] = 1.0
    pasted = paste(part.frames[2], part.crops[2], part.matrices[2], mask)
    changed = np.abs(pasted.astype(int) - part.frames[2]).max(-1)
    assert 0 < (changed > 0).mean() < 0.2
    assert changed.mean() < 1.0, "the crop's own pixels lie elsewhere in the frame"


def test_speech_shorter_than_the_video_reads_no_more_of_it(video: Path) -> None:
    short = watch(video, SIDE, 2, 0.6)
    assert short.count == 15
    assert sum(len(part.frames) for part in short.gather(15)) == 15


def test_a_video_without_a_face_is_refused(tmp_path: Path) -> None:
    wall = np.tile(np.linspace(40, 90, 160).astype(np.uint8)[None, :, None], (120, 1, 3))
    encode_video(tmp_path / "wall.mp4", [wall] * 14, np.zeros(14 * 640, np.float32))
    with pytest.raises(Reject) as refused:
        watch(tmp_path / "wall.mp4", SIDE, 5, 60.0)
    assert refused.value.reason is Reason.NO_FACE


def test_short_losses_are_bridged_and_long_ones_left_alone() -> None:
    found = np.ones(40, bool)
    found[:3] = found[10 : 10 + HELD] = found[25 : 25 + HELD + 1] = False
    there = _held(found)
    assert not there[:3].any()
    assert there[3:25].all()
    assert not there[25 : 25 + HELD + 1].any()
    assert there[-5:].all()
    only = Footage(Path("x"), [Shot(0, there)], SIDE, Limits(), None)
    assert only.untouched(80) == 2 * int((~there).sum())
