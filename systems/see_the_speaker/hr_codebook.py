"""Stage ``hr_codebook``: codebook and high-resolution decoder, by self-reconstruction (§III-B1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.adversarial import Discriminator, discriminator_loss
from systems.common.fidelity import bicubic_from_grid, psnr
from systems.common.frozen import Frozen
from systems.common.landmarks import pose_free_lips
from systems.common.sheet import contact_sheet
from systems.see_the_speaker.codebook import Codebook, HighResolutionDecoder, enlarge
from systems.see_the_speaker.image_losses import STAND_INS, image_losses
from systems.see_the_speaker.motion_wrapping import Source, Wrapped, decode, read_motion, read_source, wrap
from systems.see_the_speaker.warp import resize, warp

STARTING_PICTURES = 128  # from which codes and patches are fitted
FITTED_RATE = 1e-4  # §IV-E, high-resolution component


class HRCodebookSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 512  # CodeFormer's; §IV-E: VFHQ
    codes: int = 1024  # CodeFormer's
    widths: tuple[int, ...] = (512, 256, 256, 128, 128, 64)  # CodeFormer's decoder, 16 to 512 px
    commitment: float = 0.25  # β of eq. (19), CodeFormer's
    critic_channels: tuple[int, ...] = (64, 128, 256, 512)
    copy_image: bool = False
    equalised: bool = False
    learning_rate: float = 1e-4  # §IV-E, high-resolution component
    weight_code: float = 1.0
    weight_vgg: float = 1.0  # eq. (14)
    weight_adv: float = 1.0  # eq. (14)
    critic_items: int = 0
    codes_alone: float = 0.5  # share of items decoded from their codes alone


class HRCodebook(TrainedStage):
    """Codes and decoder over the frozen motion space: eqs. (14), (18), (19)."""

    name = "hr_codebook"
    needs = ("conre", "motion_space")
    phases = ("generator", "discriminator")
    presets: ClassVar[Mapping[str, HRCodebookSettings]] = {
        "paper": HRCodebookSettings(steps=100_000, batch=8),
        "small": HRCodebookSettings(
            steps=5000,
            batch=12,
            size=256,
            codes=512,
            widths=(128, 96, 64, 48, 32),
            critic_channels=(32, 64, 128, 128),
            copy_image=True,
            equalised=True,
            learning_rate=2e-3,
            weight_vgg=0.1,
            weight_adv=0.02,
            validate_every=500,
        ),
        "tiny": HRCodebookSettings(
            steps=80,
            batch=8,
            size=128,
            codes=512,
            widths=(48, 32, 24, 16),
            critic_channels=(12, 24, 48),
            copy_image=True,
            equalised=True,
            learning_rate=2e-3,
            weight_code=0.25,
            weight_vgg=0.02,
            weight_adv=0.005,
            critic_items=2,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"codebook": Codebook, "hr_decoder": HighResolutionDecoder}
    bar = Bar(measure="psnr", baseline="psnr_bicubic", better="higher", speakers="new")
    settings: HRCodebookSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Loss networks and starting weights that are not the paper's."""
        return (*(STAND_INS if self.settings.weight_vgg else ()), "CodeFormer (start) -> k-means (start)")

    @property
    def view(self) -> View:
        """Two random frames of one video at high resolution, source then target."""
        return View(("frames", "landmarks"), frames=2, pick="random", size=self.settings.size)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """Codebook, decoder, discriminator; the frozen parents ``conre`` and ``motion_space``."""
        s = self.settings
        channels = parents["motion_space"]["image_encoder"].config.channels
        joined = tuple(channels[-2::-1])[: len(s.widths) - 1]
        return nn.ModuleDict(
            {
                "codebook": Codebook(s.codes, channels[-1], s.commitment),
                "hr_decoder": HighResolutionDecoder(channels[-1], s.widths, joined, s.copy_image, s.equalised),
                "discriminator": Discriminator(s.critic_channels),
                "conre": Frozen({"face_encoder": parents["conre"]["face_encoder"]}),
                "motion_space": Frozen(parents["motion_space"]),
            }
        )

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Codes by k-means over z_wr of the training data, and the patches that they stand for."""
        maps, pictures = [], []
        for batch in islice(batches, -(-STARTING_PICTURES // (2 * self.settings.batch))):
            for moment in (slice(0, 1), slice(1, 2)):
                with torch.no_grad():
                    maps.append(self._wrap(model, batch["frames"][:, moment], batch["landmarks"][:, moment])[1].z_wr)
                pictures.append(batch["frames"][:, moment.start])
        if maps:
            z_wr, shown = torch.cat(maps), torch.cat(pictures)
            pixels = F.pixel_unshuffle(shown, shown.shape[-1] // z_wr.shape[-1])
            vectors, patches = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (z_wr, pixels))
            keep = torch.linspace(0, len(vectors) - 1, min(len(vectors), 16_384)).long()
            model["codebook"].start_from(vectors[keep], patches[keep])
            with torch.no_grad():
                z_q = model["codebook"](z_wr)[0]
            model["hr_decoder"].start_from(z_q, shown)

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam for either side; what starts from a fit learns at the paper's rate, lest it be lost at once."""
        s = self.settings
        generator = [p for name in self.networks for p in model[name].parameters()]
        patches = model["hr_decoder"].patches
        fitted = [*model["codebook"].parameters(), *(patches.parameters() if patches is not None else ())]
        known = {id(p) for p in fitted}
        groups = [
            {"params": [p for p in generator if id(p) not in known]},
            {"params": fitted, "lr": min(s.learning_rate, FITTED_RATE)},
        ]
        return {
            "generator": Adam(groups, s.learning_rate),
            "discriminator": Adam(model["discriminator"].parameters(), s.learning_rate, betas=(0.5, 0.999)),
        }

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """L_code + eq. (14), or D's loss.

        A share of the items is a frame from its own codes alone (self-reconstruction); the others are the
        target frame from the moved source with the motion space's maps, as the pipeline renders (the paper's
        "frame-to-frame reconstruction").
        """
        s = self.settings
        if phase == "discriminator":
            batch = {name: values[: s.critic_items or None] for name, values in batch.items()}
        frames, landmarks = batch["frames"], batch["landmarks"]
        alone = torch.rand(len(frames), generator=rng).to(frames.device) < s.codes_alone
        picked = torch.where(alone, 1, 0)
        source = frames[torch.arange(len(frames), device=frames.device), picked]
        pair = torch.stack([source, frames[:, 1]], 1)
        with torch.no_grad():
            read, wrapped = self._wrap(model, pair, landmarks)
            base = high_resolution_base(model["motion_space"], read, wrapped, source)
        if phase == "discriminator":
            with torch.no_grad():
                result, _ = self._decode(model, wrapped, base, 1.0 - alone.float())
            return discriminator_loss(model["discriminator"], frames[:, 1], result)
        result, l_code = self._decode(model, wrapped, base, 1.0 - alone.float())
        losses = image_losses(
            frames[:, 1],
            result,
            model["conre"]["face_encoder"],
            model["discriminator"],
            weight_vgg=s.weight_vgg,
            weight_adv=s.weight_adv,
            judged=s.critic_items,
        )
        losses.total = losses.total + s.weight_code * l_code
        losses.terms["l_code"] = l_code.detach()
        return losses

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """PSNR [B] of a frame from its codes alone, beside bicubic; of the rendered frame, beside enlarging it."""
        frames, side = batch["frames"], self.settings.size
        source, target = frames[:, 0], frames[:, 1]
        itself = torch.stack([target, target], 1)
        nothing, full = torch.zeros(len(frames), device=frames.device), torch.ones(len(frames), device=frames.device)
        read, wrapped = self._wrap(model, itself, batch["landmarks"])
        index = model["codebook"](wrapped.z_wr)[1]
        alone, _ = self._decode(
            model, wrapped, high_resolution_base(model["motion_space"], read, wrapped, target), nothing
        )
        read, wrapped = self._wrap(model, frames, batch["landmarks"])
        base = high_resolution_base(model["motion_space"], read, wrapped, source)
        rendered, _ = self._decode(model, wrapped, base, full)
        low = decode(model["motion_space"], wrapped)
        return {
            "psnr": psnr(alone, target),
            "psnr_bicubic": psnr(bicubic_from_grid(target, index.shape[-1]), target),
            "psnr_rendered": psnr(rendered, target),
            "psnr_rendered_bicubic": psnr(enlarge(low, side), target),
            "psnr_copy": psnr(source, target),
            "perplexity": perplexity(index, self.settings.codes).expand(len(frames)),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Rows: source, target, rendered; the target from its codes alone, and by bicubic from their grid."""
        frames, landmarks = batch["frames"][:6], batch["landmarks"][:6]
        source, target = frames[:, 0], frames[:, 1]
        rows = [source, target]
        for pair, w in ((frames, 1.0), (torch.stack([target, target], 1), 0.0)):
            read, wrapped = self._wrap(model, pair, landmarks)
            base = high_resolution_base(model["motion_space"], read, wrapped, pair[:, 0])
            rows.append(self._decode(model, wrapped, base, torch.full((len(pair),), w, device=pair.device))[0])
        grid = wrapped.z_wr.shape[-1]
        return contact_sheet([*rows, bicubic_from_grid(target, grid)])

    def _wrap(self, model: nn.ModuleDict, frames: Tensor, landmarks: Tensor) -> tuple[Source, Wrapped]:
        """z_wr of the last frame from the first, [B, n, 3, S, S]; lips as the last frame shows them."""
        nets = model["motion_space"]
        side = motion_side(nets)
        read = read_source(nets, resize(frames[:, 0], side))
        z_m = read_motion(nets, resize(frames[:, -1], side))
        return read, wrap(nets, read, z_m, pose_free_lips(landmarks[:, -1]))

    @staticmethod
    def _decode(model: nn.ModuleDict, wrapped: Wrapped, base: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        z_q, _, l_code = model["codebook"](wrapped.z_wr)
        return model["hr_decoder"](z_q, wrapped.skips, base, w), l_code


def motion_side(nets: Mapping[str, Any]) -> int:
    """Side in pixels of the pictures that the motion space reads: its code grid is ``lip_guider``'s."""
    return nets["lip_guider"].config.grid << (len(nets["image_encoder"].config.channels) - 1)


def high_resolution_base(nets: Mapping[str, Any], source: Source, wrapped: Wrapped, portrait: Tensor) -> Tensor:
    """The portrait [B, 3, S, S] warped at its own resolution, plus what the motion space painted on its copy.

    Where the motion space does not copy (``paper``), its picture Î_t enlarged.
    """
    low = decode(nets, wrapped)
    if not nets["image_decoder"].config.copy_image:
        return enlarge(low, portrait.shape[-1])
    return wrapped.mouth.paint(warp(portrait, wrapped.flow)) + enlarge(low - wrapped.image, portrait.shape[-1])


def perplexity(index: Tensor, codes: int) -> Tensor:
    """exp of the entropy of the codes' use, over all indices; a scalar from 1 to ``codes``."""
    share = torch.bincount(index.flatten(), minlength=codes).float()
    share = share / share.sum()
    return torch.exp(-(share * share.clamp_min(1e-12).log()).sum())
