"""Stage ``disentangle``: a lip space that speech leads, and a non-lip space without it (§3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from systems.av_prior.audio_encoder import AudioEncoder
from systems.av_prior.disguise import disguise
from systems.av_prior.face_generator import FaceGenerator
from systems.av_prior.readers import GEOMETRY, LinearTelling
from systems.av_prior.reconstruction import STAND_INS, reconstruction_losses, two_sides
from systems.av_prior.spaces import MemoryBanks, Projection, contrastive_loss, orthogonal_loss, pearson
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.adversarial import Discriminator, discriminator_loss
from systems.common.frozen import Frozen
from systems.common.geometry import EYES, GROUPS, POSE, REST, columns, geometry
from systems.common.sheet import contact_sheet

KEPT = 0.8  # share of E_v's R² that f_nl is to keep of pose, blink and gaze


class DisentangleSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 224  # of the frames: face_representation's
    moments: int = 32  # N
    context: int = 2  # PC-AVS: 0.2 s of speech
    audio_channels: tuple[int, ...] = (32, 64, 128, 256)  # ResNetSE-34
    audio_depths: tuple[int, ...] = (3, 4, 6, 3)
    dim_a: int = 512
    hidden: int = 512
    dim_nl: int = 128
    dim_l: int = 128
    tau: float = 0.07  # the paper prints no temperature, which is 1
    memory: int = 15  # K - 1 steps; 0: w/o memory banks, Table 4
    about_video: bool = False
    painted: int = 2  # moments of each video that G paints
    critic_channels: tuple[int, ...] = (64, 128, 256, 512)
    rate: float = 5e-4  # PC-AVS
    rate_critic: float = 2e-3  # PC-AVS
    beta: float = 0.5  # PC-AVS
    weight_ol: float = 1.0  # eq. (5); 0: w/o L_ol, Table 4
    weight_gaze: float = 1.0  # eq. (5)
    weight_l1: float = 1.0  # eq. (5), PC-AVS
    weight_vgg: float = 10.0  # eq. (5), PC-AVS
    weight_gan: float = 1.0  # eq. (5), PC-AVS
    weight_rest: float = 0.0


class Disentangle(TrainedStage):
    """E_a, the MLPs and G over the frozen E_id and E_v: eqs. (2) to (5)."""

    name = "disentangle"
    needs = ("face_representation",)
    phases = ("generator", "discriminator")
    presets: ClassVar[Mapping[str, DisentangleSettings]] = {
        "paper": DisentangleSettings(steps=200_000, batch=8),
        "small": DisentangleSettings(
            steps=4000,
            batch=8,
            size=256,
            moments=24,
            context=3,
            audio_channels=(16, 32, 64),
            audio_depths=(2, 2, 2),
            dim_a=128,
            hidden=256,
            dim_nl=64,
            dim_l=32,
            about_video=True,
            critic_channels=(32, 64, 128, 128),
            beta=0.9,
            weight_ol=2.0,
            weight_vgg=0.1,
            weight_gan=0.01,
            weight_rest=0.5,
            validate_every=500,
        ),
        "tiny": DisentangleSettings(
            steps=150,
            batch=4,
            size=64,
            moments=16,
            context=3,
            audio_channels=(12, 24, 32),
            audio_depths=(1, 1, 1),
            dim_a=32,
            hidden=96,
            dim_nl=24,
            dim_l=12,
            about_video=True,
            critic_channels=(12, 24, 48),
            rate=1e-3,
            beta=0.9,
            weight_ol=2.0,
            weight_gaze=0.05,
            weight_vgg=0.02,
            weight_gan=0.005,
            weight_rest=0.5,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {
        "audio_encoder": AudioEncoder,
        "mlp_cl": Projection,
        "mlp_ol": Projection,
        "mlp_nl": Projection,
        "mlp_a2l": Projection,
        "generator": FaceGenerator,
        "telling_v": LinearTelling,
        "telling_nl": LinearTelling,
    }
    bar = Bar(measure="correlation_ol", baseline="correlation_v", better="lower", speakers="new")
    settings: DisentangleSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Loss networks that are not the paper's."""
        s = self.settings
        gaze = ("L2CS-Net -> iris geometry of mediapipe, read by av_prior.iris_reader",) if s.weight_gaze else ()
        return gaze + (STAND_INS if s.weight_vgg else ())

    @property
    def view(self) -> View:
        """N moments of one video, each with the speech about it."""
        s = self.settings
        return View(("frames", "landmarks", "audio"), frames=s.moments, size=s.size, context=s.context)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """E_a, the MLPs, G going on from its parent, D, memory banks, and what tells how much is told."""
        s, face = self.settings, parents["face_representation"]
        before = face["generator"].config
        d_v = face["motion_encoder"].config.dim
        generator = FaceGenerator(
            (before.parts[0], s.dim_nl, s.dim_l), before.size, before.style, before.channels, before.from_mean_face
        )
        generator.take_over(face["generator"])
        return nn.ModuleDict(
            {
                "audio_encoder": AudioEncoder(s.dim_a, s.context, s.audio_channels, s.audio_depths),
                "mlp_cl": Projection(d_v, s.hidden, s.dim_a),
                "mlp_ol": Projection(d_v, s.hidden, d_v, residual=True),
                "mlp_nl": Projection(d_v, s.hidden, s.dim_nl),
                "mlp_a2l": Projection(s.dim_a, s.hidden, s.dim_l),
                "generator": generator,
                "telling_v": LinearTelling(d_v),
                "telling_nl": LinearTelling(s.dim_nl),
                "discriminator": Discriminator(s.critic_channels),
                "banks": MemoryBanks(s.memory * s.batch * s.moments, d_v, s.dim_a),
                "face": Frozen(face),
            }
        )

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Mean and deviation of the mel bands."""
        model["audio_encoder"].measure(batch["audio"] for batch in batches)

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam for either side, with PC-AVS's rates."""
        s = self.settings
        return two_sides(model, self.networks, rate=s.rate, rate_critic=s.rate_critic, beta=s.beta)

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """L_cl and L_G (eqs. (2), (5)); D's loss. Memory banks and tellings take in the batch."""
        s = self.settings
        shown = disguise(batch["frames"][:, : s.painted].flatten(0, 1), rng)
        if phase == "discriminator":
            with torch.no_grad():
                f_a = model["audio_encoder"](batch["audio"][:, : s.painted])
                image, made = self._paint(model, batch, shown, f_a)
            return discriminator_loss(model["discriminator"], image, made)
        f_v, f_a = self._look(model, batch["frames"]), model["audio_encoder"](batch["audio"])
        f_ol = model["mlp_ol"](f_v)
        # not in the paper: E_a learns from L_cl alone; the losses below would have it tell more than lips
        heard = f_a.detach()
        image, made = self._paint(model, batch, shown, heard[:, : s.painted])
        terms = reconstruction_losses(
            image,
            made,
            model["face"]["identity_encoder"],
            model["discriminator"],
            weight_vgg=s.weight_vgg,
            weight_gan=s.weight_gan,
        )
        weights = {"l1": s.weight_l1, "vgg": s.weight_vgg, "gan": s.weight_gan}
        terms["cl"], weights["cl"] = contrastive_loss(f_a, model["mlp_cl"](f_v), s.tau), 1.0  # eq. (2), §3.1
        if s.weight_gaze:
            phi = model["face"]["iris_reader"]
            terms["gaze"] = (phi(image) - phi(made)).abs().mean()  # eq. (4), §3.1
            weights["gaze"] = s.weight_gaze
        if s.weight_ol:
            pairs = [self._centred(x).flatten(0, 1) for x in (f_ol, heard)]
            terms["ol"], weights["ol"] = orthogonal_loss(*model["banks"].joined(*pairs)), s.weight_ol
            model["banks"].remember(*pairs)
        f_nl, truth = model["mlp_nl"](f_ol), self._truth(model, batch)
        model["telling_v"].follow(f_v.flatten(0, 1), truth.flatten(0, 1))
        model["telling_nl"].follow(f_nl.detach().flatten(0, 1), truth.flatten(0, 1))
        if s.weight_rest:
            # not in the paper: short training asks f_nl for pose, lids, irises and brows; pictures alone need long
            read = model["telling_nl"](f_nl)[..., : len(REST)]
            terms["rest"] = (read - truth[..., : len(REST)]).abs().mean()
            weights["rest"] = s.weight_rest
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # eq. (5), §3.1
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """How far lips and the rest are apart, per item [B], all over the N moments of its video.

        ``correlation_``: mean squared correlation with f^a. ``retrieval``: share of moments whose f^a finds their own
        f_cl^v. ``rest_error_``, ``mouth_error_``: squared error of pose, blink and gaze, and of the mouth's
        opening, read linearly, in deviations; ``rest_error_kept`` is what 0.8 of E_v's R² leaves. ``B_d`` … : what
        E_v reads of the pictures beside the true one, where the lips are those of another moment.
        """
        s, count = self.settings, batch["frames"].shape[1]
        f_v, f_a = self._look(model, batch["frames"]), model["audio_encoder"](batch["audio"])
        f_ol, f_cl = model["mlp_ol"](f_v), model["mlp_cl"](f_v)
        truth = self._truth(model, batch)
        likeness = nn.functional.normalize(f_a, dim=-1) @ nn.functional.normalize(f_cl, dim=-1).transpose(1, 2)
        own = torch.arange(count, device=likeness.device)
        told = {"v": model["telling_v"](f_v), "nl": model["telling_nl"](model["mlp_nl"](f_ol))}
        told["mean"] = model["telling_v"].mean().expand_as(truth)
        still = columns(POSE + EYES)
        errors = {name: (value - truth).square().mean(1) for name, value in told.items()}  # [B, 13]
        rest = {name: error[:, still].mean(1) for name, error in errors.items()}
        image, made = self._paint(model, batch, batch["frames"][:, : s.painted].flatten(0, 1), f_a[:, : s.painted])
        return {
            "correlation_ol": pearson(f_ol, f_a).square().mean((1, 2)),
            "correlation_v": pearson(f_v, f_a).square().mean((1, 2)),
            "retrieval": (likeness.argmax(2) == own).float().mean(1),
            "retrieval_chance": torch.full_like(rest["v"], 1 / count),
            **{f"rest_error_{name}": value for name, value in rest.items()},
            "rest_error_kept": rest["mean"] - KEPT * (rest["mean"] - rest["v"]),
            **{f"mouth_error_{name}": error[:, -1] for name, error in errors.items()},
            "l1": (image - made).abs().mean((1, 2, 3)).view(-1, s.painted).mean(1),
            **self._distances(model, batch, f_a, truth),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Rows, for one video: its moments; rebuilt; lips of their speech alone; the rest alone."""
        frames, sound = batch["frames"][0, :8], batch["audio"][:1, :8]
        f_l = model["mlp_a2l"](model["audio_encoder"](sound))[0]
        f_nl = self._f_nl(model, frames)
        f_id = model["face"]["identity_encoder"](batch["frames"][:1, -1]).expand(len(frames), -1)
        ways = ((f_nl, f_l), (f_nl[:1].expand_as(f_nl), f_l), (f_nl, f_l[:1].expand_as(f_l)))
        return contact_sheet([frames, *(model["generator"](f_id, *way) for way in ways)])

    def _distances(self, model: nn.ModuleDict, batch: Batch, f_a: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """P_d, B_d, G_d, E_d [B]: the lips come from another moment's speech, the rest has to stay."""
        s = self.settings
        shown = batch["frames"][:, : s.painted].flatten(0, 1)
        _, made = self._paint(model, batch, shown, f_a.flip(1)[:, : s.painted])
        read = model["telling_v"](model["face"]["motion_encoder"](made)).unflatten(0, (-1, s.painted))
        away = read - truth[:, : s.painted]
        return {f"{name}_d": away[..., columns(group)].norm(dim=-1).mean(1) for name, group in GROUPS.items()}

    def _paint(self, model: nn.ModuleDict, batch: Batch, shown: Tensor, f_a: Tensor) -> tuple[Tensor, Tensor]:
        """The first ``painted`` moments of each video and what G makes of ``shown`` and f_a [B, painted, d_a].

        Who it is comes from the last moment.
        """
        painted = f_a.shape[1]
        f_id = model["face"]["identity_encoder"](batch["frames"][:, -1]).repeat_interleave(painted, 0)
        f_l = model["mlp_a2l"](f_a).flatten(0, 1)
        made = model["generator"](f_id, self._f_nl(model, shown), f_l)  # f_cat, §3.1
        return batch["frames"][:, :painted].flatten(0, 1), made

    @staticmethod
    def _f_nl(model: nn.ModuleDict, images: Tensor) -> Tensor:
        return model["mlp_nl"](model["mlp_ol"](model["face"]["motion_encoder"](images)))

    @staticmethod
    @torch.no_grad()
    def _look(model: nn.ModuleDict, frames: Tensor) -> Tensor:
        return model["face"]["motion_encoder"](frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    @staticmethod
    def _truth(model: nn.ModuleDict, batch: Batch) -> Tensor:
        """Geometry [B, N, 13] in deviations."""
        reader = model["face"]["motion_reader"]
        return (geometry(batch["landmarks"]) - reader.mean[-GEOMETRY:]) / reader.deviation[-GEOMETRY:]

    def _centred(self, x: Tensor) -> Tensor:
        """Each video's own mean taken off.  # not in the paper: else a small batch correlates people, not moments"""
        return x - x.mean(1, keepdim=True) if self.settings.about_video else x
