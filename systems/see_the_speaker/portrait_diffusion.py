"""The portrait diffusion: z^s to z^0, starting from noise that the face prior shifts (§III-A1, §III-A2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contracts.errors import Misuse
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.frozen import Frozen
from systems.common.noise import item_generators, normal
from systems.common.sheet import contact_sheet
from systems.see_the_speaker.denoising import TIMES, WienerDenoiser, make_scheduler, predict_noise
from systems.see_the_speaker.portrait_pipeline import PortraitGenerator, scaled_prior
from systems.see_the_speaker.saw import Prior, PriorAt, SampleAdaptiveWeighting, SpeechTokens

CHECKED_TIMES = 8  # of the schedule, evenly: where validation pools the loss


class PortraitDiffusionSettings(StageSettings):
    """Defaults are the paper's."""

    steps: int = 200_000  # not in the paper
    batch: int = 64  # not in the paper
    lr: float = 2e-5  # §IV-E, the speech-conditioned LDM
    size: int = 224  # of E_f's faces
    grid: tuple[int, int, int] = (4, 32, 32)  # z as the UNet sees it
    # not in the paper: Table XII leaves 640 M for all of SCFP, so Stable Diffusion's 320, 640, 1280, 1280 cannot be
    channels: tuple[int, int, int, int] = (192, 384, 768, 768)
    layers: int = 2
    heads: int = 8
    groups: int = 32
    tokens: int = 16  # not in the paper: z^s as 16 tokens of d / 16
    width: int = 256  # not in the paper: of the cross-attention
    prior: Prior = "linear"
    prior_at: PriorAt = "every_step"
    noises: int = 1  # per face and step
    wiener_leads: bool = False
    inference_steps: int = 50  # not in the paper


