"""Lips without the head's pose, and where they are in a picture.

Landmarks are mediapipe's 478 points, x and y in 0..1 of the picture. The *head frame* is found from eyes
and nose alone, never from lips or jaw, so that it says nothing about the mouth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.face import LEFT_EYE, LIP_BOTTOM, LIP_TOP, LIPS, NOSE, RIGHT_EYE

HEAD_FRAME = 4  # x, y, log size, angle
_TOP, _BOTTOM = list(LIPS).index(LIP_TOP), list(LIPS).index(LIP_BOTTOM)


def head_frame(landmarks: Tensor) -> Tensor:
    """Position, size and in-plane rotation of the head: [..., 478, 2] -> [..., 4] = x, y, log size, angle.

    x, y is midway between the eyes' middle and the nose; size is the hypotenuse of the eyes' distance and
    the way from the eyes to the nose, so that a turned head, whose eyes draw together, hardly shrinks.
    """
    right, left = _middle(landmarks, RIGHT_EYE), _middle(landmarks, LEFT_EYE)
    nose, eyes, across = _middle(landmarks, NOSE), (right + left) / 2, left - right
    size = torch.sqrt((across**2).sum(-1) + ((nose - eyes) ** 2).sum(-1)).clamp_min(1e-4)
    angle = torch.atan2(across[..., 1], across[..., 0])
    return torch.cat([(eyes + nose) / 2, size.log()[..., None], angle[..., None]], -1)


def pose_free_lips(landmarks: Tensor) -> Tensor:
    """The 40 lip points in the head frame: [..., 478, 2] -> [..., 40, 2] in head sizes, x along the eyes.

    Moving, turning (in the plane) or scaling the face changes nothing. A head turned sideways still
    narrows the lips: two coordinates cannot tell that from a narrow mouth.
    """
    frame = head_frame(landmarks)
    centred = landmarks[..., list(LIPS), :] - frame[..., None, :2]
    return _rotate(centred, -frame[..., 3]) / frame[..., 2].exp()[..., None, None]


def place_lips(lips: Tensor, frame: Tensor) -> Tensor:
    """Put pose-free lips [..., 40, 2] into the picture of a head frame [..., 4]: the inverse of the above."""
    return _rotate(lips * frame[..., 2].exp()[..., None, None], frame[..., 3]) + frame[..., None, :2]


def mouth_opening(lips: Tensor) -> Tensor:
    """Gap between the middles of the inner lips: pose-free lips [..., 40, 2] -> [...], in head sizes."""
    return (lips[..., _BOTTOM, :] - lips[..., _TOP, :]).norm(dim=-1)


def lip_box(landmarks: Tensor, margin: float = 0.5) -> Tensor:
    """Box round the lips, widened by ``margin`` of its size: [..., 478, 2] -> [..., 4] = x0, y0, x1, y1."""
    lips = landmarks[..., list(LIPS), :]
    low, high = lips.amin(-2), lips.amax(-2)
    # A closed mouth is flat: its box is as tall as half its width before it is widened.
    half = ((high - low) / 2).maximum((high - low)[..., :1] / 4) * (1 + margin)
    middle = (low + high) / 2
    return torch.cat([middle - half, middle + half], -1)


def lip_mask(landmarks: Tensor, side: int, margin: float = 0.5) -> Tensor:
    """1 inside :func:`lip_box`, 0 outside: [..., 478, 2] -> [..., 1, side, side], the dtype of the landmarks."""
    box = lip_box(landmarks, margin)[..., None, None, None, :]
    centre = (torch.arange(side, device=landmarks.device, dtype=landmarks.dtype) + 0.5) / side
    x, y = centre[None, :], centre[:, None]
    inside = (x >= box[..., 0]) & (x < box[..., 2]) & (y >= box[..., 1]) & (y < box[..., 3])
    return inside.to(landmarks.dtype)


def _middle(landmarks: Tensor, points: object) -> Tensor:
    return landmarks[..., list(points), :].mean(-2)  # type: ignore[call-overload]


def _rotate(points: Tensor, angle: Tensor) -> Tensor:
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    x, y = points[..., 0], points[..., 1]
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)
