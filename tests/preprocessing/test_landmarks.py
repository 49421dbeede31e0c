"""The mesh on a moving real face: found, in place, and independent of what was seen before."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from contracts.face import eye_centres, view_68
from preprocessing.faces import Face, FaceFinder
from preprocessing.landmarks import FaceMesh, Follower, face_width, fill


@pytest.fixture(scope="module")
def tools():
    return FaceMesh(), FaceFinder()


def _follow(tools, frames) -> list:
    mesh, finder = tools
    frames = list(frames)
    follower = Follower(mesh, finder, finder.first(frames[0])[0])
    return [follower.follow(frame) for frame in frames]


def test_points_are_mediapipes_own_to_the_bit(tools, moving):
    """The graph that the caller's thread runs, against the solution with its own threads."""
    import mediapipe

    mesh, _ = tools
    mesh.reset()
    frames = [np.ascontiguousarray(frame[:240, 100:340]) for frame in moving(6)]
    with mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=True) as solution:
        for frame in frames:
            (face,) = solution.process(frame).multi_face_landmarks
            theirs = np.array([(p.x, p.y, p.z) for p in face.landmark]) * 240 - (0.5, 0.5, 0.0)
            assert np.array_equal(mesh.find(frame), theirs)


def test_points_follow_the_motion(tools, moving, portrait):
    import cv2

    points = _follow(tools, moving(20))
    assert all(p is not None for p in points)
    still = points[0]
    for t in (7, 19):
        first, now = (
            np.vstack([cv2.getRotationMatrix2D((200, 120), 8 * np.sin(k / 6), 1 + 0.05 * np.sin(k / 9)), (0, 0, 1)])
            + np.array([[0, 0, 10 * np.sin(k / 7)], [0, 0, 5 * np.cos(k / 5)], [0, 0, 0]])
            for k in (0, t)
        )
        expected = (now @ np.linalg.inv(first))[:2] @ np.vstack([still[:, :2].T, np.ones(len(still))])
        assert np.linalg.norm(points[t][:, :2] - expected.T, axis=1).mean() < 2.5  # px, of a face of 110


def test_a_clip_does_not_depend_on_the_clips_before_it(tools, moving, portrait):
    frames = list(moving(12))
    alone = _follow((FaceMesh(), FaceFinder()), frames)
    _follow(tools, (frame[:, ::-1].copy() for frame in frames))
    after = _follow(tools, frames)
    assert all(np.array_equal(a, b) for a, b in zip(alone, after, strict=True))


def test_a_lost_face_is_found_again(tools, moving):
    frames = list(moving(30))
    for t in range(8, 16):
        frames[t] = np.full_like(frames[t], 90)
    found = [points is not None for points in _follow(tools, frames)]
    assert found[:8] == [True] * 8
    assert not any(found[8:16])
    assert all(found[16 + 5 :])


def test_the_face_leaves_its_region_and_is_searched_for(tools, portrait):
    wide = np.zeros((400, 560, 3), np.uint8)
    before, after = wide.copy(), wide.copy()
    before[:, :400] = portrait
    after[:, 100:500] = portrait
    points = _follow(tools, [before] * 3 + [after] * 7)
    assert points[-1] is not None
    assert points[-1][4, 0] - points[0][4, 0] == pytest.approx(100, abs=3)


def test_nothing_is_found_on_a_wall(tools):
    mesh, finder = tools
    follower = Follower(mesh, finder, Face(50, 50, 150, 150))
    assert follower.follow(np.full((200, 200, 3), 128, np.uint8)) is None


def test_the_slow_detector_is_asked_once_where_nothing_begins(tools, monkeypatch):
    mesh, finder = tools
    wall, asked = np.full((200, 200, 3), 128, np.uint8), []
    follower = Follower(mesh, finder, Face(50, 50, 150, 150))
    monkeypatch.setattr(finder, "cnn", lambda image, longest: asked.append(frame) or [])
    for frame in range(40):  # noqa: B007 (told by the lambda)
        assert follower.follow(wall) is None
    assert asked == [0]  # a face that was never there is not looked for again


def test_gaps_are_filled_by_straight_lines():
    points = np.zeros((6, 478, 3))
    points[1], points[4] = 3.0, 9.0
    filled = fill(points, np.array([False, True, False, False, True, False]))
    assert filled[:, 0, 0].tolist() == [3, 3, 5, 7, 9, 9]
    with pytest.raises(ValueError, match="no frame"):
        fill(points, np.zeros(6, bool))


def test_width_is_in_space(tools, portrait):
    points = _follow(tools, [portrait])[0]
    assert 80 < face_width(points) < 140


def test_the_mesh_says_nothing_on_stderr(capfd):
    mesh = FaceMesh()
    mesh.reset()
    mesh.find(np.zeros((64, 64, 3), np.uint8))
    assert capfd.readouterr().err == ""


APART_68 = 0.07  # of the eyes' distance: our 68 points from those of dlib's predictor, mean of a face


def _apart(image: np.ndarray, finder: FaceFinder) -> np.ndarray:
    """Distances [68] between the two sets of 68 points on the one face in ``image``, over the eyes' distance."""
    import dlib

    from preprocessing.faces import model_folder

    face = finder.first(image)[0]
    points = Follower(FaceMesh(), finder, face).follow(image)
    predictor = dlib.shape_predictor(str(model_folder() / "shape_predictor_68_face_landmarks.dat"))
    parts = predictor(image, dlib.rectangle(*map(int, (face.x0, face.y0, face.x1, face.y1)))).parts()
    theirs = np.array([(part.x, part.y) for part in parts])
    right, left = eye_centres(points)[:, :2]
    return np.linalg.norm(view_68(points)[:, :2] - theirs, axis=1) / np.linalg.norm(left - right)


def test_the_68_points_are_where_dlib_sees_them(portrait):
    apart = _apart(portrait, FaceFinder())
    assert apart.mean() < APART_68
    assert apart[17:].mean() < 0.05  # without the jaw
    assert apart.max() < 0.25


@pytest.mark.corpus
@pytest.mark.skipif("VOXFACE_CORPUS" not in os.environ, reason="VOXFACE_CORPUS names no folder: no real corpus here")
def test_the_68_points_are_where_dlib_sees_them_on_real_faces():
    finder, apart = FaceFinder(), []
    for path in sorted(Path(os.environ["VOXFACE_CORPUS"], "faces").glob("lfw__*"))[:24]:
        image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        if len(finder.first(image)) == 1:
            apart.append(_apart(image, finder))
    assert len(apart) >= 15
    assert np.mean(apart) < APART_68
    assert np.mean(apart, axis=0)[17:].max() < 0.15
