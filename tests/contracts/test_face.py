"""The index table against mediapipe's own connection sets, and the measures' invariances."""

import numpy as np
import pytest

from contracts import face


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("LIPS", "FACEMESH_LIPS"),
        ("LEFT_EYE", "FACEMESH_LEFT_EYE"),
        ("RIGHT_EYE", "FACEMESH_RIGHT_EYE"),
        ("LEFT_BROW", "FACEMESH_LEFT_EYEBROW"),
        ("RIGHT_BROW", "FACEMESH_RIGHT_EYEBROW"),
        ("OVAL", "FACEMESH_FACE_OVAL"),
    ],
)
def test_sets_are_mediapipes(ours, theirs):
    connections = pytest.importorskip("mediapipe.python.solutions.face_mesh_connections")
    mine = getattr(face, ours)
    assert len(set(mine)) == len(mine)
    assert set(mine) == {point for pair in getattr(connections, theirs) for point in pair}


def test_rings_walk_along_mediapipes_connections():
    connections = pytest.importorskip("mediapipe.python.solutions.face_mesh_connections")
    edges = {frozenset(pair) for pair in connections.FACEMESH_LIPS}
    for ring in (face.LIPS_OUTER, face.LIPS_INNER):
        assert all(frozenset(pair) in edges for pair in zip(ring, ring[1:] + ring[:1]))


def test_talkformers_131_landmarks():
    pose = (*face.LEFT_EYE, *face.RIGHT_EYE, *face.BROWS, *face.NOSE)
    assert len(face.LOWER_OVAL) == 25
    assert len({*pose, *face.LIPS, *face.LOWER_OVAL}) == 131


def test_measures_ignore_rotation_and_size():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, face.POINTS, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    moved = 3.0 * points @ turn.T + rng.normal(size=3)
    assert np.allclose(face.mouth_opening(points), face.mouth_opening(moved))
    assert np.allclose(face.eye_opening(points), face.eye_opening(moved))
    assert face.eye_centres(points).shape == (5, 2, 3)
    assert np.allclose(
        face.eyes_midpoint(moved), 3.0 * face.eyes_midpoint(points) @ turn.T + (moved - 3.0 * points @ turn.T)[:, 0]
    )


def test_a_blink_does_not_move_the_eye_centres():
    points = np.random.default_rng(1).normal(size=(face.POINTS, 3))
    closed = points.copy()
    closed[[face.RIGHT_LID_TOP, face.LEFT_LID_TOP]] = closed[[face.RIGHT_LID_BOTTOM, face.LEFT_LID_BOTTOM]]
    assert np.array_equal(face.eye_centres(points), face.eye_centres(closed))
    assert face.eye_opening(closed) == 0


def test_the_views_hold_what_they_are_called_after():
    assert len(set(face.POINTS_131)) == 131
    assert len(set(face.POSE_74)) == 74
    assert len(set(face.JAW_17)) == 17
    assert set(face.POINTS_131) == set(face.LIPS) | set(face.POSE_74) | set(face.JAW_17)
    assert len(set(face.POINTS_68)) == 68
    points = np.random.default_rng(0).random((3, 478, 2))
    assert face.view_131(points).shape == (3, 131, 2)
    assert np.array_equal(face.view_68(points)[:, 48], points[:, face.MOUTH_RIGHT])  # 300-W counts mouths from there
    assert np.array_equal(face.view_68(points)[:, 8], points[:, face.CHIN])


def _eyes(across: float, down: float) -> np.ndarray:
    """Points of two eyes, corners 20 apart, irises moved from the middle by parts of the half width."""
    points = np.zeros((478, 3))
    for first, last, iris, x in (
        (face.RIGHT_EYE_OUTER, face.RIGHT_EYE_INNER, face.RIGHT_IRIS, 100),
        (face.LEFT_EYE_INNER, face.LEFT_EYE_OUTER, face.LEFT_IRIS, 160),
    ):
        points[first, :2], points[last, :2] = (x - 10, 50), (x + 10, 50)
        points[list(iris), :2] = (x + 10 * across, 50 + 10 * down)
    return points


@pytest.mark.parametrize("turn", [0.0, 25.0, -40.0])
def test_gaze_is_the_place_of_the_irises_whatever_the_roll(turn):
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    points = _eyes(0.3, -0.1)
    points[:, :2] = 2.5 * points[:, :2] @ np.array([[c, s], [-s, c]]) + 7
    assert face.gaze(points[None]) == pytest.approx(np.array([[0.3, -0.1]]))
    assert face.gaze(_eyes(0, 0)) == pytest.approx(np.zeros(2))
