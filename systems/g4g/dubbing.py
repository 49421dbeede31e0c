"""Stage ``g4g``: alignment and deformation, trained on the person's own sound (§3.3, §4.3)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.frozen import Frozen
from systems.common.mel import mel_windows
from systems.common.sheet import contact_sheet
from systems.common.vgg19 import VGG19, two_scale_distance
from systems.g4g.adversary import Critic, critic_loss, generator_loss
from systems.g4g.alignment import InterAlignment, attribute_loss, diagonal_contrast
from systems.g4g.expert import WINDOW, SyncExpert
from systems.g4g.generator import REFERENCES, Dubbed, G4GGenerator
from systems.g4g.regions import core, face_of, landmarks_of, masks, mouth_of
from systems.g4g.sync_expert import CONTEXT, SHIFTS

OUT_OF_SYNC = (-6, -5, 5, 6)  # frames of shift that make an out-of-sync sound of the same clip


class G4GSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 416  # §4.3
    channels: tuple[int, ...] = (64, 128, 256)
    deformed: int = 256  # §3.2, c in 1..256
    joined: int = 32
    blocks: int = 3
    hidden: int = 512
    blend: int = 32
    critic_channels: tuple[int, ...] = (64, 128, 256)
    copy_references: bool = False
    learning_rate: float = 1e-4  # §4.3
    vgg19: str = ""  # safetensors file of the published weights; none: the expert's features stand in
    lambda_v: float = 1.0  # §3.3
    lambda_p: float = 2.0  # §3.3
    lambda_gan: float = 3.0  # §3.3
    lambda_r: float = 4.0  # §3.3
    lambda_con: float = 5.0  # §3.3
    alignment: bool = True  # off: Table 2, w/o alignment
    multi_scale: bool = True  # off: Table 2, w/o supervision
    fusion: bool = True  # off: Table 2, w/o fusion


class G4GStage(TrainedStage):
    """Five frames in a row of one clip, their mouths from five references and the sound."""

    name = "g4g"
    needs = ("sync_expert",)
    phases = ("generator", "discriminator")
    presets: ClassVar[Mapping[str, G4GSettings]] = {
        "paper": G4GSettings(steps=400_000, batch=3),
        "small": G4GSettings(
            steps=8000,
            batch=6,
            size=208,
            channels=(32, 64, 96),
            deformed=128,
            joined=16,
            blocks=2,
            hidden=256,
            blend=16,
            critic_channels=(32, 64, 128),
            copy_references=True,
            learning_rate=2e-4,
            lambda_gan=0.3,
            validate_every=1000,
        ),
        "tiny": G4GSettings(
            steps=160,
            batch=4,
            size=104,
            channels=(8, 16, 24),
            deformed=24,
            joined=4,
            blocks=1,
            hidden=64,
            blend=4,
            critic_channels=(8, 16),
            copy_references=True,
            learning_rate=1e-3,
            lambda_p=0.2,
            lambda_gan=0.02,
            lambda_con=0.05,
            lambda_v=0.1,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"generator": G4GGenerator}
    bar = Bar(measure="l1_moving", baseline="l1_moving_mean", better="lower", speakers="known")
    settings: G4GSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """The perceptual loss's network, where it is not the published one."""
        return () if self.settings.vgg19 or not self.settings.lambda_p else ("VGG19 -> sync_expert.mouth",)

    @property
    def view(self) -> View:
        """Five frames with the sound about them, and five references half a second away or more."""
        fields = ("frames", "landmarks", "audio")
        return View(
            fields,
            frames=WINDOW,
            pick="successive",
            size=self.settings.size,
            context=CONTEXT,
            references=REFERENCES,
        )

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """Generator, heads of the contrast, two critics, and the frozen expert, from which E_a, g_v, g_a begin."""
        s = self.settings
        expert: SyncExpert = parents["sync_expert"]["sync_expert"]
        generator = G4GGenerator(
            size=s.size,
            channels=s.channels,
            deformed=s.deformed,
            audio_channels=expert.config.audio_channels,
            width=expert.config.width,
            joined=s.joined,
            blocks=s.blocks,
            hidden=s.hidden,
            blend=s.blend,
            align=s.alignment,
            fusion=s.fusion,
            copy_references=s.copy_references,
        )
        generator.e_a = copy.deepcopy(expert.audio).requires_grad_(True)
        model = {
            "generator": generator,
            "critic_frame": Critic(3, s.critic_channels),
            "critic_clip": Critic(3 * WINDOW, s.critic_channels),
            "sync_expert": Frozen(parents["sync_expert"]),
        }
        if s.alignment:
            model["inter"] = InterAlignment(expert)
        if s.vgg19:
            model["vgg19"] = Frozen({"features": VGG19.load(s.vgg19)})
        return nn.ModuleDict(model)

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """How far the references' mean is from the mouths of training clips, on the median."""
        errors = []
        for batch in batches:
            real, mean = face_of(batch["frames"]), face_of(batch["references"]).mean(1, keepdim=True)
            errors.append(masked_l1(mean, real, core(self.settings.size).to(real)[None])[:, 0])
        if errors:
            model["generator"].copy_error.copy_(torch.cat(errors).median())

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam for either side."""
        lr = self.settings.learning_rate
        ours = [p for name in ("generator", "inter") if name in model for p in model[name].parameters()]
        theirs = [p for name in ("critic_frame", "critic_clip") for p in model[name].parameters()]
        return {"generator": Adam(ours, lr, betas=(0.5, 0.999)), "discriminator": Adam(theirs, lr, betas=(0.5, 0.999))}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """Eq. (17) for the generator, the critics' least squares for the discriminator."""
        s, real = self.settings, face_of(batch["frames"])
        if phase == "discriminator":
            with torch.no_grad():
                made, _ = self._dub(model, batch)
            total = critic_loss(_judge(model, real), _judge(model, made.face.unflatten(0, real.shape[:2])))
            return Losses(total, {"critic": total.detach()})
        made, l_r = self._dub(model, batch)
        face = made.face.unflatten(0, real.shape[:2])
        terms = {
            "p": self._perceptual(model, made.face, real.flatten(0, 1)),
            "gan": generator_loss(_judge(model, face)),
            "r": masked_l1(face, real, masks(s.size).to(real)[: None if s.multi_scale else 1]).mean(),
            "con": self._contrast(model, batch, made, face),
        }
        weights = {"p": s.lambda_p, "gan": s.lambda_gan, "r": s.lambda_r, "con": s.lambda_con}
        if s.alignment:
            terms["v"] = attribute_loss(made.aligned, l_r).mean()
            weights["v"] = s.lambda_v
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # eq. (17), §3.3
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Measures [B] where nothing of the source shows through: L1 and PSNR beside the references' mean; sync told by
        the expert.

        ``l1_moving`` counts clips whose mean is off by more than the training clips' median; others are 0 on both
        sides of the comparison.
        """
        real, mean = face_of(batch["frames"]), face_of(batch["references"]).mean(1, keepdim=True)
        face = self._dub(model, batch)[0].face.unflatten(0, real.shape[:2])
        square, lips = core(self.settings.size).to(real), masks(self.settings.size).to(real)[-1]
        l1, copied = masked_l1(face, real, square[None])[:, 0], masked_l1(mean, real, square[None])[:, 0]
        moving = (copied > model["generator"].copy_error).to(l1)
        return {
            "l1_moving": l1 * moving,
            "l1_moving_mean": copied * moving,
            "l1": l1,
            "l1_mean": copied,
            "l1_lips": masked_l1(face, real, lips[None])[:, 0],
            "l1_lips_mean": masked_l1(mean, real, lips[None])[:, 0],
            "psnr": _psnr(face, real, square),
            "psnr_mean": _psnr(mean, real, square),
            "in_sync": self._told(model, batch, face),
            "in_sync_real": self._told(model, batch, real),
            "in_sync_mean": self._told(model, batch, mean.expand_as(real)),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Rows: the true frame, what the network sees of it, the references' mean, the result."""
        few = {name: values[:8] for name, values in batch.items()}
        real, middle = face_of(few["frames"]), WINDOW // 2
        made = self._dub(model, few)[0].face.unflatten(0, real.shape[:2])[:, middle]
        true = real[:, middle]
        rows = [true, true * (model["generator"].mask == 0), face_of(few["references"]).mean(1), made]
        return contact_sheet([torch.nn.functional.pad(row, (0, row.shape[-2] - row.shape[-1])) for row in rows])

    def _dub(self, model: nn.ModuleDict, batch: Batch) -> tuple[Dubbed, Tensor]:
        return dub(model["generator"], batch)

    def _perceptual(self, model: nn.ModuleDict, face: Tensor, real: Tensor) -> Tensor:
        if "vgg19" in model:
            return two_scale_distance(model["vgg19"]["features"], face, real)  # eq. (13), §3.3
        expert = model["sync_expert"]["sync_expert"]
        return two_scale_distance(expert.features, mouth_of(face), mouth_of(real))

    def _contrast(self, model: nn.ModuleDict, batch: Batch, made: Dubbed, face: Tensor) -> Tensor:
        """L_con of features, (10), and of what the frozen expert sees and hears in the result, (16)."""
        expert: SyncExpert = model["sync_expert"]["sync_expert"]
        v, a = self._embed(model, batch, face)
        out_of_sync = torch.cat([a[:, SHIFTS + shift] for shift in OUT_OF_SYNC])
        seen = diagonal_contrast(v, a[:, SHIFTS], out_of_sync, expert.log_scale.exp())
        if "inter" not in model:
            return seen
        middle = WINDOW // 2
        mel = mel_windows(batch["audio"])[:, middle:][:, [SHIFTS + shift for shift in OUT_OF_SYNC]]
        others = model["generator"].e_a(mel.flatten(0, 1))
        pick = slice(middle, None, WINDOW)
        return (seen + model["inter"](made.aligned[pick], made.a[pick], others)) / 2

    def _embed(self, model: nn.ModuleDict, batch: Batch, face: Tensor) -> tuple[Tensor, Tensor]:
        return look_and_listen(model["sync_expert"]["sync_expert"], batch, face)

    def _told(self, model: nn.ModuleDict, batch: Batch, face: Tensor) -> Tensor:
        """Share of the out-of-sync sounds that the expert finds to fit less than the right one, [B]."""
        v, a = self._embed(model, batch, face)
        scores = (v[:, None] * a).sum(-1)
        others = torch.stack([scores[:, SHIFTS + shift] for shift in OUT_OF_SYNC], 1)
        return (scores[:, SHIFTS, None] > others).to(v).mean(1)


