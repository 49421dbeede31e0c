"""Stage ``face_representation``: who it is (E_id), what the face does (E_v), and G between them (§3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from systems.av_prior.disguise import disguise
from systems.av_prior.face_encoder import FaceEncoder
from systems.av_prior.face_generator import FaceGenerator
from systems.av_prior.readers import IrisReader, MotionReader
from systems.av_prior.reconstruction import STAND_INS, reconstruction_losses, two_sides
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.adversarial import Discriminator, discriminator_loss
from systems.common.geometry import IRIS, columns, geometry
from systems.common.sheet import contact_sheet

TAU = 0.1  # not in the paper: of the contrast between identities


class FaceRepresentationSettings(StageSettings):
    """Sizes and weights. The paper borrows PC-AVS's; a value without a source is ours."""

    size: int = 224  # PC-AVS
    stem: int = 64  # ResNeXt-50 32x4d
    halve: bool = True
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    groups: int = 32
    pool: int = 1
    dim_id: int = 2048  # PC-AVS: 2560 in all
    dim_v: int = 512  # PC-AVS
    style: int = 512
    channels: tuple[int, ...] = (512, 512, 512, 256, 128, 64)
    from_mean_face: bool = False
    iris_widths: tuple[int, ...] = (32, 64, 128)
    critic_channels: tuple[int, ...] = (64, 128, 256, 512)  # PC-AVS: 64 in the first
    rate: float = 5e-4  # PC-AVS: 1e-3, halved for the generator
    rate_critic: float = 2e-3  # PC-AVS: 1e-3, doubled for the discriminator
    beta: float = 0.5  # PC-AVS, Adam
    weight_l1: float = 1.0  # PC-AVS
    weight_vgg: float = 10.0  # PC-AVS
    weight_gan: float = 1.0  # PC-AVS
    weight_id: float = 1.0
    weight_motion: float = 0.0


