"""From a source picture, a motion code and lips to z_wr and the picture: eqs. (11) to (13) in one place.

Training of the motion space, training of the codebook and the pipeline all go through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.face import LIPS
from systems.common.landmarks import place_lips
from systems.see_the_speaker.lip_motion import Mouth, lip_displacement, opened_share
from systems.see_the_speaker.warp import resize, warp


@dataclass
class Source:
    """A source picture as the networks see it; see :func:`read_source`."""

    image: Tensor  # [B, 3, S, S] in [-1, 1]
    maps: list[Tensor]  # of the image encoder, finest first, the latent map last
    z_id: Tensor  # [B, d_id]
    z_m: Tensor  # [B, d_m], of the source's own motion

    def repeat(self, times: int) -> Source:
        """One source [1, …] for ``times`` frames, without copies."""
        grow = lambda x: x.expand(times, *x.shape[1:])  # noqa: E731
        return Source(grow(self.image), [grow(x) for x in self.maps], grow(self.z_id), grow(self.z_m))


@dataclass
class Wrapped:
    """What the motion wrapping module hands to a decoder."""

    z_w: Tensor  # [B, C, g, g]: eq. (12)
    z_wr: Tensor  # [B, C, g, g]: eq. (13)
    skips: list[Tensor]  # the maps finer than z_w, warped, finest first
    image: Tensor  # the source image, warped, its mouth opened
    flow: Tensor  # [B, 2, f, f]: of all that is finer than z_w, in half sides
    frame: Tensor  # [B, 4]: head frame that the codes describe
    mouth: Mouth  # what a warp cannot show


def read_source(nets: Mapping[str, Any], image: Tensor) -> Source:
    """Encode source pictures [B, 3, S, S] in [-1, 1]."""
    maps = nets["image_encoder"](image)
    z_id = nets["identity_encoder"](maps[-1])  # eq. (11), §III-B1
    return Source(image, maps, z_id, nets["motion_encoder"](maps[-1]))


def read_motion(nets: Mapping[str, Any], image: Tensor) -> Tensor:
    """Motion codes z_m [B, d_m] of target pictures [B, 3, S, S] in [-1, 1]."""
    return nets["motion_encoder"](nets["image_encoder"](image)[-1])  # eq. (11), §III-B1


def wrap(nets: Mapping[str, Any], source: Source, z_m: Tensor, lips: Tensor, refine: Tensor | None = None) -> Wrapped:
    """Move the source by ``z_m`` [B, d_m] and shape its mouth to pose-free ``lips`` [B, 40, 2].

    ``refine`` [B]: 1 where the lip refiner acts, 0 where z_wr stays z_w; None: everywhere.
    """
    motion = nets["motion_wrapper"].displacement(z_m, source.z_m)
    flow, logit = nets["motion_wrapper"](source.z_id, motion)
    o = torch.sigmoid(logit)  # 1: not occluded
    latent = source.maps[-1]
    z_w = resize(o, latent.shape[-1]) * warp(latent, flow)  # eq. (12), §III-B1
    frame = nets["lip_guider"].place(source.z_id, motion)
    # The lips are drawn where the codes say; drawing them must not pull the codes about.
    z_l = nets["lip_guider"](lips, frame.detach())
    z_wr, lip_flow = nets["lip_refiner"](z_w, z_l)  # eq. (13), §III-B1
    if refine is not None:
        z_wr = z_w + refine[:, None, None, None] * (z_wr - z_w)
        lip_flow = refine[:, None, None, None] * lip_flow
    side = 2 * lip_flow.shape[-1]
    region = resize(z_l[2], side)
    flow = resize(flow, side) + resize(lip_flow, side)
    guider = nets["lip_guider"]
    before = place_source(nets, source)
    own, _ = guider.read(source.image, before)
    placed = place_lips(lips, frame.detach())
    # not in the paper: the lips are led to where z_l has them, because G_R alone hardly moves them
    led = region * lip_displacement(flow, place_lips(own, before), placed, frame[:, 2].detach().exp(), side)
    opened = opened_share(own, lips)
    if refine is not None:
        led, opened = refine[:, None, None, None] * led, refine * opened
    flow = flow + led
    mouth = Mouth(placed, opened, nets["lip_refiner"].inside)
    skips = [resize(o, x.shape[-1]) * warp(x, flow) for x in source.maps[:-1]]
    return Wrapped(z_w, z_wr, skips, mouth.paint(warp(source.image, flow)), flow, frame, mouth)


def place_source(nets: Mapping[str, Any], source: Source) -> Tensor:
    """Head frame [B, 4] of the source itself, as its codes tell; no gradient goes through it."""
    still = nets["motion_wrapper"].displacement(source.z_m, source.z_m)
    frame: Tensor = nets["lip_guider"].place(source.z_id, still)
    return frame.detach()


def adapt_lips(nets: Mapping[str, Any], source: Source, heard: Tensor) -> Tensor:
    """Lips [B, 40, 2] as speech tells them, on everybody's mean mouth, given to the source's own mouth.

    # not in the paper: a voice does not tell a mouth's shape, and with another's the mouth itself would change
    """
    guider = nets["lip_guider"]
    _, rest = guider.read(source.image, place_source(nets, source))
    return heard - guider.mean_lips + rest


def lips_error(nets: Mapping[str, Any], source: Source, own: Tensor) -> Tensor:
    """How far the guider misses the source's ``own`` pose-free lips [B, 40, 2], in deviations, per item [B]."""
    guider = nets["lip_guider"]
    read, _ = guider.read(source.image, place_source(nets, source))
    return ((read - own).abs() / guider.deviation_lips).mean((1, 2))


def flow_error(flow: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """How far the flow [B, 2, f, f] misses the landmarks, and the lips once more, in half sides, per item [B].

    ``source``, ``target`` [B, 478, 2] in 0..1: at the target's landmarks the flow should lead to the source's.
    """
    there = F.grid_sample(flow, (2 * target - 1)[:, None], padding_mode="border", align_corners=False)[:, :, 0]
    miss = (there.transpose(1, 2) - 2 * (source - target)).abs().mean(2)
    return miss.mean(1) + miss[:, list(LIPS)].mean(1)


def decode(nets: Mapping[str, Any], wrapped: Wrapped) -> Tensor:
    """Pictures Î_t [B, 3, S, S] at the motion space's own resolution, about -1..1."""
    return nets["image_decoder"](wrapped.z_wr, wrapped.skips, wrapped.image)
