"""Stage ``motion_space``: two frames of one video teach what motion is and how to wrap it (§III-B1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.adversarial import Discriminator, discriminator_loss
from systems.common.frozen import Frozen
from systems.common.landmarks import head_frame, lip_mask, pose_free_lips
from systems.common.sheet import contact_sheet
from systems.see_the_speaker.image_autoencoder import ImageDecoder, ImageEncoder
from systems.see_the_speaker.image_losses import STAND_INS, image_losses
from systems.see_the_speaker.lip_refiner import LipGuider, LipRefiner
from systems.see_the_speaker.motion_wrapper import CodeEncoder, MotionWrapper
from systems.see_the_speaker.motion_wrapping import (
    Source,
    Wrapped,
    adapt_lips,
    decode,
    flow_error,
    lips_error,
    read_motion,
    read_source,
    wrap,
)

LIP_CONTEXT = 6  # frames of sound on each side of a frame that the lip predictor hears, at every preset


class MotionSpaceSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 256  # §IV-B
    channels: tuple[int, ...] = (64, 128, 256, 512, 256)  # LIA's at 256 px; the last is the code's width
    squeezed: int = 32
    pool: int = 8
    hidden: int = 512  # LIA's MLPs
    width_id: int = 512
    width_m: int = 128
    style: int = 512
    flow_channels: tuple[int, ...] = (512, 512, 512, 512, 256)  # LIA's, 4 to 64 places
    guidance: int = 128
    guidance_fine: int = 64
    refiner_hidden: int = 256
    critic_channels: tuple[int, ...] = (64, 128, 256, 512)
    copy_image: bool = False
    learning_rate: float = 2e-3  # §IV-E, motion construction and wrapping
    weight_vgg: float = 1.0  # eq. (14)
    weight_adv: float = 1.0  # eq. (14)
    weight_head: float = 1.0
    weight_lips: float = 0.0
    weight_flow: float = 0.0
    relative: bool = False
    critic_items: int = 0  # items of a batch that the discriminator sees; 0: all
    predicted_lips: float = 0.5  # share of items whose lips come from lip_landmarks instead of the picture
    refiner_off: float = 0.1  # share of items without the refiner, so that both ways are trained


class MotionSpace(TrainedStage):
    """E_f, φ_id, φ_m, G_w, lip guider, G_R and the decoder: eqs. (11) to (17)."""

    name = "motion_space"
    needs = ("conre", "lip_landmarks")
    phases = ("generator", "discriminator")
    presets: ClassVar[Mapping[str, MotionSpaceSettings]] = {
        "paper": MotionSpaceSettings(steps=100_000, batch=32),
        "small": MotionSpaceSettings(
            steps=6000,
            batch=16,
            channels=(32, 64, 96, 128, 128),
            squeezed=16,
            hidden=256,
            width_id=64,
            width_m=64,
            style=128,
            flow_channels=(128, 128, 96, 64, 48),
            guidance=64,
            guidance_fine=32,
            refiner_hidden=96,
            critic_channels=(32, 64, 128, 128),
            copy_image=True,
            weight_vgg=0.1,
            weight_adv=0.02,
            weight_lips=0.5,
            weight_flow=1.0,
            relative=True,
            validate_every=500,
        ),
        "tiny": MotionSpaceSettings(
            steps=120,
            batch=12,
            size=64,
            channels=(12, 24, 48),
            squeezed=16,
            hidden=128,
            width_id=32,
            width_m=32,
            style=64,
            flow_channels=(48, 32, 24, 16),
            guidance=24,
            guidance_fine=12,
            refiner_hidden=32,
            critic_channels=(12, 24, 48),
            copy_image=True,
            weight_vgg=0.02,
            weight_adv=0.005,
            weight_lips=0.5,
            weight_flow=2.0,
            relative=True,
            critic_items=4,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {
        "image_encoder": ImageEncoder,
        "identity_encoder": CodeEncoder,
        "motion_encoder": CodeEncoder,
        "motion_wrapper": MotionWrapper,
        "lip_guider": LipGuider,
        "lip_refiner": LipRefiner,
        "image_decoder": ImageDecoder,
    }
    bar = Bar(measure="l1", baseline="l1_copy_085", better="lower", speakers="new")
    settings: MotionSpaceSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Loss networks that are not the paper's."""
        return STAND_INS if self.settings.weight_vgg else ()

    @property
    def view(self) -> View:
        """Two random frames of one video, source then target, each with the sound around it."""
        fields = ("frames", "landmarks", "audio", "voice")
        return View(fields, frames=2, pick="random", size=self.settings.size, context=LIP_CONTEXT)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """The networks, the discriminator, and the frozen parents ``conre`` and ``lip_landmarks``."""
        s = self.settings
        latent, grid = s.channels[-1], s.size >> (len(s.channels) - 1)
        return nn.ModuleDict(
            {
                "image_encoder": ImageEncoder(s.channels),
                "identity_encoder": CodeEncoder(latent, s.squeezed, s.pool, s.hidden, s.width_id),
                "motion_encoder": CodeEncoder(latent, s.squeezed, s.pool, s.hidden, s.width_m),
                "motion_wrapper": MotionWrapper(s.width_id, s.width_m, s.style, grid, s.flow_channels, s.relative),
                "lip_guider": LipGuider(s.width_id, s.width_m, grid, s.guidance_fine, s.guidance),
                "lip_refiner": LipRefiner(latent, s.guidance, s.guidance_fine, s.refiner_hidden),
                "image_decoder": ImageDecoder(s.channels, s.copy_image),
                "discriminator": Discriminator(s.critic_channels),
                "conre": Frozen({"face_encoder": parents["conre"]["face_encoder"]}),
                "lip_landmarks": Frozen(parents["lip_landmarks"]),
            }
        )

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Where faces are on the average, the lips' mean shape, and how to read lips from a picture."""
        guider, predictor = model["lip_guider"], model["lip_landmarks"]["lip_predictor"]
        guider.mean_lips.copy_(predictor.mean)
        guider.deviation_lips.copy_(predictor.deviation)
        images, marks = [], []
        for batch in batches:
            # both ways round: either frame's mouth is to tell the other's
            images += [batch["frames"], batch["frames"].flip(1)]
            marks += [batch["landmarks"], batch["landmarks"].flip(1)]
        if images:
            image, landmarks = torch.cat(images)[:, 0], torch.cat(marks)
            frames, lips = head_frame(landmarks), pose_free_lips(landmarks)
            guider.mean_frame.copy_(frames.flatten(0, 1).mean(0))
            guider.learn_to_read(image, frames[:, 0], *lips.unbind(1))

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam for either side."""
        generator = [p for name in self.networks for p in model[name].parameters()]
        lr = self.settings.learning_rate
        return {
            "generator": Adam(generator, lr),
            # not in the paper: a slower discriminator, because at 2e-3 it wins before there is a picture
            "discriminator": Adam(model["discriminator"].parameters(), lr / 4, betas=(0.5, 0.999)),
        }

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """Eq. (14) for the generator, D's loss for the discriminator."""
        s = self.settings
        if phase == "discriminator":
            few = {name: values[: s.critic_items or None] for name, values in batch.items()}
            with torch.no_grad():
                _, _, result = self._reconstruct(model, few, self._draw_heard(few, rng))
            return discriminator_loss(model["discriminator"], few["frames"][:, 1], result)
        target, landmarks = batch["frames"][:, 1], batch["landmarks"][:, 1]
        refine = (torch.rand(len(target), generator=rng) >= s.refiner_off).float().to(target.device)
        _, wrapped, result = self._reconstruct(model, batch, self._draw_heard(batch, rng), refine)
        losses = image_losses(
            target,
            result,
            model["conre"]["face_encoder"],
            model["discriminator"],
            weight_vgg=s.weight_vgg,
            weight_adv=s.weight_adv,
            judged=s.critic_items,
        )
        # not in the paper: z_m is told where the head is, because pose-free lips must be drawn somewhere
        head = (wrapped.frame - head_frame(landmarks)).abs().mean()
        losses.total = losses.total + s.weight_head * head
        losses.terms["head"] = head.detach()
        if s.weight_flow:
            # not in the paper: landmarks say where the flow must lead, where the picture alone says little
            flow = flow_error(wrapped.flow, batch["landmarks"][:, 0], landmarks).mean()
            losses.total = losses.total + s.weight_flow * flow
            losses.terms["flow"] = flow.detach()
        if s.weight_lips:
            # not in the paper: the mouth is a hundredth of the picture, and short training would pass it over
            lips = _masked_l1(target, result, lip_mask(landmarks, s.size)).mean()
            losses.total = losses.total + s.weight_lips * lips
            losses.terms["lips"] = lips.detach()
        return losses

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """L1 [B] of target rebuilt from source, beside copying the source; of the lip region in three ways."""
        source, target = batch["frames"][:, 0], batch["frames"][:, 1]
        mask = lip_mask(batch["landmarks"][:, 1], self.settings.size)
        off = torch.zeros_like(target[:, 0, 0, 0])
        read, wrapped, result = self._reconstruct(model, batch, off == 0)
        _, _, with_true = self._reconstruct(model, batch, off > 0)
        _, unled, without = self._reconstruct(model, batch, off == 0, off)
        own = pose_free_lips(batch["landmarks"][:, 0])
        copy = (source - target).abs().mean((1, 2, 3))
        return {
            "l1": (result - target).abs().mean((1, 2, 3)),
            "l1_true_lips": (with_true - target).abs().mean((1, 2, 3)),
            "l1_copy": copy,
            "l1_copy_085": 0.85 * copy,  # the bar: SYSTEMS' share of copying
            "lip_l1": _masked_l1(target, result, mask),
            "lip_l1_true_lips": _masked_l1(target, with_true, mask),
            "lip_l1_without_refiner": _masked_l1(target, without, mask),
            "lip_l1_copy": _masked_l1(target, source, mask),
            "flow_error": flow_error(wrapped.flow, batch["landmarks"][:, 0], batch["landmarks"][:, 1]),
            "flow_error_without_refiner": flow_error(unled.flow, batch["landmarks"][:, 0], batch["landmarks"][:, 1]),
            "own_error": lips_error(model, read, own),
            "flow_error_still": flow_error(0 * wrapped.flow, batch["landmarks"][:, 0], batch["landmarks"][:, 1]),
            "head_error": (wrapped.frame - head_frame(batch["landmarks"][:, 1]))[:, :2].norm(dim=1),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Rows: source, target, result with predicted lips, with true lips, without the refiner."""
        few = {name: values[:8] for name, values in batch.items()}
        source, target = few["frames"][:, 0], few["frames"][:, 1]
        off = torch.zeros(len(target), device=target.device)
        ways = ((off == 0, None), (off > 0, None), (off > 0, off))
        rows = [self._reconstruct(model, few, heard, refine)[2] for heard, refine in ways]
        return contact_sheet([source, target, *rows])

    def _reconstruct(
        self, model: nn.ModuleDict, batch: Batch, heard: Tensor, refine: Tensor | None = None
    ) -> tuple[Source, Wrapped, Tensor]:
        """The target from the source; its lips as predicted where ``heard`` [B], else as the picture has them."""
        source = read_source(model, batch["frames"][:, 0])
        true = pose_free_lips(batch["landmarks"][:, 1])
        with torch.no_grad():
            guess = adapt_lips(model, source, _predicted_lips(model, batch))
        lips = torch.where(heard[:, None, None], guess, true)
        wrapped = wrap(model, source, read_motion(model, batch["frames"][:, 1]), lips, refine)
        return source, wrapped, decode(model, wrapped)

    def _draw_heard(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Items [B] that get the predicted lips, which inference will have: a share of them."""
        frames = batch["frames"]
        return (torch.rand(len(frames), generator=rng) < self.settings.predicted_lips).to(frames.device)


def _predicted_lips(model: nn.ModuleDict, batch: Batch) -> Tensor:
    """The target's pose-free lips [B, 40, 2] as its sound tells them."""
    return model["lip_landmarks"]["lip_predictor"](batch["audio"][:, 1], batch["voice"])[:, 0]


def _masked_l1(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Mean difference within a mask [B, 1, S, S], per item [B]."""
    return ((a - b).abs().mean(1, keepdim=True) * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