class FaceRepresentation(TrainedStage):
    """E_id, E_v, G and D: one frame of a video is rebuilt from another one and from its own motion code."""

    name = "face_representation"
    phases = ("generator", "discriminator")
    presets: ClassVar[Mapping[str, FaceRepresentationSettings]] = {
        "paper": FaceRepresentationSettings(steps=300_000, batch=16),
        "small": FaceRepresentationSettings(
            steps=6000,
            batch=16,
            size=256,
            stem=32,
            widths=(64, 128, 256, 384),
            depths=(2, 2, 2, 2),
            groups=8,
            pool=4,
            dim_id=512,
            dim_v=128,
            style=256,
            channels=(256, 256, 256, 128, 64, 32, 16),
            from_mean_face=True,
            iris_widths=(16, 32, 64),
            critic_channels=(32, 64, 128, 128),
            beta=0.9,
            weight_vgg=0.1,
            weight_gan=0.01,
            weight_motion=1.0,
            validate_every=500,
        ),
        "tiny": FaceRepresentationSettings(
            steps=150,
            batch=12,
            size=64,
            stem=16,
            halve=False,
            widths=(24, 48, 64, 96),
            depths=(1, 1, 1, 1),
            groups=4,
            pool=4,
            dim_id=48,
            dim_v=64,
            style=64,
            channels=(48, 48, 32, 16, 8),
            from_mean_face=True,
            iris_widths=(16, 24, 32),
            critic_channels=(12, 24, 48),
            rate=1e-3,
            beta=0.9,
            weight_vgg=0.02,
            weight_gan=0.005,
            weight_id=0.2,
            weight_motion=0.5,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {
        "identity_encoder": FaceEncoder,
        "motion_encoder": FaceEncoder,
        "generator": FaceGenerator,
        "motion_reader": MotionReader,
        "iris_reader": IrisReader,
    }
    bar = Bar(measure="landmark_error", baseline="landmark_error_mean", better="lower", speakers="new")
    settings: FaceRepresentationSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Loss networks that are not the paper's."""
        return STAND_INS if self.settings.weight_vgg else ()

    @property
    def view(self) -> View:
        """Two random frames of one video: who it is, and what is to be rebuilt."""
        return View(("frames", "landmarks", "speaker"), frames=2, size=self.settings.size)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """Two encoders of one kind, G, D, and the readers of f_v and of the eyes."""
        s = self.settings
        body = (s.stem, s.halve, s.widths, s.depths, s.groups, s.pool)
        return nn.ModuleDict(
            {
                "identity_encoder": FaceEncoder(s.dim_id, *body),
                "motion_encoder": FaceEncoder(s.dim_v, *body),
                "generator": FaceGenerator((s.dim_id, s.dim_v), s.size, s.style, s.channels, s.from_mean_face),
                "motion_reader": MotionReader(s.dim_v),
                "iris_reader": IrisReader(s.iris_widths),
                "discriminator": Discriminator(s.critic_channels),
            }
        )

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Mean and deviation of landmarks and geometry, and the mean face."""
        read, face, count = [], torch.zeros_like(model["generator"].mean_face), 0
        for batch in batches:
            marks = batch["landmarks"].flatten(0, 1)
            read.append(torch.cat([marks.flatten(1), geometry(marks)], 1))
            face, count = face + batch["frames"][:, 0].to(face).sum(0), count + len(batch["frames"])
        if read:
            values = torch.cat(read)
            model["motion_reader"].mean.copy_(values.mean(0))
            model["motion_reader"].deviation.copy_(values.std(0).clamp_min(1e-4))
            if self.settings.from_mean_face:
                model["generator"].mean_face.copy_(face / count)

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam for either side, with PC-AVS's rates."""
        s = self.settings
        return two_sides(model, self.networks, rate=s.rate, rate_critic=s.rate_critic, beta=s.beta)

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """Reconstruction as in eq. (5), identities apart, and what the readers learn; D's loss."""
        s, (source, target) = self.settings, batch["frames"].unbind(1)
        shown = disguise(target, rng)
        if phase == "discriminator":
            with torch.no_grad():
                made = self._make(model, source, shown)[0]
            return discriminator_loss(model["discriminator"], target, made)
        made, f_id, f_v = self._make(model, source, shown)
        terms = reconstruction_losses(
            target,
            made,
            model["identity_encoder"],
            model["discriminator"],
            weight_vgg=s.weight_vgg,
            weight_gan=s.weight_gan,
        )
        weights = {"l1": s.weight_l1, "vgg": s.weight_vgg, "gan": s.weight_gan}
        # not in the paper: PC-AVS tells identities apart by VoxCeleb's classes; pairs need no list of people
        f_other = model["identity_encoder"](target)
        terms["identity"], weights["identity"] = identity_contrast(f_id, f_other, batch["speaker"]), s.weight_id
        reader, marks = model["motion_reader"], batch["landmarks"][:, 1]
        truth = reader.standardise(marks, geometry(marks))
        # not in the paper: short training has E_v read landmarks too; else they are read from it without touching it
        read = F.smooth_l1_loss(reader(f_v if s.weight_motion else f_v.detach()), truth, reduction="none")
        points = truth.shape[1] - geometry(marks).shape[1]
        terms["motion"] = read[:, :points].mean() + read[:, points:].mean()
        weights["motion"] = s.weight_motion or 1.0
        terms["iris"] = F.smooth_l1_loss(model["iris_reader"](target), _irises(truth[:, points:]))
        weights["iris"] = 1.0
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Landmarks read from E_v, people found by E_id, and the rebuilt frame, per item [B].

        ``retrieval``: whether the nearest f_id among the other frames of the batch's clips from the same corpus is
        this speaker's; ``retrieval_chance`` is the share of such frames that are.
        """
        (source, target), marks = batch["frames"].unbind(1), batch["landmarks"][:, 1]
        made, f_id, f_v = self._make(model, source, target)
        reader = model["motion_reader"]
        mean = reader.mean[: marks[0].numel()].view(marks.shape[1:])
        truth = reader.standardise(marks, geometry(marks))
        points = marks[0].numel()
        likeness = F.normalize(f_id, dim=1) @ F.normalize(model["identity_encoder"](target), dim=1).T
        corpora = [key.split("-")[0] for key in batch["key"]]
        near = torch.tensor([[a == b for b in corpora] for a in corpora], device=likeness.device)
        same = batch["speaker"][:, None] == batch["speaker"][None]
        found = likeness.masked_fill(~near, -2).argmax(1, keepdim=True)
        irises = _irises(truth[:, points:])
        return {
            "landmark_error": (reader.landmarks(f_v) - marks).norm(dim=-1).mean(1),
            "landmark_error_mean": (mean - marks).norm(dim=-1).mean(1),
            "geometry_error": (reader(f_v) - truth)[:, points:].square().mean(1),
            "geometry_error_mean": truth[:, points:].square().mean(1),
            "iris_error": (model["iris_reader"](target) - irises).square().mean(1),
            "iris_error_mean": irises.square().mean(1),
            "retrieval": same.gather(1, found)[:, 0].float(),
            "retrieval_chance": (same & near).float().sum(1) / near.float().sum(1),
            "l1": (made - target).abs().mean((1, 2, 3)),
            "l1_mean_face": (model["generator"].mean_face - target).abs().mean((1, 2, 3)),
            "l1_copy": (source - target).abs().mean((1, 2, 3)),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Rows: who it is, what it does, the rebuilt frame, and the same motion with the next item's identity."""
        source, target = batch["frames"][:8].unbind(1)
        made, f_id, f_v = self._make(model, source, target)
        return contact_sheet([source, target, made, model["generator"](f_id.roll(1, 0), f_v)])

    @staticmethod
    def _make(model: nn.ModuleDict, source: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The picture, f_id of ``source`` and f_v of ``shown``."""
        f_id, f_v = model["identity_encoder"](source), model["motion_encoder"](shown)
        return model["generator"](f_id, f_v), f_id, f_v


def identity_contrast(ours: Tensor, others: Tensor, speaker: Tensor) -> Tensor:
    """Cross-entropy of finding row i of ``ours`` [B, d] in ``others`` [B, d] and back; a scalar.

    Other rows of the same ``speaker`` int64 [B] are neither right nor wrong.
    """
    logits = F.normalize(ours, dim=1) @ F.normalize(others, dim=1).T / TAU
    own = torch.eye(len(ours), dtype=torch.bool, device=ours.device)
    logits = logits.masked_fill((speaker[:, None] == speaker[None]) & ~own, -torch.inf)
    target = torch.arange(len(ours), device=ours.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _irises(standardised: Tensor) -> Tensor:
    return standardised[:, columns(IRIS)]
