"""What G4G's stages must be better than: chance for the expert, the references' mean for the dubbed mouth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from bars.claims import Claim, Claims, Subject
from torch import Tensor

from systems.base import Batch
from systems.g4g.regions import core, face_of
from systems.g4g.sync_expert import SHIFTS

CHANCE = 3 / (2 * SHIFTS + 1)  # of an offset within a frame of the right one


def sync_expert(s: Subject) -> Iterator[Claim]:
    """Tells sounds in and out of sync for new people; finds the offset of known ones."""
    for split in s.readers:
        yield s.claim(split, "accuracy", "chance", "higher", "accuracy", 0.5, on="new")
        yield s.claim(split, "offset_found", "chance, 3 of 13", "higher", "offset_found", CHANCE, on="known")


def g4g(s: Subject) -> Iterator[Claim]:
    """Mouths nearer to the truth than the mean of the five references, where that is not already near."""
    for split in s.readers:
        copied = s.each(split, _copied)
        median = float(np.median(copied))
        moving = [error if error > median else math.nan for error in copied]  # what is not finite is left out
        yield s.claim(split, "l1", "references' mean, clips above its median", "lower", "l1", moving, on="known")
        yield s.claim(split, "l1 of all", "references' mean", "lower", "l1", copied)
        yield s.claim(split, "in_sync", "references' mean", "higher", "in_sync", "in_sync_mean")


def _copied(batch: Batch) -> Tensor:
    real, mean = face_of(batch["frames"]), torch.stack(face_of(batch["references"]).unbind(1)).mean(0)
    where = core(real.shape[-2])[
        0
    ].bool()  # at the rim of the square the source, which is the truth here, shows through
    return (mean[:, None] - real).abs()[..., where].mean((1, 2, 3))


CLAIMS: Mapping[str, Claims] = {"sync_expert": sync_expert, "g4g": g4g}
