"""What a face does, as a dozen numbers read from its landmarks: mediapipe's geometry where a paper asks a 3DMM.

All are taken from the 478 points in two coordinates. Position, size and turns are those in the crop; brows,
lids and irises are taken in the head frame of :mod:`systems.common.landmarks`, so that they do not follow
the head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contracts import face
from systems.common.landmarks import head_frame, mouth_opening, pose_free_lips

POSE = ("x", "y", "size", "roll", "yaw", "pitch")
EYES = ("blink_right", "blink_left", "gaze_x", "gaze_y")
BROWS = ("brow_right", "brow_left")
REST = POSE + EYES + BROWS  # everything but the mouth
IRIS = ("gaze_x", "gaze_y", "blink_right", "blink_left")  # what stands in for a gaze network
GROUPS = {"P": POSE, "B": EYES[:2], "G": EYES[2:], "E": BROWS}  # the papers' P_d, B_d, G_d, E_d


def rest_of_face(landmarks: Tensor) -> Tensor:
    """The twelve numbers of ``REST``: [..., 478, 2] -> [..., 12].

    x, y and size (its logarithm) as in ``head_frame``; roll in radians; yaw and pitch: how far the tip of the
    nose is from the middle between the eyes, across and down, in head sizes; blink: gap of the lids over the
    eye's width; gaze: of the irises between the corners of the eyes, 0 the middle, 1 a corner (across, down);
    brows: their height over the eyes in head sizes.
    """
    frame = head_frame(landmarks)
    across = torch.stack([frame[..., 3].cos(), frame[..., 3].sin()], -1)
    down = torch.stack([-across[..., 1], across[..., 0]], -1)
    size = frame[..., 2].exp()
    right = _Eye(landmarks, face.RIGHT_EYE_OUTER, face.RIGHT_EYE_INNER)
    left = _Eye(landmarks, face.LEFT_EYE_INNER, face.LEFT_EYE_OUTER)
    nose = landmarks[..., face.NOSE_TIP, :] - (right.middle + left.middle) / 2
    looks = right.place(landmarks[..., face.RIGHT_IRIS[0], :]) + left.place(landmarks[..., face.LEFT_IRIS[0], :])
    values = [
        *frame.unbind(-1),
        (nose * across).sum(-1) / size,
        (nose * down).sum(-1) / size,
        right.gap(landmarks, face.RIGHT_LID_TOP, face.RIGHT_LID_BOTTOM),
        left.gap(landmarks, face.LEFT_LID_TOP, face.LEFT_LID_BOTTOM),
        *(looks / 2).unbind(-1),
        ((right.middle - _mean(landmarks, face.RIGHT_BROW)) * down).sum(-1) / size,
        ((left.middle - _mean(landmarks, face.LEFT_BROW)) * down).sum(-1) / size,
    ]
    return torch.stack(values, -1)


def geometry(landmarks: Tensor) -> Tensor:
    """``rest_of_face`` and, last, the mouth's opening in head sizes: [..., 478, 2] -> [..., 13]."""
    return torch.cat([rest_of_face(landmarks), mouth_opening(pose_free_lips(landmarks))[..., None]], -1)


def columns(names: tuple[str, ...]) -> list[int]:
    """Places of numbers in ``REST``."""
    return [REST.index(name) for name in names]


class _Eye:
    """An eye by its corners, the one on the picture's left first."""

    def __init__(self, landmarks: Tensor, first: int, last: int) -> None:
        start, end = landmarks[..., first, :], landmarks[..., last, :]
        self.middle, self.half = (start + end) / 2, (end - start) / 2
        self.width = 2 * self.half.norm(dim=-1).clamp_min(1e-4)

    def gap(self, landmarks: Tensor, top: int, bottom: int) -> Tensor:
        """Between the lids, over the eye's width."""
        return (landmarks[..., top, :] - landmarks[..., bottom, :]).norm(dim=-1) / self.width

    def place(self, iris: Tensor) -> Tensor:
        """Of an iris [..., 2]: across and down, in half widths from the middle."""
        away, half = iris - self.middle, self.width / 2
        across = self.half / half[..., None]
        down = torch.stack([-across[..., 1], across[..., 0]], -1)
        return torch.stack([(away * across).sum(-1), (away * down).sum(-1)], -1) / half[..., None]


def _mean(landmarks: Tensor, points: tuple[int, ...]) -> Tensor:
    return landmarks[..., list(points), :].mean(-2)
