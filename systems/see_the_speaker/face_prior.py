"""z^p: the statistical face prior, the mean code of as many women as men (§III-A2)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from contracts.errors import Misuse
from contracts.settings import canonical_digest
from systems.base import Batch, ComputedStage, StageSettings, View
from systems.common.sheet import contact_sheet

log = logging.getLogger(__name__)


def ranked(places: Sequence[int], keys: Sequence[str], seed: int) -> list[int]:
    """``places`` in the order of a hash of seed and key: the same on any machine, and new faces move few."""

    def rank(place: int) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}\n{keys[place]}".encode()).digest(), keys[place]

    return sorted(places, key=rank)


class FacePrior(ModelMixin, ConfigMixin):
    """Buffers ``z_p`` [d], the mean of E_f, and ``mean_face`` [3, S, S], the mean of the faces, for pictures.

    ``n_used`` faces were averaged, of the ``n_wanted`` asked for: ``women`` and ``men``.
    """

    @register_to_config
    def __init__(
        self, dim: int = 4096, size: int = 224, n_wanted: int = 10_000, n_used: int = 0, women: int = 0, men: int = 0
    ) -> None:
        super().__init__()
        self.register_buffer("z_p", torch.zeros(dim))
        self.register_buffer("mean_face", torch.zeros(3, size, size))


class FacePriorSettings(StageSettings):
    """Defaults are the paper's."""

    steps: int = 0
    batch: int = 64
    n: int = 10_000  # §III-A2: N
    size: int = 224  # of E_f's faces


class FacePriorStage(ComputedStage):
    """Computed in one pass over the drawn faces."""

    name = "face_prior"
    needs = ("conre",)
    networks: ClassVar = {"prior": FacePrior}
    presets: ClassVar = {
        "paper": FacePriorSettings(),
        "small": FacePriorSettings(),
        "tiny": FacePriorSettings(size=64),
    }
    settings: FacePriorSettings

    @property
    def view(self) -> View:
        """One frame of clips and of faces alone."""
        return View(fields=("frames", "gender"), size=self.settings.size, kinds=("clip", "face"))

    def draw(self, genders: Sequence[str], keys: Sequence[str]) -> list[int]:
        """Positions of n/2 women and n/2 men, or of as many pairs as there are; those whose keys rank first.

        Raises ``Misuse`` where only one gender, or none, is known: the prior would be unbalanced.
        """
        women, men = ([i for i, gender in enumerate(genders) if gender == wanted] for wanted in ("f", "m"))
        if not women or not men:
            raise Misuse(
                f"the face prior would be unbalanced: {len(women)} women and {len(men)} men among {len(keys)} samples;"
                " give the manifest a gender column with both"
            )
        half = min(self.settings.n // 2, len(women), len(men))
        if 2 * half < self.settings.n:
            log.warning("face prior: N = %d faces instead of %d, as many women as men", 2 * half, self.settings.n)
        drawn = sorted(place for group in (women, men) for place in ranked(group, keys, self.settings.seed)[:half])
        named = canonical_digest(sorted(keys[place] for place in drawn))
        log.info("face prior: %d faces drawn with seed %d, keys %s", len(drawn), self.settings.seed, named[:12])
        return drawn

    @torch.no_grad()
    def compute(self, parents: Mapping[str, nn.ModuleDict], batches: Iterable[Batch]) -> nn.ModuleDict:
        """The mean code, and D_f, which stays with ConRe's artifact, to show it.

        Raises ``Misuse`` where women and men differ in number among the batches.
        """
        encoder = parents["conre"]["face_encoder"].eval()
        if self.settings.size != encoder.config.size:
            raise Misuse(f"face_prior has size {self.settings.size}, conre {encoder.config.size}: set both alike")
        codes, faces, counts = [], [], [0, 0]
        for batch in batches:
            face = batch["frames"][:, 0]
            codes.append(encoder(face).double().sum(0))
            faces.append(face.double().sum(0))
            counts = [counts[g] + int((batch["gender"] == g).sum()) for g in (0, 1)]
        women, men = counts
        if women != men or not women:
            raise Misuse(f"the face prior would be unbalanced: {women} women and {men} men")
        n = women + men
        prior = FacePrior(
            dim=len(codes[0]),
            size=faces[0].shape[-1],
            n_wanted=self.settings.n,
            n_used=n,
            women=women,
            men=men,
        )
        prior.z_p.copy_(torch.stack(codes).sum(0) / n)  # eq. (5), §III-A2
        prior.mean_face.copy_(torch.stack(faces).sum(0) / n)
        return nn.ModuleDict({"prior": prior.to(codes[0].device), "face_decoder": parents["conre"]["face_decoder"]})

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """The mean of the faces beside what D_f makes of their mean code."""
        prior = model["prior"]
        return contact_sheet([torch.stack([prior.mean_face, model["face_decoder"](prior.z_p[None])[0]])])
