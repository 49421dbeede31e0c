"""φ_id, φ_m of eq. (11) and the motion wrapper G_w of eq. (12)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.see_the_speaker.style_blocks import StyleBlock


class CodeEncoder(ModelMixin, ConfigMixin):
    """φ_id or φ_m of eq. (11): an MLP on the pooled latent map.

    The map is squeezed to ``squeezed`` channels and pooled to ``pool`` x ``pool`` places, not to one,
    because where things are *is* the motion.  # not in the paper: the size of the pooled map
    """

    @register_to_config
    def __init__(self, inputs: int = 64, squeezed: int = 16, pool: int = 8, hidden: int = 128, width: int = 32) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.mlp = nn.Sequential(
            nn.Linear(squeezed * pool * pool, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, width),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Latent maps [B, inputs, g, g] -> codes [B, width]."""
        side = latent.shape[-1]
        pooled = F.avg_pool2d(self.squeeze(latent), side // self.config.pool)
        return self.mlp(pooled.flatten(1))


class MotionWrapper(ModelMixin, ConfigMixin):
    """G_w: codes z_id, z_m to the flow from I_s to I_t and the occlusion map o, by style blocks (§IV-D).

    ``channels``: of the style blocks, from 4 x 4 places up, each twice the size of the one before. From
    ``grid`` on every size adds to flow and occlusion, as LIA's flow fields do.
    """

    @register_to_config
    def __init__(
        self,
        width_id: int = 32,
        width_m: int = 32,
        style: int = 64,
        grid: int = 16,
        channels: Sequence[int] = (64, 64, 48, 32),
    ) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.mapping = nn.Sequential(
            nn.Linear(width_id + width_m, style), nn.LeakyReLU(0.2), nn.Linear(style, style), nn.LeakyReLU(0.2)
        )
        self.blocks = nn.ModuleList([StyleBlock(a, b, style) for a, b in pairwise(channels)])
        sides = [8 * 2**i for i in range(len(self.blocks))]
        self.heads = nn.ModuleList(
            [nn.Conv2d(c, 3, 3, padding=1) if side >= grid else nn.Identity() for side, c in zip(sides, channels[1:])]
        )
        self.sides = sides
        for head in self.heads:
            if isinstance(head, nn.Conv2d):  # zero flow, open occlusion: training starts from copying the source
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)

    def forward(self, z_id: Tensor, z_m: Tensor) -> tuple[Tensor, Tensor]:
        """``z_id`` [B, d_id], ``z_m`` [B, d_m] -> flow [B, 2, f, f] in half sides, logit of o [B, 1, f, f]."""
        style = self.mapping(torch.cat([z_id, z_m], 1))
        x = self.constant.expand(len(style), -1, -1, -1)
        total: Tensor | None = None
        for block, head in zip(self.blocks, self.heads):
            x = block(x, style)
            if isinstance(head, nn.Conv2d):
                here = head(x)
                if total is not None:
                    here = here + F.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
                total = here
        assert total is not None
        # Flow in steps of a tenth: at Adam's 2e-3 the first steps else move the picture by whole features.
        return total[:, :2] * 0.1, total[:, 2:] + 4.0  # sigmoid(4) = 0.98: visible
