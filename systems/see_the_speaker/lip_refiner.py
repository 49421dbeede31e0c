"""Lip guider and lip refiner G_R of eq. (13)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.equalised import EqualConv, EqualLinear
from systems.common.landmarks import HEAD_FRAME, place_lips

LIP_POINTS = 40  # the outer ring of 20, then the inner
MOUTH_PIXELS = (12, 18)  # rows, columns
RIDGE = 0.1


class LipGuider(ModelMixin, ConfigMixin):
    """Lip landmarks to the lip guidance z_l: the lips are drawn and convolved, as AniPortrait's guider does.

    Pose lives in z_m alone at inference and lips are pose-free, so where to draw them is read from the codes
    by one linear layer (``place``).  # not in the paper: how pose-free lips find their place
    """

    mean_frame: Tensor
    mean_lips: Tensor
    deviation_lips: Tensor
    reading: Tensor

    @register_to_config
    def __init__(
        self, width_id: int = 32, width_m: int = 32, grid: int = 16, hidden: int = 16, width: int = 32
    ) -> None:
        super().__init__()
        self.register_buffer("mean_frame", torch.tensor([0.5, 0.5, -1.5, 0.0]))
        self.register_buffer("mean_lips", torch.zeros(LIP_POINTS, 2))
        self.register_buffer("deviation_lips", torch.ones(LIP_POINTS, 2))
        self.place_head = EqualLinear(width_id + width_m, HEAD_FRAME, zero=True)
        # from the mouth's pixels to deviations: of the lips that it shows, then of those it has on the average
        self.register_buffer("reading", torch.zeros(3 * MOUTH_PIXELS[0] * MOUTH_PIXELS[1], 4 * LIP_POINTS))
        self.shape = nn.Sequential(EqualLinear(LIP_POINTS * 2, width), nn.LeakyReLU(0.2), EqualLinear(width, width))
        self.draw_in = EqualConv(3, hidden, stride=2)  # 4 grid -> 2 grid
        self.fine = EqualConv(hidden, hidden)
        self.coarse = EqualConv(hidden, width, stride=2)  # 2 grid -> grid

    def place(self, z_id: Tensor, z_m: Tensor) -> Tensor:
        """Head frame [B, 4] (x, y, log size, angle in 0..1 of the picture) of the face that the codes describe."""
        return self.mean_frame + 0.3 * self.place_head(torch.cat([z_id, z_m], 1))

    def read(self, image: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Lips of ``image`` [B, 3, S, S] with the head frame [B, 4]: its own, and this person's on the average.

        Pose-free, [B, 40, 2] each.  # not in the paper: no landmarks are at hand where a portrait is served
        """
        read = (self._pixels(image, frame) @ self.reading).unflatten(1, (2, LIP_POINTS, 2))
        own, rest = (self.mean_lips + self.deviation_lips * read).unbind(1)
        return own, rest

    @torch.no_grad()
    def learn_to_read(self, image: Tensor, frame: Tensor, own: Tensor, other: Tensor) -> None:
        """Fit :meth:`read` by ridge regression to the ``own`` lips [N, 40, 2] and to those of ``other`` frames.

        What can be told of another frame's lips is the person's mean.  # not in the paper; closed form, because
        gradients need thousands of steps for it
        """
        x = self._pixels(image, frame).double()
        y = ((torch.stack([own, other], 1) - self.mean_lips) / self.deviation_lips).flatten(1).double()
        gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1]).to(x)
        self.reading.copy_(torch.linalg.solve(gram, x.T @ y))

    def _pixels(self, image: Tensor, frame: Tensor) -> Tensor:
        """The mouth's surroundings upright and of one size, light and contrast removed: [B, 3 * pixels]."""
        middle = self.mean_lips.mean(0)
        tall, wide = (torch.linspace(-1, 1, n).to(image) for n in MOUTH_PIXELS)
        place = torch.stack(torch.meshgrid(0.6 * wide, 0.4 * tall, indexing="xy"), -1).flatten(0, 1)
        placed = place_lips((middle + place).expand(len(image), -1, -1), frame)
        seen = F.grid_sample(image, (2 * placed - 1)[:, None], padding_mode="border", align_corners=False)[:, :, 0]
        seen = seen - seen.mean(2, keepdim=True)
        return (seen / seen.square().mean((1, 2), keepdim=True).add(1e-4).sqrt()).flatten(1)

    def forward(self, lips: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pose-free ``lips`` [B, 40, 2], head ``frame`` [B, 4] -> z_l in three parts.

        At the grid [B, width, g, g], at twice the grid [B, hidden, 2 g, 2 g], and the lip region
        [B, 1, 2 g, 2 g] in 0..1, outside of which nothing is refined.
        """
        side = 4 * self.config.grid
        placed = place_lips(lips, frame)
        fine = F.leaky_relu(self.draw_in(_draw(placed, side)), 0.2)
        fine = F.leaky_relu(self.fine(fine), 0.2)
        shape = self.shape(((lips - self.mean_lips) / self.deviation_lips).flatten(1))
        coarse = F.leaky_relu(self.coarse(fine) + shape[:, :, None, None], 0.2)
        return coarse, fine, _region(placed, frame, 2 * self.config.grid)


class LipRefiner(ModelMixin, ConfigMixin):
    """G_R of eq. (13): z_wr = G_R(z_w, z_l); starts as z_wr = z_w.

    The decoder also reads finer maps than z_w (``ImageDecoder``), which would carry the source's mouth past
    G_R; so G_R also returns a flow for these, within the lip region.  # not in the paper: the lips' own flow
    """

    @register_to_config
    def __init__(self, channels: int = 64, guidance: int = 32, guidance_fine: int = 16, hidden: int = 48) -> None:
        super().__init__()
        self.first = EqualConv(channels + guidance, hidden)
        self.second = EqualConv(hidden, hidden)
        self.out = EqualConv(hidden, channels, zero=True)
        self.flow_in = EqualConv(hidden + guidance_fine, guidance_fine)
        self.flow_out = EqualConv(guidance_fine, 2, zero=True)
        self.inside = nn.Parameter(torch.tensor([-0.55, -0.8, -0.8]))  # a dark red, of a mouth never seen open

    def forward(self, z_w: Tensor, z_l: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """``z_w`` [B, C, g, g], ``z_l`` as the guider's -> z_wr [B, C, g, g], the lips' flow [B, 2, 2 g, 2 g]."""
        coarse, fine, region = z_l
        x = F.leaky_relu(self.first(torch.cat([z_w, coarse], 1)), 0.2)
        x = F.leaky_relu(self.second(x), 0.2)
        z_wr = z_w + F.avg_pool2d(region, 2) * self.out(x)  # eq. (13), §III-B1
        y = F.interpolate(x, scale_factor=2, mode="nearest")
        y = F.leaky_relu(self.flow_in(torch.cat([y, fine], 1)), 0.2)
        return z_wr, 0.3 * region * self.flow_out(y)


def _draw(placed: Tensor, side: int) -> Tensor:
    """Placed lips [B, 40, 2] as a picture [B, 3, side, side]: outer ring, inner ring, height of the opening."""
    centre = (torch.arange(side, device=placed.device, dtype=placed.dtype) + 0.5) / side
    width = 0.8 / side  # of a point
    x = torch.exp(-(((centre - placed[..., :1]) / width) ** 2) / 2)  # [B, 40, side]
    y = torch.exp(-(((centre - placed[..., 1:]) / width) ** 2) / 2)
    rings = [torch.einsum("bph,bpw->bhw", y[:, part], x[:, part]) for part in (slice(0, 20), slice(20, 40))]
    inner = placed[:, 20:]
    low, high = inner.amin(1), inner.amax(1)
    # The mouth's inside as a soft box: its height is what the rings show only as a gap.
    inside = [
        torch.sigmoid((centre - low[:, a : a + 1]) / width) * torch.sigmoid((high[:, a : a + 1] - centre) / width)
        for a in (0, 1)
    ]
    return torch.stack([*(ring.clamp_max(2.0) for ring in rings), inside[1][:, :, None] * inside[0][:, None, :]], 1)


def _region(placed: Tensor, frame: Tensor, side: int) -> Tensor:
    """Where lips and jaw may be: a soft disc [B, 1, side, side] of 0.6 head sizes round the lips' middle."""
    centre = (torch.arange(side, device=placed.device, dtype=placed.dtype) + 0.5) / side
    middle, radius = placed.mean(1), 0.6 * frame[:, 2].exp()
    x = ((centre - middle[:, :1]) / radius[:, None]) ** 2
    y = ((centre - middle[:, 1:]) / radius[:, None]) ** 2
    return torch.exp(-((x[:, None, :] + y[:, :, None]) ** 2))[:, None]