class PortraitDiffusion(TrainedStage):
    """A UNet with Stable Diffusion's topology that denoises the codes of faces, given speech."""

    name = "portrait_diffusion"
    needs = ("conre", "face_prior")
    networks: ClassVar = {
        "unet": UNet2DConditionModel,
        "speech_tokens": SpeechTokens,
        "saw": SampleAdaptiveWeighting,
        "wiener": WienerDenoiser,
    }
    bar = Bar("denoising", "denoising_wiener", "lower", "known")
    presets: ClassVar = {
        "paper": PortraitDiffusionSettings(),
        # not in the paper: what one GPU learns in half an hour
        "small": PortraitDiffusionSettings(
            steps=8000,
            batch=32,
            lr=1e-4,
            grid=(4, 16, 16),
            channels=(64, 128, 256, 256),
            noises=4,
            wiener_leads=True,
        ),
        # not in the paper: what one CPU core does in half a minute
        "tiny": PortraitDiffusionSettings(
            steps=60,
            batch=16,
            lr=1e-3,
            size=64,
            grid=(4, 8, 8),
            channels=(32, 32, 64, 64),
            layers=1,
            heads=4,
            groups=8,
            width=32,
            noises=4,
            inference_steps=10,
            wiener_leads=True,
        ),
    }
    settings: PortraitDiffusionSettings

    @property
    def view(self) -> View:
        """One random frame, and the speech of its clip."""
        return View(fields=("frames", "spectrogram", "speaker"), size=self.settings.size)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """UNet, tokens, SAW and baseline, and the frozen networks of ConRe and of the prior.

        Raises ``Misuse`` where ``size`` or ``grid`` are not those of ConRe.
        """
        s = self.settings
        encoder = parents["conre"]["face_encoder"].config
        if s.size != encoder.size or tuple(s.grid) != tuple(encoder.grid):
            raise Misuse(
                f"portrait_diffusion has size {s.size} and grid {s.grid}, conre has {encoder.size} and"
                f" {tuple(encoder.grid)}: set both alike"
            )
        dim = s.grid[0] * s.grid[1] * s.grid[2]
        unet = UNet2DConditionModel(
            sample_size=s.grid[1],
            in_channels=s.grid[0],
            out_channels=s.grid[0],
            block_out_channels=s.channels,
            layers_per_block=s.layers,
            attention_head_dim=s.heads,
            norm_num_groups=s.groups,
            cross_attention_dim=s.width,
        )
        if s.wiener_leads:  # begins as the closed form
            nn.init.zeros_(unet.conv_out.weight)
            nn.init.zeros_(unet.conv_out.bias)
        return nn.ModuleDict(
            {
                "unet": unet,
                "speech_tokens": SpeechTokens(dim=dim, tokens=s.tokens, width=s.width),
                "saw": SampleAdaptiveWeighting(
                    dim=dim, prior=s.prior, prior_at=s.prior_at, steps=s.inference_steps, times=TIMES
                ),
                "wiener": WienerDenoiser(dim=dim, leads=s.wiener_leads),
                "conre": Frozen(parents["conre"]),
                "face_prior": Frozen(parents["face_prior"]),
            }
        )

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam # not in the paper for this stage, which names it for the others."""
        trained = [p for name in ("unet", "speech_tokens", "saw") for p in model[name].parameters()]
        return {"main": Adam(trained, lr=self.settings.lr)}

    @torch.no_grad()
    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Mean and variance of each dimension of z over the training faces: the baseline's knowledge."""
        codes = torch.cat([self._face_codes(model, batch) for batch in batches]).double()
        model["wiener"].mean.copy_(codes.mean(0))
        model["wiener"].variance.copy_(codes.var(0, correction=0))

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """L_Pdiff, over ``noises`` draws per face."""
        z_0, z_s = (code.repeat_interleave(self.settings.noises, 0) for code in self._codes(model, batch))
        t = torch.randint(0, TIMES, (len(z_0),), generator=rng)
        noise = torch.randn(z_0.shape, generator=rng).to(z_0)
        total = self._denoise(model, z_0, z_s, t.to(z_0.device), noise).mean()  # eq. (7), §III-A2
        return Losses(total)

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The loss pooled over the schedule: of the UNet, of the closed form, of the UNet hearing somebody else.

        Somebody else is the next item with another speaker; in a batch of one speaker it is the same voice,
        so that no gain is claimed.
        """
        z_0, z_s = self._codes(model, batch)
        items, dim = z_0.shape
        noise = normal(item_generators(batch, rng), CHECKED_TIMES, dim).to(z_0).flatten(0, 1)
        t = (torch.arange(CHECKED_TIMES, device=z_0.device) * 2 + 1) * TIMES // (2 * CHECKED_TIMES)
        many = {"z_0": z_0, "z_s": z_s, "other": z_s[_other_speakers(batch["speaker"])]}
        many = {name: code.repeat_interleave(CHECKED_TIMES, 0) for name, code in many.items()}
        t = t.repeat(items)
        wiener = self._denoise(model, many["z_0"], None, t, noise)
        losses = {
            "denoising": self._denoise(model, many["z_0"], many["z_s"], t, noise),
            "denoising_wiener": wiener,
            "denoising_other_speech": self._denoise(model, many["z_0"], many["other"], t, noise),
        }
        return {name: loss.unflatten(0, (items, -1)).mean(1) for name, loss in losses.items()}

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """A row per voice: the true face, D_f's drawing of its code, then portraits from four seeds."""
        batch = {name: values[:6] for name, values in batch.items()}
        generator = PortraitGenerator(model["conre"], model["face_prior"], model)
        face = batch["frames"][:, 0]
        drawn = [generator(batch["spectrogram"], [seed] * len(face)) for seed in range(4)]
        known = model["conre"]["face_decoder"](model["conre"]["face_encoder"](face))
        return contact_sheet(list(torch.stack([face, known, *drawn], 1)))

    @torch.no_grad()
    def _codes(self, model: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
        """Standardised z^0 and z^s of a batch, both [B, d]; E_f and E_s are frozen (§IV-E)."""
        return self._face_codes(model, batch), model["conre"]["speech_encoder"].code(batch["spectrogram"])

    def _face_codes(self, model: nn.ModuleDict, batch: Batch) -> Tensor:
        encoder = model["conre"]["face_encoder"]
        return encoder.standardise(encoder(batch["frames"][:, 0]))

    def _denoise(self, model: nn.ModuleDict, z_0: Tensor, z_s: Tensor | None, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error [B] of the predicted noise at times ``t`` [B]; of the baseline's where ``z_s`` is None."""
        scheduler = make_scheduler()
        z_t = scheduler.add_noise(z_0, noise, t)  # eq. (1), §III-A1, variance-preserving
        if z_s is None:
            predicted = model["wiener"](z_t, scheduler.alphas_cumprod.to(z_t)[t])
        else:
            z_p = scaled_prior(model["conre"]["face_encoder"], model["face_prior"]["prior"])
            predicted = predict_noise(model, z_t, t, z_s, z_p)
        return F.mse_loss(predicted, noise, reduction="none").mean(1)


def _other_speakers(speaker: Tensor) -> Tensor:
    """For each item the position of the next one with another speaker, or its own; int64 [B]."""
    n = len(speaker)
    order = (torch.arange(n, device=speaker.device)[:, None] + torch.arange(1, n + 1, device=speaker.device)) % n
    differs = speaker[order] != speaker[:, None]
    differs[:, -1] = True  # the item itself
    return order.gather(1, differs.float().argmax(1, keepdim=True))[:, 0]
