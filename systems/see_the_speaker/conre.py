"""ConRe: contrastive and reconstructive pre-training of E_s, E_f and D_f (§III-A3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contracts.errors import Misuse
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.losses import Contrast, detached_features, feature_distance
from systems.common.sheet import contact_sheet
from systems.see_the_speaker.face_autoencoder import DEPTHS, WIDTHS, FaceDecoder, FaceEncoder, Latent
from systems.see_the_speaker.speech_encoder import SpeechEncoder


class ConreSettings(StageSettings):
    """Defaults are the paper's."""

    steps: int = 200_000  # not in the paper
    batch: int = 64  # not in the paper
    lr_face: float = 1e-4  # §IV-E: face encoder and face decoder
    lr_speech: float = 1e-3  # §IV-E: speech encoder
    size: int = 224  # faces as VGG-16 reads them
    face_widths: tuple[int, ...] = WIDTHS
    face_depths: tuple[int, ...] = DEPTHS
    hidden: int = 4096
    grid: tuple[int, int, int] = (4, 32, 32)  # d = 4096
    latent: Latent = "fc7"
    momentum: float = 0.01  # not in the paper: of the statistics that standardise z
    from_mean_face: bool = False
    speech_widths: tuple[int, ...] = (64, 64, 128, 128, 128, 256, 512, 512, 512)
    stem_stride: tuple[int, int] = (1, 1)
    bands: int = 1

    @property
    def dim(self) -> int:
        """d of z."""
        return math.prod(self.grid)


class Conre(TrainedStage):
    """Speech and face of one person to neighbouring codes, from which the face can be drawn."""

    name = "conre"
    networks: ClassVar = {"speech_encoder": SpeechEncoder, "face_encoder": FaceEncoder, "face_decoder": FaceDecoder}
    bar = Bar("reconstruction_l1", "mean_face_l1", "lower", "new")
    presets: ClassVar = {
        "paper": ConreSettings(),
        # not in the paper: what one GPU learns in half an hour
        "small": ConreSettings(
            steps=6000,
            batch=32,
            lr_face=2e-4,
            face_widths=(32, 64, 128, 256, 256),
            hidden=1024,
            grid=(4, 16, 16),
            from_mean_face=True,
            speech_widths=(32, 32, 64, 64, 64, 128, 256, 256, 256),
            stem_stride=(2, 2),
            bands=4,
        ),
        # not in the paper: what one CPU core does in half a minute
        "tiny": ConreSettings(
            steps=80,
            batch=16,
            lr_face=7e-4,
            size=64,
            face_widths=(16, 32, 48, 64, 96),
            face_depths=(1, 1, 2, 2, 2),
            hidden=256,
            grid=(4, 8, 8),
            momentum=0.1,
            from_mean_face=True,
            speech_widths=(8, 8, 16, 16, 16, 32, 48, 48, 64),
            stem_stride=(4, 4),
            bands=8,
        ),
    }
    settings: ConreSettings

    @property
    def view(self) -> View:
        """One random frame, and the speech of its clip."""
        return View(fields=("frames", "spectrogram", "speaker"), size=self.settings.size)

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """LPIPS's network comes from our own training."""
        return ("LPIPS -> conre.face_encoder",)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """E_s, E_f, D_f and the contrast with its learned temperature."""
        s = self.settings
        face = {
            "size": s.size,
            "widths": s.face_widths,
            "depths": s.face_depths,
            "hidden": s.hidden,
            "grid": s.grid,
            "latent": s.latent,
        }
        return nn.ModuleDict(
            {
                "speech_encoder": SpeechEncoder(
                    dim=s.dim, widths=s.speech_widths, stem_stride=s.stem_stride, bands=s.bands
                ),
                "face_encoder": FaceEncoder(**face, momentum=s.momentum),
                "face_decoder": FaceDecoder(**face, from_mean_face=s.from_mean_face),
                "contrast": Contrast(),
            }
        )

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """The mean training face: the baseline of ``reconstruction_l1``."""
        mean_face = model["face_decoder"].mean_face
        total, count = torch.zeros_like(mean_face), 0
        for batch in batches:
            total += batch["frames"][:, 0].to(total).sum(0)
            count += len(batch["frames"])
        mean_face.copy_(total / max(count, 1))

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam # not in the paper for this stage, which names it for the others; rates of §IV-E."""
        faces = [*model["face_encoder"].parameters(), *model["face_decoder"].parameters()]
        speech = [*model["speech_encoder"].parameters(), *model["contrast"].parameters()]
        groups = [{"params": faces, "lr": self.settings.lr_face}, {"params": speech, "lr": self.settings.lr_speech}]
        return {"main": Adam(groups)}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """L_CR. Raises ``Misuse`` for a single item, which has nothing to be told apart from."""
        if len(batch["key"]) < 2:
            raise Misuse("conre learns by comparing clips and got a batch of one: give it more clips or a larger batch")
        face, face_encoder = batch["frames"][:, 0], model["face_encoder"]
        z_s, z_f = model["speech_encoder"](batch["spectrogram"]), face_encoder(face)
        contrastive = model["contrast"](z_s, face_encoder.standardise(z_f))  # L_c: §III-A3
        drawn = model["face_decoder"](z_f)
        l1 = F.l1_loss(drawn, face)
        with torch.no_grad():
            wanted = face_encoder.features(face)
        lpips = feature_distance(detached_features(face_encoder, drawn), wanted).mean()
        reconstruction = l1 + lpips  # L_r: MAE and LPIPS, §III-A3
        total = contrastive + reconstruction  # eq. (10), §III-A3
        terms = {"contrastive": contrastive, "l1": l1, "lpips": lpips}
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """How well D_f draws, and whether the speech finds its speaker's face among the batch's."""
        face, face_encoder = batch["frames"][:, 0], model["face_encoder"]
        z_s, z_f = model["speech_encoder"](batch["spectrogram"]), face_encoder(face)
        likeness = F.normalize(z_s, dim=1) @ F.normalize(face_encoder.standardise(z_f), dim=1).T
        same = batch["speaker"][:, None] == batch["speaker"][None]
        drawn, mean_face = model["face_decoder"](z_f), model["face_decoder"].mean_face
        return {
            "reconstruction_l1": (drawn - face).abs().mean((1, 2, 3)),
            "mean_face_l1": (mean_face - face).abs().mean((1, 2, 3)),
            "lpips": feature_distance(face_encoder.features(drawn), face_encoder.features(face)),
            "recall_at_1": same.gather(1, likeness.argmax(1, keepdim=True))[:, 0].float(),
            "recall_at_1_by_chance": same.float().mean(1),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Above the faces, below what D_f makes of their codes; the last pair is the mean face twice."""
        face = batch["frames"][:8, 0]
        mean_face = model["face_decoder"].mean_face[None]
        drawn = model["face_decoder"](model["face_encoder"](face))
        return contact_sheet([torch.cat([face, mean_face]), torch.cat([drawn, mean_face])])
