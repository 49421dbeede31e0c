"""Stage ``autoencoder``: E and D of §III-A, loaded or trained; frozen from then on (§IV-A5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.fidelity import bicubic_from_grid, psnr
from systems.common.sheet import contact_sheet
from systems.talkformer.latents import Kind, LatentAutoencoder, build

STARTING_PICTURES = 256  # from which the linear ways are fitted
FITTED_RATE = 1e-4  # at which they go on learning, lest they be lost at once


class AutoencoderSettings(StageSettings):
    """Sizes and weights; defaults are latent-diffusion's VQ-f4, which the paper's 256 -> 64 points to (§IV-A5)."""

    size: int = 256  # §IV-A5
    kind: Kind = "vq"
    channels: tuple[int, ...] = (128, 256, 512)
    layers: int = 2
    groups: int = 32
    attention: bool = True  # one self-attention at the coarsest scale
    latent: int = 3
    codes: int = 8192
    linear: bool = False  # kl: linear ways beside E and D, fitted before the first step
    weights: str = ""  # folder of a published VQModel or AutoencoderKL; the sizes are then its own. steps: 0 keeps it
    learning_rate: float = 3.6e-5  # latent-diffusion: 4.5e-6 per item of the batch
    weight_square: float = 0.0
    weight_code: float = 1.0  # latent-diffusion: of the codebook's loss; 1e-6 for kl
    colours: float = 0.0  # how far training changes brightness and contrast of each channel; mirrors half the faces too


class Autoencoder(TrainedStage):
    """Pictures to a latent of a quarter of their side and back."""

    name = "autoencoder"
    presets: ClassVar[Mapping[str, AutoencoderSettings]] = {
        "paper": AutoencoderSettings(steps=500_000, batch=8),
        # not in the paper: what one GPU learns in ten minutes
        "small": AutoencoderSettings(
            steps=12_000,
            batch=16,
            kind="kl",
            linear=True,
            channels=(64, 96, 128),
            layers=1,
            learning_rate=3e-4,
            weight_square=4.0,
            weight_code=1e-6,
            colours=0.4,
            warmup=200,
            schedule="cosine",
            validate_every=2000,
        ),
        # not in the paper: what a CPU core does in a minute
        "tiny": AutoencoderSettings(
            steps=150,
            batch=8,
            size=64,
            kind="kl",
            linear=True,
            channels=(16, 32, 48),
            layers=1,
            groups=8,
            attention=False,
            learning_rate=5e-4,
            weight_square=4.0,
            weight_code=1e-6,
            colours=0.4,
            warmup=10,
            schedule="cosine",
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"autoencoder": LatentAutoencoder}
    bar = Bar(measure="psnr", baseline="psnr_bicubic", better="higher", speakers="new")
    settings: AutoencoderSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Where it is trained here: neither the paper's weights nor latent-diffusion's perceptual and patch losses."""
        own = "latent-diffusion f4 (pre-trained) -> own, by pixel losses without LPIPS and discriminator"
        return () if self.settings.weights else (own,)

    @property
    def view(self) -> View:
        """One random frame; stills too."""
        return View(("frames",), size=self.settings.size, kinds=("clip", "face"))

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """The autoencoder, published where a folder is given."""
        s = self.settings
        made = (
            LatentAutoencoder.published(s.weights)
            if s.weights
            else build(s.kind, s.channels, s.layers, s.groups, s.attention, s.latent, s.codes, s.linear)
        )
        return nn.ModuleDict({"autoencoder": made})

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """The linear ways, from some of the training pictures."""
        if self.settings.linear:
            first = islice(batches, -(-STARTING_PICTURES // self.settings.batch))
            pictures = [batch["frames"][:, 0] for batch in first]
            if pictures:
                model["autoencoder"].start_from(torch.cat(pictures))

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam, betas of latent-diffusion."""
        lr = self.settings.learning_rate
        fitted: list[nn.Parameter] = []
        for name, parameter in model["autoencoder"].named_parameters():
            fitted += [parameter] if name.startswith(("told.", "shown.")) else []
        known = {id(parameter) for parameter in fitted}
        others = [p for p in model["autoencoder"].parameters() if id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": others}]
        groups += [{"params": fitted, "lr": min(lr, FITTED_RATE)}] if fitted else []
        return {"main": Adam(groups, lr, betas=(0.5, 0.9))}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """Absolute and squared error of the pixels, and what keeps the latent in order."""
        s, image = self.settings, batch["frames"][:, 0]
        if s.colours:  # not in the paper: few faces have few colours
            image = recolour(image, s.colours, rng)
        result, order = model["autoencoder"].reconstruct(image, rng)
        error = result - image
        absolute, square = error.abs().mean(), error.square().mean()
        total = absolute + s.weight_square * square + s.weight_code * order
        return Losses(total, {"l1": absolute.detach(), "l2": square.detach(), "order": order.detach()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """PSNR [B] in dB of D(E(x)), beside bicubic interpolation from as many pixels as the latent has places."""
        image, autoencoder = batch["frames"][:, 0], model["autoencoder"]
        result = autoencoder.decode(autoencoder.encode(image))
        few = bicubic_from_grid(image, image.shape[-1] // autoencoder.factor)
        return {
            "psnr": psnr(result, image),
            "psnr_bicubic": psnr(few, image),
            "l1": (result - image).abs().mean((1, 2, 3)),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Faces, D(E(x)) below each, bicubic below that."""
        image, autoencoder = batch["frames"][:8, 0], model["autoencoder"]
        result = autoencoder.decode(autoencoder.encode(image))
        return contact_sheet([image, result, bicubic_from_grid(image, image.shape[-1] // autoencoder.factor)])


def recolour(image: Tensor, amount: float, rng: torch.Generator) -> Tensor:
    """Pictures [B, 3, S, S], half of them mirrored, each channel's contrast and brightness changed, within [-1, 1]."""
    items = len(image)
    scale, shift = ((torch.rand(items, 6, generator=rng) * 2 - 1) * amount).to(image).chunk(2, 1)
    mirrored = (torch.rand(items, generator=rng) < 0.5).to(image.device)[:, None, None, None]
    image = torch.where(mirrored, image.flip(-1), image)
    return (image * (1 + scale[..., None, None]) + shift[..., None, None]).clamp(-1, 1)
