"""The 131 landmarks, what of them is given and what is completed, and the similarity between two faces.

The paper prints 41 lip and 16 jaw points; IP_LAP, which it follows, has 40 and 17, which also make 131. Not in the
paper: IP_LAP's sets are taken (``contracts.face``), because the paper lists none.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from contracts.face import JAW_17, LIPS, POINTS_131, POSE_74

N, N_LIP, N_JAW, N_POSE = len(POINTS_131), len(LIPS), len(JAW_17), len(POSE_74)  # n, n_l, n_j of §IV-A5
_PARTS = (*LIPS, *JAW_17, *POSE_74)
_FULL_FROM_PARTS = [_PARTS.index(point) for point in POINTS_131]


class FacePoints(NamedTuple):
    """A face's points [..., count, 2] in 0..1 of the crop: C_lip, C_jaw, the pose, and all 131 in their order."""

    lip: Tensor
    jaw: Tensor
    pose: Tensor
    full: Tensor


def split_points(landmarks: Tensor) -> FacePoints:
    """The sets out of mediapipe's 478 points [..., 478, 2]."""
    return FacePoints(*(landmarks[..., list(points), :] for points in (LIPS, JAW_17, POSE_74, POINTS_131)))


def parts_of(full: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lip, jaw and pose points out of the 131 [..., 131, 2]."""
    lip, jaw, pose = (full[..., [POINTS_131.index(p) for p in points], :] for points in (LIPS, JAW_17, POSE_74))
    return lip, jaw, pose


def join_points(lip: Tensor, jaw: Tensor, pose: Tensor) -> Tensor:
    """The full face [..., 131, 2] of completed lip and jaw and the given pose (§III-B)."""
    return torch.cat([lip, jaw, pose], -2)[..., _FULL_FROM_PARTS, :]


def follow(moved: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Points ``moved`` [..., n, 2] under the similarity that brings ``start`` nearest to ``end``, both [..., m, 2].

    Least squares over turn, size and shift; leading axes broadcast.
    """
    middle, there = start.mean(-2, keepdim=True), end.mean(-2, keepdim=True)
    a, b = start - middle, end - there
    size = a.square().sum((-2, -1)).clamp_min(1e-8)
    cos = (a * b).sum((-2, -1)) / size
    sin = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(-1) / size
    x, y = (moved - middle).unbind(-1)
    cos, sin = cos[..., None], sin[..., None]
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1) + there
