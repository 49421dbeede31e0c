"""From the lips a source has to the lips it should have: a displacement field, and the mouth's dark inside.

The networks of eqs. (12) and (13) move a mouth only as far as training has taken them, and what G_R changes in
z_wr is lost where the decoders copy a warped source. Lips are known as points, so the way between two of them
need not be learnt.  # not in the paper: all of this module
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from systems.common.landmarks import mouth_opening

REACH = 0.07  # head sizes: how far a lip point carries the skin along, a Gaussian's deviation
FAR = 1e-4  # weight below which skin follows no lip
CORNERS = (20, 30)  # of the 40 lip points, the inner ring's
INNER_TOP = (*range(30, 40), 20)
INNER_BOTTOM = tuple(range(20, 31))


def lip_displacement(flow: Tensor, source: Tensor, target: Tensor, size: Tensor, side: int) -> Tensor:
    """What is to be added to ``flow`` for the lips to land where they should, [B, 2, side, side] in half sides.

    ``flow`` [B, 2, f, f]; ``source``, ``target`` [B, 40, 2]: lips in 0..1 of the picture; ``size`` [B]: of the
    head, likewise. The flow's own error at each lip point is spread by a Gaussian, so that a mouth which the
    motion code has moved already is not moved twice.
    """
    here = F.grid_sample(flow, (2 * target - 1)[:, None], padding_mode="border", align_corners=False)[:, :, 0]
    miss = 2 * (source - target) - here.transpose(1, 2)
    x, y = (_bells(target[..., axis], REACH * size, side) for axis in (0, 1))
    weight = torch.einsum("bph,bpw->bhw", y, x)[:, None]
    spread = torch.einsum("bpc,bph,bpw->bchw", miss, y, x)
    return spread / (weight + FAR)


@dataclass
class Mouth:
    """The inside of a mouth that opens further than the source's, of which no picture was ever seen."""

    lips: Tensor  # [B, 40, 2] in 0..1 of the picture
    opened: Tensor  # [B] in 0..1: share of the opening that the source does not show
    colour: Tensor  # [3] in [-1, 1]

    def paint(self, image: Tensor) -> Tensor:
        """Darken ``image`` [B, 3, S, S] between the inner lips."""
        mask = self.opened[:, None, None, None] * _inside(self.lips, image.shape[-1])
        return image + mask * (self.colour[:, None, None] - image)


def opened_share(source: Tensor, target: Tensor) -> Tensor:
    """Share [B] of the opening of ``target`` [B, 40, 2] that ``source`` does not have; lips in one unit."""
    wide, was = mouth_opening(target), mouth_opening(source)
    return ((wide - was) / wide.clamp_min(1e-4)).clamp(0, 1)


def _inside(lips: Tensor, side: int) -> Tensor:
    """Soft mask [B, 1, side, side] between the inner lips; crops stand upright, so columns will do."""
    centre = (torch.arange(side, device=lips.device, dtype=lips.dtype) + 0.5) / side
    width = (lips[:, CORNERS, 0].amax(1) - lips[:, CORNERS, 0].amin(1)).clamp_min(1e-3)
    top, bottom = (_height(lips[:, points], centre, width) for points in (INNER_TOP, INNER_BOTTOM))
    soft = 0.5 / side
    y = centre[None, :, None]
    between = torch.sigmoid((y - top[:, None]) / soft) * torch.sigmoid((bottom[:, None] - y) / soft)
    left, right = lips[:, CORNERS, 0].amin(1), lips[:, CORNERS, 0].amax(1)
    edge = torch.sigmoid((centre - left[:, None]) / soft) * torch.sigmoid((right[:, None] - centre) / soft)
    return (between * edge[:, None])[:, None]


def _height(points: Tensor, centre: Tensor, width: Tensor) -> Tensor:
    """Height of a lip's edge [B, side] over columns ``centre``, from its ``points`` [B, n, 2]."""
    near = -(((centre[None, :, None] - points[:, None, :, 0]) / (0.06 * width[:, None, None])) ** 2) / 2
    return (near.softmax(2) * points[:, None, :, 1]).sum(2)


def _bells(place: Tensor, reach: Tensor, side: int) -> Tensor:
    """Gaussians [B, p, side] about ``place`` [B, p] in 0..1, of deviation ``reach`` [B]."""
    centre = (torch.arange(side, device=place.device, dtype=place.dtype) + 0.5) / side
    return torch.exp(-(((centre - place[..., None]) / reach[:, None, None]) ** 2) / 2)
