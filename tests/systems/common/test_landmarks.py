import math

import pytest
import torch
from toy_batch import place_landmarks

from contracts import face
from systems.common.landmarks import head_frame, lip_box, lip_mask, mouth_opening, place_lips, pose_free_lips


@pytest.fixture
def landmarks() -> torch.Tensor:
    return torch.stack([torch.from_numpy(place_landmarks(mouth, 0.0, 0)).float() for mouth in (0.0, 0.5, 1.0)])


def test_moving_turning_and_scaling_the_head_leave_the_lips_alone(landmarks: torch.Tensor) -> None:
    angle = 0.4
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = 1.7 * landmarks @ turn.T + torch.tensor([0.3, -0.2])
    torch.testing.assert_close(pose_free_lips(moved), pose_free_lips(landmarks), atol=1e-5, rtol=1e-5)
    before, after = head_frame(landmarks), head_frame(moved)
    torch.testing.assert_close(after[:, 3] - before[:, 3], torch.full((3,), angle))
    torch.testing.assert_close((after[:, 2] - before[:, 2]).exp(), torch.full((3,), 1.7))


def test_lips_and_jaw_do_not_move_the_head_frame(landmarks: torch.Tensor) -> None:
    lowered = landmarks.clone()
    below = [*face.LIPS, *face.LOWER_OVAL]
    lowered[:, below, 1] += 0.1
    assert torch.equal(head_frame(lowered), head_frame(landmarks))


def test_placing_is_the_inverse(landmarks: torch.Tensor) -> None:
    placed = place_lips(pose_free_lips(landmarks), head_frame(landmarks))
    torch.testing.assert_close(placed, landmarks[:, list(face.LIPS)], atol=1e-5, rtol=1e-5)


def test_opening_is_the_gap_of_the_inner_lips(landmarks: torch.Tensor) -> None:
    gap = (landmarks[:, 14] - landmarks[:, 13]).norm(dim=-1)
    torch.testing.assert_close(mouth_opening(pose_free_lips(landmarks)), gap / head_frame(landmarks)[:, 2].exp())


def test_mask_covers_the_box_and_the_box_the_lips(landmarks: torch.Tensor) -> None:
    lips = landmarks[:, list(face.LIPS)]
    box = lip_box(landmarks)
    assert (lips >= box[:, None, :2]).all()
    assert (lips <= box[:, None, 2:]).all()
    mask = lip_mask(landmarks, 64)
    assert mask.shape == (3, 1, 64, 64)
    area = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])) * 64 * 64
    torch.testing.assert_close(mask.sum((1, 2, 3)), area, rtol=0.15, atol=0)
