"""Pose, sharpness and stillness say what they are called after."""

import cv2
import numpy as np
import pytest

from preprocessing.faces import FaceFinder
from preprocessing.landmarks import FaceMesh, Follower
from preprocessing.quality import Sharpness, Stillness, blink_rate, pose, spread


@pytest.fixture(scope="module")
def points(portrait):
    finder = FaceFinder()
    return Follower(FaceMesh(), finder, finder.first(portrait)[0]).follow(portrait)


def test_a_face_that_looks_ahead_has_small_angles(points):
    yaw, pitch, roll = pose(points[None])[0]
    assert abs(yaw) < 15
    assert abs(pitch) < 15
    assert abs(roll) < 12


@pytest.mark.parametrize(("axis", "column"), [((0, 1, 0), 0), ((1, 0, 0), 1), ((0, 0, 1), 2)])
def test_each_angle_follows_its_turn(points, axis, column):
    centre = points.mean(axis=0)
    start = pose(points[None])[0, column]
    moved = []
    for degrees in (-20, 20):
        turn, _ = cv2.Rodrigues(np.radians(degrees) * np.array(axis, float))
        moved.append(pose(((points - centre) @ turn.T + centre)[None])[0, column] - start)
    assert np.abs(moved) == pytest.approx([20, 20], abs=3)
    assert np.sign(moved[0]) == -np.sign(moved[1])


def test_speech_does_not_turn_the_head(points):
    from contracts.face import LIPS, LOWER_OVAL

    spoken = points.copy()
    spoken[[*LIPS, *LOWER_OVAL], 1] += 15
    assert np.array_equal(pose(points[None]), pose(spoken[None]))


def test_spread_is_the_middle_95_percent():
    assert spread(np.linspace(0, 100, 1001)) == pytest.approx(95)


def test_blur_is_less_sharp(portrait):
    values = []
    for image in (portrait, cv2.GaussianBlur(portrait, (0, 0), 2)):
        sharpness = Sharpness()
        sharpness.see(image)
        values.append(sharpness.value)
    assert values[0] > 5 * values[1] > 0
    assert Sharpness().value is None


def test_frozen_frames_are_counted(moving):
    still = Stillness()
    frames = list(moving(5))
    for image in [frames[0], frames[0], frames[0], frames[1], frames[2]]:
        still.see(image)
    assert still.value == 0.5
    assert Stillness().value is None


def test_blinks_are_counted_per_minute():
    opening = np.full(250, 0.3)
    opening[20:24] = 0.1
    opening[100:107] = 0.12
    opening[180:220] = 0.1  # eyes cast down for 1.6 s
    found = np.ones(250, bool)
    assert blink_rate(opening, found) == pytest.approx(2 * 6)
    found[18:26] = False
    assert blink_rate(opening, found) == pytest.approx(60 * 25 / 242)
    assert blink_rate(opening, np.zeros(250, bool)) is None


def test_a_mirrored_face_looks_the_other_way(portrait):
    from contracts.face import gaze

    across = []
    for image in (portrait, np.ascontiguousarray(portrait[:, ::-1])):
        finder = FaceFinder()
        across.append(gaze(Follower(FaceMesh(), finder, finder.first(image)[0]).follow(image))[0])
    assert across[0] == pytest.approx(-across[1], abs=0.06)
