"""The latent space of §III-A: a published autoencoder, or one of the same build that is trained here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin, VQModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from contracts.errors import Misuse
from systems.common.linear import fit_patches, patch_painter, principal

Kind = Literal["vq", "kl"]
LOG_VARIANCE = -8.0  # of the latent where the linear ways start
BUILDS: dict[str, Any] = {"vq": VQModel, "kl": AutoencoderKL}


class LatentAutoencoder(ModelMixin, ConfigMixin):
    """E and D of §III-A over diffusers' ``VQModel`` or ``AutoencoderKL``, whose configuration it keeps as ``sizes``.

    ``linear`` (``kl``): beside E and D run linear ways between patches and latent, which start from the principal
    components of training patches, while the networks start from nothing.  # not in the paper: normalisation
    over groups takes the colours out of a face, and short training does not bring them back
    """

    @register_to_config
    def __init__(self, kind: Kind = "vq", sizes: Mapping[str, Any] | None = None, linear: bool = False) -> None:
        super().__init__()
        self.network = BUILDS[kind](**dict(sizes or {}))
        if not linear:
            return
        self.told = nn.Conv2d(3, self.channels, self.factor, stride=self.factor)
        self.shown = patch_painter(self.channels, self.factor)
        with torch.no_grad():
            for last in (self.network.quant_conv, self.network.decoder.conv_out):
                last.weight.zero_()
                last.bias.zero_()
            self.network.quant_conv.bias[self.channels :] = LOG_VARIANCE

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Fit the linear ways to pictures [N, 3, S, S]; nothing without them."""
        if not self.config.linear:
            return
        patches = F.pixel_unshuffle(images, self.factor).permute(0, 2, 3, 1).flatten(0, 2)
        mean, directions, deviations = principal(patches, self.channels)
        weight = directions.T / deviations[0].clamp_min(1e-4)
        self.told.weight.copy_(weight.view_as(self.told.weight))
        self.told.bias.copy_(-weight @ mean)
        fit_patches(self.shown, self.told(images), images)

    @property
    def factor(self) -> int:
        """How many pixels' side one place of the latent stands for."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return int(self.network.config.latent_channels)

    def encode(self, image: Tensor) -> Tensor:
        """E: pictures [..., 3, S, S] in [-1, 1] -> z [..., C, S / f, S / f]; of a distribution, its mean."""
        flat = image.flatten(0, -4)
        found = self.network.encode(flat)
        z = found.latents if self.config.kind == "vq" else found.latent_dist.mode()
        if self.config.linear:
            z = z + self.told(flat)
        return z.unflatten(0, image.shape[:-3])

    def decode(self, z: Tensor) -> Tensor:
        """D: z [..., C, s, s] -> pictures [..., 3, s f, s f], about -1..1. ``vq`` takes the nearest codes first."""
        return self._draw(z.flatten(0, -4)).unflatten(0, z.shape[:-3])

    def _draw(self, z: Tensor) -> Tensor:
        drawn: Tensor = self.network.decode(z).sample
        return drawn + F.pixel_shuffle(self.shown(z), self.factor) if self.config.linear else drawn

    def reconstruct(self, image: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """What training compares: D(E(x)) [B, 3, S, S] and the scalar that keeps the latent in order.

        ``kl``: z is drawn from its distribution, the scalar is its divergence from the normal one; ``vq``: the
        codebook's loss.
        """
        found = self.network.encode(image)
        if self.config.kind == "vq":
            return self.network.decode(found.latents, return_dict=False)
        noise = torch.randn(found.latent_dist.mean.shape, generator=rng).to(image)
        drawn = found.latent_dist.mean + found.latent_dist.std * noise
        if self.config.linear:
            drawn = drawn + self.told(image)
        return self._draw(drawn), found.latent_dist.kl().mean() / image[0].numel()

    @classmethod
    def published(cls, path: str) -> LatentAutoencoder:
        """The autoencoder of a folder as diffusers publishes it. Raises ``Misuse`` where there is none of the two."""
        try:
            name = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))["_class_name"]
            kind = next(kind for kind, build in BUILDS.items() if build.__name__ == name)
            network = BUILDS[kind].from_pretrained(path, use_safetensors=True, low_cpu_mem_usage=False)
        except (OSError, ValueError, KeyError, StopIteration) as error:
            told = str(error).splitlines()[:1] or ["another kind of network"]
            raise Misuse(f"weights: {path} holds no VQModel or AutoencoderKL in safetensors: {told[0]}") from None
        found = cls(kind, {name: value for name, value in network.config.items() if not name.startswith("_")})
        found.network = network
        return found


def build(
    kind: Kind,
    channels: tuple[int, ...],
    layers: int,
    groups: int,
    attention: bool,
    latent: int,
    codes: int,
    linear: bool = False,
) -> LatentAutoencoder:
    """One to be trained: ``channels`` per scale, finest first, ``layers`` residual blocks each."""
    scales = len(channels)
    sizes: dict[str, Any] = {
        "block_out_channels": channels,
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "latent_channels": latent,
        "down_block_types": ("DownEncoderBlock2D",) * scales,
        "up_block_types": ("UpDecoderBlock2D",) * scales,
        "mid_block_add_attention": attention,
    }
    return LatentAutoencoder(kind, sizes | ({"num_vq_embeddings": codes} if kind == "vq" else {}), linear)


def lower_half(x: Tensor) -> Tensor:
    """The half below the middle row: [..., H, W] -> [..., H / 2, W]."""
    return x[..., x.shape[-2] // 2 :, :]


def mask_lower(image: Tensor) -> Tensor:
    """Pictures [..., H, W] in [-1, 1] with their lower half grey (0): all that is seen of the mouth's neighbourhood."""
    return torch.cat([image[..., : image.shape[-2] // 2, :], torch.zeros_like(lower_half(image))], -2)


def put_below(above: Tensor, lower: Tensor) -> Tensor:
    """The upper half of ``above`` [..., H, W] over ``lower`` [..., H / 2, W]."""
    return torch.cat([above[..., : above.shape[-2] // 2, :], lower], -2)


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """What an optimiser is given."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
