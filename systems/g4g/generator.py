"""The alignment-deformation network: a source face, five references and a sound to the dubbed face (Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.g4g.alignment import IntraAlignment
from systems.g4g.deformation import Coefficients, deform
from systems.g4g.expert import AudioEncoder
from systems.g4g.layers import Up, shrinking
from systems.g4g.regions import soft_mask
from systems.g4g.sketch import draw_sketch

REFERENCES = 5  # §3.1.1
POOLED = 4  # places a side of a map from which its feature is read


class FeatureEncoder(nn.Module):
    """A picture to its map and its feature: E_s, E_r and E_l."""

    def __init__(self, inputs: int, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.body = shrinking(inputs, channels)
        self.out = nn.Linear(channels[-1] * POOLED**2, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, inputs, H, W] -> map [B, c, h, w] and feature [B, d]."""
        maps = self.body(x)
        return maps, self.out(F.adaptive_avg_pool2d(maps, POOLED).flatten(1))


class BlendNet(nn.Module):
    """Fuses and amends the composite: an amended face, and how far each pixel is taken from it (§3.2).

    It adds no residual to pixels ("unlike traditional methods"); it starts near the composite.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = shrinking(4, (channels, 2 * channels))
        self.up = Up(2 * channels, channels)
        self.out = nn.Conv2d(channels, 4, 3, padding=1)
        with torch.no_grad():
            self.out.bias[3] = -3.0

    def forward(self, composite: Tensor, mask: Tensor) -> Tensor:
        """The composite [B, 3, H, W] and its mask [1, H, W] -> the final face [B, 3, H, W]."""
        x = self.up(self.down(torch.cat([composite, mask.expand(len(composite), -1, -1, -1)], 1)))
        amended, share = self.out(x).split((3, 1), 1)
        share = share.sigmoid()
        return share * amended.tanh() + (1 - share) * composite


@dataclass
class Known:
    """What is known of a person from the references, once per clip."""

    maps: Tensor  # F_ref [B, 256, h, w]
    i_r: Tensor  # [B, d]
    l_r: Tensor  # [B, d]
    mean: Tensor  # of the references, [B, 3, H, W]

    def repeat(self, frames: int) -> Known:
        """Each item's ``frames`` times in a row."""
        return Known(*(x.repeat_interleave(frames, 0) for x in (self.maps, self.i_r, self.l_r, self.mean)))


@dataclass
class Dubbed:
    """A dubbed face and the features that losses look at."""

    face: Tensor  # I_o [B, 3, H, W]
    aligned: Tensor  # ī_align [B, d]
    a: Tensor  # [B, d]


class G4GGenerator(ModelMixin, ConfigMixin):
    """Encoders (1)-(4), alignment (5), deformation (11), decoder, Gaussian composite and blend net.

    ``size``: height of the face; ``channels``: of E_s, from full size down; ``deformed``: C of F_ref, 256 in the
    paper; ``width``: d. ``align`` and ``fusion`` off are ablations of Table 2. ``copy_references``: the decoder paints
    onto the references' mean, which short training starts from.
    """

    mask: Tensor
    copy_error: Tensor

    @register_to_config
    def __init__(
        self,
        size: int = 104,
        channels: Sequence[int] = (12, 24, 48),
        deformed: int = 48,
        audio_channels: Sequence[int] = (12, 24, 48),
        width: int = 64,
        joined: int = 8,
        blocks: int = 2,
        hidden: int = 128,
        blend: int = 8,
        align: bool = True,
        fusion: bool = True,
        copy_references: bool = True,
    ) -> None:
        super().__init__()
        self.e_s = FeatureEncoder(3, channels, width)
        self.e_r = FeatureEncoder(3 * REFERENCES, (*channels[:-1], deformed), width)
        self.e_l = FeatureEncoder(1, channels, width)
        self.e_a = AudioEncoder(audio_channels, width)
        self.intra = IntraAlignment(width, joined, blocks, align)
        self.coefficients = Coefficients(2 * width, hidden, deformed)
        self.entry = nn.Conv2d(channels[-1] + deformed, channels[-1], 3, padding=1)
        self.ups = nn.Sequential(*[Up(a, b) for a, b in pairwise(channels[::-1])])
        self.paint = nn.Conv2d(channels[0], 3, 3, padding=1)
        if copy_references:
            nn.init.normal_(self.paint.weight, std=1e-3)
            nn.init.zeros_(self.paint.bias)
        self.blend_net = BlendNet(blend) if fusion else None
        self.register_buffer("mask", soft_mask(size))
        self.register_buffer("copy_error", torch.tensor(0.0))  # median over training clips, for the bar

    def know(self, references: Tensor, landmarks: Tensor) -> Known:
        """From reference faces [B, 5, 3, H, W] in [-1, 1] and the landmarks [B, 478, 2] of one of them."""
        height, width = references.shape[-2:]
        maps, i_r = self.e_r(references.flatten(1, 2))  # eq. (3), §3.1.1
        _, l_r = self.e_l(draw_sketch(landmarks, height, width))  # eq. (4), §3.1.1
        return Known(maps, i_r, l_r, references.mean(1))

    def forward(self, source: Tensor, known: Known, mel: Tensor) -> Dubbed:
        """Source faces [B, 3, H, W] in [-1, 1], their persons, log-mel A [B, 16, 80] -> dubbed faces.

        Of the source's mouth nothing is read: where the mask is 1 no pixel of it changes the result.
        """
        occluded = source * (self.mask == 0)
        f_s, i_s = self.e_s(occluded)  # eq. (2), §3.1.1
        a = self.e_a(mel)
        aligned = self.intra(i_s, known.i_r, known.l_r)
        f_d = deform(known.maps, *self.coefficients(torch.cat([aligned, a], 1)))
        painted = self.paint(self.ups(F.leaky_relu(self.entry(torch.cat([f_s, f_d], 1)), 0.2)))
        face = known.mean + painted if self.config.copy_references else painted.tanh()
        face = self.composite(face, source)
        if self.blend_net is not None:
            face = self.composite(self.blend_net(face, self.mask), source)
        return Dubbed(face, aligned, a)

    def composite(self, face: Tensor, source: Tensor) -> Tensor:
        """The face within the smoothed mask, the source without, to the bit."""
        return torch.where(self.mask > 0, self.mask * face + (1 - self.mask) * source, source)
