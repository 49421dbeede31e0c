"""What is read of a face against faces that were moved on purpose."""

import math

import numpy as np
import torch
from toy_batch import place_landmarks

from contracts import face
from systems.common.geometry import GROUPS, IRIS, REST, columns, geometry, rest_of_face


def still() -> torch.Tensor:
    """A face with irises in the middle of its eyes and lids apart, float64 [478, 2]."""
    points = place_landmarks(0.3, 0.0, 0)
    eyes = ((face.RIGHT_EYE_OUTER, face.RIGHT_EYE_INNER), (face.LEFT_EYE_INNER, face.LEFT_EYE_OUTER))
    irises = (face.RIGHT_IRIS[0], face.LEFT_IRIS[0])
    lids = ((face.RIGHT_LID_TOP, face.RIGHT_LID_BOTTOM), (face.LEFT_LID_TOP, face.LEFT_LID_BOTTOM))
    for (first, last), iris, (top, bottom), x in zip(eyes, irises, lids, (0.39, 0.61)):
        points[first], points[last], points[iris] = (x - 0.05, 0.42), (x + 0.05, 0.42), (x, 0.42)
        points[top], points[bottom] = (x, 0.41), (x, 0.43)
    return torch.from_numpy(points)


def read(points: torch.Tensor) -> dict[str, float]:
    return dict(zip(REST, rest_of_face(points).tolist()))


def test_moving_turning_and_growing_change_the_pose_alone() -> None:
    points, angle = still(), 0.3
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    before, after = read(points), read(1.2 * points @ turn.T + 0.1)
    for name in REST:
        if name in ("x", "y", "size", "roll"):
            continue
        assert abs(before[name] - after[name]) < 1e-9, name
    assert abs(after["roll"] - before["roll"] - angle) < 1e-9
    assert abs(after["size"] - before["size"] - math.log(1.2)) < 1e-9


def test_eyes_and_brows_tell_what_was_done_to_them() -> None:
    points = still()
    assert abs(read(points)["blink_right"] - 0.2) < 1e-9
    points[[face.RIGHT_IRIS[0], face.LEFT_IRIS[0]]] += torch.tensor([0.025, 0.01], dtype=torch.float64)
    looked = read(points)
    assert abs(looked["gaze_x"] - 0.5) < 1e-9
    assert abs(looked["gaze_y"] - 0.2) < 1e-9
    np.testing.assert_allclose([looked["gaze_x"], looked["gaze_y"]], face.gaze(points.numpy()), atol=1e-9)
    raised = points.clone()
    raised[list(face.RIGHT_BROW)] -= torch.tensor([0.0, 0.05], dtype=torch.float64)
    assert read(raised)["brow_right"] > looked["brow_right"]
    assert abs(read(raised)["brow_left"] - looked["brow_left"]) < 1e-9


def test_the_mouth_comes_last_and_moves_nothing_else() -> None:
    points = still()
    opened = points.clone()
    opened[[face.LIP_TOP, face.LIP_BOTTOM]] += torch.tensor([[0.0, -0.05], [0.0, 0.05]]).double()
    before, after = geometry(points), geometry(opened)
    assert torch.equal(before[:-1], after[:-1])
    assert after[-1] > before[-1]
    assert geometry(points.expand(2, 3, -1, -1)).shape == (2, 3, 13)


def test_groups_are_of_the_twelve() -> None:
    assert sorted(i for group in GROUPS.values() for i in columns(group)) == list(range(12))
    assert [REST[i] for i in columns(IRIS)] == list(IRIS)
