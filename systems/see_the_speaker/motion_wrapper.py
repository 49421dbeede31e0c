"""φ_id, φ_m of eq. (11) and the motion wrapper G_w of eq. (12)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.equalised import EqualConv, EqualLinear
from systems.common.style_blocks import StyleBlock

PLACE_GAIN = 16.0  # places move by a fiftieth of the picture, averages are of unit size


class CodeEncoder(ModelMixin, ConfigMixin):
    """φ_id or φ_m of eq. (11): an MLP on the pooled latent map.

    The map is squeezed to ``squeezed`` channels and pooled to ``pool`` x ``pool`` places, not to one, because
    where things are *is* the motion.  # not in the paper: the size of the pooled map
    Beside the MLP runs a linear way, and the MLP starts at nothing: the difference of two frames' pooled maps
    tells their motion linearly, and the MLP alone needs thousands of steps to find that.  # not in the paper
    """

    @register_to_config
    def __init__(self, inputs: int = 64, squeezed: int = 16, pool: int = 8, hidden: int = 128, width: int = 32) -> None:
        super().__init__()
        pooled = squeezed * pool * pool
        self.squeeze = EqualConv(inputs, squeezed, 1)
        self.linear = nn.Linear(pooled, width)  # not equalised: 2e-3 is what learns here
        self.mlp = nn.Sequential(
            EqualLinear(pooled, hidden),
            nn.LeakyReLU(0.2),
            EqualLinear(hidden, hidden),
            nn.LeakyReLU(0.2),
            EqualLinear(hidden, width, zero=True),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Latent maps [B, inputs, g, g] -> codes [B, width]."""
        pooled = F.avg_pool2d(self.squeeze(latent), latent.shape[-1] // self.config.pool).flatten(1)
        return self.linear(pooled) + self.mlp(pooled)


class MotionWrapper(ModelMixin, ConfigMixin):
    """G_w: codes z_id, z_m to the flow from I_s to I_t and the occlusion map o, by style blocks (§IV-D).

    ``channels``: of the style blocks, from 4 x 4 places up, each twice the size of the one before. From
    ``grid`` on every size adds to flow and occlusion, as LIA's flow fields do.

    ``relative``: what is read is z_m less the source's own motion code (:meth:`displacement`). What two frames
    of one video share then cancels; else the first thing learnt is which speaker moved how.
    # not in the paper: the source's own pose has to come from z_id there
    """

    @register_to_config
    def __init__(
        self,
        width_id: int = 32,
        width_m: int = 32,
        style: int = 64,
        grid: int = 16,
        channels: Sequence[int] = (64, 64, 48, 32),
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.mapping = nn.Sequential(
            EqualLinear(width_id + width_m, style), nn.LeakyReLU(0.2), EqualLinear(style, style), nn.LeakyReLU(0.2)
        )
        if relative:
            with torch.no_grad():  # displacements are small beside codes, and all there is to tell at first
                self.mapping[0].weight[:, :width_id] = 0.0
                self.mapping[0].weight[:, width_id:] *= 4.0
        self.blocks = nn.ModuleList([StyleBlock(a, b, style) for a, b in pairwise(channels)])
        sides = [8 * 2**i for i in range(len(self.blocks))]
        # zero flow, open occlusion: training starts from copying the source
        self.heads = nn.ModuleList(
            [EqualConv(c, 3, zero=True) if side >= grid else nn.Identity() for side, c in zip(sides, channels[1:])]
        )
        self.sides = sides

    def displacement(self, z_m: Tensor, source: Tensor) -> Tensor:
        """What stands for ``z_m`` [B, d_m] given the source's own motion code [B, d_m]."""
        return z_m - source if self.config.relative else z_m

    def forward(self, z_id: Tensor, z_m: Tensor) -> tuple[Tensor, Tensor]:
        """``z_id`` [B, d_id], ``z_m`` [B, d_m] (or its displacement) -> flow and occlusion.

        Flow [B, 2, f, f] in half sides; the logit of o [B, 1, f, f].
        """
        style = self.mapping(torch.cat([z_id, z_m], 1))
        x = self.constant.expand(len(style), -1, -1, -1)
        total: Tensor | None = None
        for block, head in zip(self.blocks, self.heads):
            x = block(x, style)
            if isinstance(head, EqualConv):
                here = head(x)
                if total is not None:
                    here = here + F.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
                total = here
        assert total is not None
        return total[:, :2] * 0.5, total[:, 2:] + 4.0  # sigmoid(4) = 0.98: visible
