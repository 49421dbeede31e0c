"""Cuts are seen, motion and light are not taken for cuts."""

import numpy as np
import pytest

from contracts.manifest import row_from
from preprocessing.faces import Face
from preprocessing.picture import Picture
from preprocessing.pockets import Spool
from preprocessing.shots import Cuts, stride
from preprocessing.step import Tools
from preprocessing.watch import Shot


def _cuts(frames) -> list[int]:
    cuts = Cuts()
    return [number for number, image in enumerate(frames) if cuts.begins(image)]


def test_a_cut_is_seen_where_it_is(moving, noise):
    other = noise(10, 400, 400)
    assert _cuts([*moving(10), *other, *moving(5)]) == [10, 20]


def test_motion_and_light_are_no_cuts(moving):
    frames = list(moving(30))
    assert _cuts(frames[::3]) == []
    assert _cuts([(frame * (1 - t / 40)).astype(np.uint8) for t, frame in enumerate(frames)]) == []


def test_flat_pictures_do_not_cut():
    rng = np.random.default_rng(0)
    assert _cuts([rng.integers(0, 4, (60, 60, 3), np.uint8) for _ in range(5)]) == []
    black, white = np.zeros((60, 60, 3), np.uint8), np.full((60, 60, 3), 255, np.uint8)
    assert _cuts([black, black, white, white]) == []  # a flash: a flat picture resembles anything


def test_large_pictures_are_compared_by_as_many_pixels():
    assert [stride(*size) for size in ((320, 240), (1280, 720), (1920, 1080), (1080, 1920))] == [6, 8, 12, 12]


@pytest.mark.parametrize("shown", ["face", "wall"])
def test_the_slow_detector_is_spared_where_the_mesh_fits_a_face(moving, monkeypatch, shown):
    frames = list(moving(8)) if shown == "face" else [np.full((240, 320, 3), 128, np.uint8)] * 8
    tools, slow = Tools(), []
    height, width = frames[0].shape[:2]
    monkeypatch.setattr(tools.finder, "hog", lambda *_: [])  # as of a face that is turned, or dim
    monkeypatch.setattr(tools.finder, "cnn", lambda *_: slow.append(1) or [Face(0, 0, width, height, "mmod")])
    shot = Shot(tools, row_from({"file": "x.mp4"}), 0, Spool())
    for frame in frames:
        shot.see(Picture.of(frame), np.ascontiguousarray(frame[::6, ::6]))
    shot.end()
    assert len(slow) == (shown == "wall")
    assert shot.speaker(np.zeros(0, np.int16)).face.detector == ("blaze" if shown == "face" else "mmod")
