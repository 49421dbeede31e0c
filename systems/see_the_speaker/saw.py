"""Sample-adaptive weighting (SAW): how much of the face prior each voice gets (§III-A2, Fig. 4, Table V)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

BETA_0 = 0.01  # §V-A2: the sample-equivalent weight β⁰
Prior = Literal["none", "constant", "linear", "attention"]
PriorAt = Literal["every_step", "start"]


class SampleAdaptiveWeighting(ModelMixin, ConfigMixin):
    """The shift β ⊙ z^p that the denoiser's input gets.

    ``prior``: ``none``; ``constant`` β⁰; ``linear``, the paper's; ``attention``, its costlier variant:
    one self-attention over the tokens [z^s, z^p], read at z^p. ``prior_at`` **[ours]**: §III-A2 speaks
    both of the noise that sampling starts from (eqs. (6), (9)) and of every noised z^t (eq. (7));
    ``every_step`` shifts them all, ``start`` the first of ``steps`` alone.
    """

    @register_to_config
    def __init__(
        self,
        dim: int = 4096,
        prior: Prior = "linear",
        prior_at: PriorAt = "every_step",
        steps: int = 50,
        times: int = 1000,
    ) -> None:
        super().__init__()
        if prior == "linear":
            self.w_s = nn.Linear(dim, dim, bias=False)
            self.w_p = nn.Linear(dim, dim)  # its bias is b
            # not in the paper: starts as the constant weight β⁰, from which it learns to differ
            nn.init.zeros_(self.w_s.weight)
            nn.init.zeros_(self.w_p.weight)
            nn.init.constant_(self.w_p.bias, BETA_0)
        elif prior == "attention":
            self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
            nn.init.zeros_(self.out.weight)
            nn.init.constant_(self.out.bias, BETA_0)

    def weight(self, z_s: Tensor, z_p: Tensor) -> Tensor:
        """β [B, d] for voices ``z_s`` [B, d] and the prior ``z_p`` [d]."""
        z_p = z_p.expand_as(z_s)
        match self.config.prior:
            case "none":
                return torch.zeros_like(z_s)
            case "constant":
                return torch.full_like(z_s, BETA_0)
            case "linear":
                return self.w_s(z_s) + self.w_p(z_p)  # eq. (8), §III-A2
        tokens = torch.stack([z_s, z_p], 1)  # Table V's attention variant
        scores = self.query(tokens) @ self.key(tokens).transpose(1, 2) / math.sqrt(self.config.dim)
        return self.out(scores.softmax(-1) @ self.value(tokens))[:, 1]

    def forward(self, z_s: Tensor, z_p: Tensor, t: Tensor) -> Tensor:
        """β ⊙ z^p [B, d] at times ``t`` int64 [B]: what is added to z^t in eq. (9)."""
        shift = self.weight(z_s, z_p) * z_p
        if self.config.prior_at == "start":
            first = t >= self.config.times - self.config.times // self.config.steps
            shift = shift * first.to(shift.dtype)[:, None]
        return shift


class SpeechTokens(ModelMixin, ConfigMixin):
    """z^s [B, d] as the tokens [B, ``tokens``, ``width``] that the UNet attends to: cut up, one Linear for all."""

    @register_to_config
    def __init__(self, dim: int = 4096, tokens: int = 16, width: int = 256) -> None:
        super().__init__()
        if dim % tokens:
            raise ValueError(f"z^s of {dim} dimensions cannot be cut into {tokens} equal tokens")
        self.project = nn.Linear(dim // tokens, width)

    def forward(self, z_s: Tensor) -> Tensor:
        """Tokens [B, tokens, width]."""
        return self.project(z_s.unflatten(1, (self.config.tokens, -1)))