def dub(generator: G4GGenerator, batch: Batch) -> tuple[Dubbed, Tensor]:
    """The frames [B * 5] of a batch dubbed with their own sound, and l_r [B * 5, d]."""
    real, references = face_of(batch["frames"]), face_of(batch["references"])
    known = generator.know(references, landmarks_of(batch["reference_landmarks"][:, 0])).repeat(WINDOW)
    mel = mel_windows(batch["audio"])[:, SHIFTS : SHIFTS + WINDOW]
    return generator(real.flatten(0, 1), known, mel.flatten(0, 1)), known.l_r


def look_and_listen(expert: SyncExpert, batch: Batch, face: Tensor) -> tuple[Tensor, Tensor]:
    """What the expert sees in five faces [B, 5, 3, H, W], [B, e], and hears at each shift [B, 13, e]."""
    rest = expert.frames(mouth_of(face_of(batch["references"]))).mean(1)
    v = expert.see(expert.frames(mouth_of(face)), rest)[:, 0]
    return v, expert.hear(batch["audio"])[:, 2:-2]


def masked_l1(a: Tensor, b: Tensor, under: Tensor) -> Tensor:
    """Mean difference of faces [B, n, 3, H, W] under each mask [K, 1, H, W]: [B, K]."""
    apart = (a - b).abs().mean((1, 2))
    return torch.stack([(apart * mask[0]).sum((1, 2)) / mask.sum() for mask in under], 1)  # eq. (15), §3.3


def _judge(model: nn.ModuleDict, faces: Tensor) -> list[Tensor]:
    """What both critics say of mouths of [B, 5, 3, H, W]: of single frames, and of five in a row."""
    mouths = mouth_of(faces)
    return [model["critic_frame"](mouths.flatten(0, 1)), model["critic_clip"](mouths.flatten(1, 2))]


def masked_error(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Mean square of the difference of faces [B, n, 3, H, W] where ``mask`` [1, H, W] is 1, [B]."""
    return ((a - b).square().mean((1, 2)) * mask[0]).sum((1, 2)) / mask.sum()


def _psnr(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """In dB, [B]; the range is 2."""
    return 10 * torch.log10(4 / masked_error(a, b, mask).clamp_min(1e-10))
