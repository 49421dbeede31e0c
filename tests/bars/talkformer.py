"""What each stage of TalkFormer must be better than: the bars of its ``tiny``, computed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from bars.claims import Claim, Claims, Subject
from torch import Tensor

from contracts.face import JAW_17, LIPS
from systems.base import Batch
from training.metrics.image import psnr

FEWER = 4  # pixels' side to one place of the latent
WINDOWS = 6  # of every clip, in which mouths are heard: one second of one says little


def autoencoder(s: Subject) -> Iterator[Claim]:
    """Faces come out of the latent better than out of as many pixels."""
    for split in s.readers:
        yield s.claim(split, "psnr", "4x bicubic", "higher", "psnr", s.each(split, _bicubic), on="new")


def talkformer(s: Subject) -> Iterator[Claim]:
    """The sound opens the mouth; points are nearer than the references'; pictures nearer than a reference's."""
    for split in s.readers:
        heard, later = (s.each(split, lambda batch, i=i: s.stage.openings(s.model, batch)[i], WINDOWS) for i in (0, 1))
        yield s.claim(split, "opening_correlation", "shuffled speech", "higher", heard, later, on="new")
        mean = s.each(split, _references_mean)
        yield s.claim(split, "landmarks", "references' mean", "lower", "landmarks", mean, on="known")
        yield s.claim(split, "landmarks", "that led by the pose", "lower", "landmarks", "landmarks_led")
        copy, ceiling = "reference through autoencoder", "itself through autoencoder"
        yield s.claim(split, "lower_l1", copy, "lower", "lower_l1", "lower_l1_copy", on="known")
        yield s.claim(split, "lower_l1", ceiling, "lower", "lower_l1", "lower_l1_ceiling")
        yield s.claim(split, "lower_psnr", copy, "higher", "lower_psnr", "lower_psnr_copy")


def _bicubic(batch: Batch) -> Tensor:
    image = batch["frames"][:, 0]
    side = image.shape[-1]
    few = F.interpolate(image, size=(side // FEWER,) * 2, mode="bicubic", antialias=True)
    again = F.interpolate(few, size=(side, side), mode="bicubic").clamp(-1, 1)
    return psnr(again, image)


def _references_mean(batch: Batch) -> Tensor:
    """Mean distance of lips plus that of jaws from the mean of the references, over the whole windows [B]."""
    shape, true = batch["reference_landmarks"].mean(1, keepdim=True), batch["landmarks"]
    away = (true - shape).abs()
    return sum((away[:, :, list(points)].mean((1, 2, 3)) for points in (LIPS, JAW_17)), torch.zeros(()))


CLAIMS: Mapping[str, Claims] = {"autoencoder": autoencoder, "talkformer": talkformer}
