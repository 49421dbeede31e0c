"""P_a2nl: a transformer that denoises non-lip motion given speech, and its autoregressive rival (§3.2, Fig. 3)."""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.common.geometry import REST


class Prior(ModelMixin, ConfigMixin):
    """What both priors share: standardised motion, the window's length, and where speech enters.

    Motion is standardised as displacement from the window's first frame where ``relative``.
    """

    mean: Tensor
    deviation: Tensor
    positions: Tensor

    def _make_common(self, dim_nl: int, dim_a: int, width: int, layers: int, heads: int, hidden: int, ins: int) -> None:
        self.speech = nn.Linear(dim_a, width // 2)
        self.motion = nn.Linear(ins, width // 2)
        layer = nn.TransformerEncoderLayer(
            width, heads, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Linear(width, dim_nl)
        self.register_buffer("mean", torch.zeros(dim_nl))
        self.register_buffer("deviation", torch.ones(dim_nl))
        frames = self.config.frames
        self.register_buffer("positions", sinusoids(torch.arange(frames), width), persistent=False)

    def standardise(self, n: Tensor, reference: Tensor) -> Tensor:
        """Motion [B, L, d] as the network sees it; ``reference`` [B, d] is the window's first frame."""
        shift = reference[:, None] if self.config.relative else 0
        return (n - shift - self.mean) / self.deviation

    def restore(self, x: Tensor, reference: Tensor) -> Tensor:
        """The inverse of :meth:`standardise`."""
        shift = reference[:, None] if self.config.relative else 0
        return x * self.deviation + self.mean + shift


class DiffusionPrior(Prior):
    """Predicts n^0 from n^t: eq. (7). The defaults are the paper's.

    ``frames``: L; ``steps``: of sampling; ``guidance``: s of eq. (10) where none is asked for; ``editing``: whether it
    was trained with tokens shown.
    """

    step: Tensor

    @register_to_config
    def __init__(
        self,
        dim_nl: int = 128,
        dim_a: int = 512,
        width: int = 512,
        layers: int = 8,
        heads: int = 8,
        hidden: int = 1024,
        frames: int = 128,
        relative: bool = False,
        steps: int = 50,
        guidance: float = 1.5,
        editing: bool = True,
    ) -> None:
        super().__init__()
        # n^t, the tokens shown, and which are
        self._make_common(dim_nl, dim_a, width, layers, heads, hidden, 2 * dim_nl + 1)
        self.register_buffer("step", torch.ones(len(REST)))  # deviation of the changes of what is read from f_nl
        self.nothing = nn.Parameter(torch.zeros(width // 2))  # the condition ∅
        self.level = nn.Linear(dim_nl, width // 2)
        self.time = nn.Sequential(nn.Linear(width // 2, width // 2), nn.SiLU(), nn.Linear(width // 2, width // 2))

    def forward(
        self, n_t: Tensor, t: Tensor, f_a: Tensor, told: Tensor, shown: Tensor, mask: Tensor, reference: Tensor
    ) -> Tensor:
        """Denoised motion n̂^0 [B, L, d], standardised.

        ``n_t`` [B, L, d] standardised and noised to time ``t`` int64 [B]; ``f_a`` [B, L, d_a]; ``told`` [B] 1 where the
        speech is given, 0 for ∅; ``shown`` [B, L, d] clean motion, heeded where ``mask`` [B, L] is 1; ``reference``
        [B, d] motion of the window's first frame, as it is.
        """
        speech = torch.where(told[:, None, None] > 0, self.speech(f_a), self.nothing)
        moment = self.time(sinusoids(t, speech.shape[-1]).to(speech)) + self.level(self._level(reference))
        known = mask[..., None].to(n_t)
        motion = self.motion(torch.cat([n_t, shown * known, known], -1))
        # Fig. 3: speech with the time added, beside the motion, and positions added to both
        tokens = torch.cat([speech + moment[:, None], motion], -1) + self.positions[: n_t.shape[1]]
        return self.out(self.body(tokens))

    def _level(self, reference: Tensor) -> Tensor:
        # where displacements start from; nothing where motion is taken as it is
        return reference / self.deviation if self.config.relative else torch.zeros_like(reference)


class AutoregressivePrior(Prior):
    """The paper's own baseline ("Ours + AR"): causal attention, the next frame from those before and the speech."""

    @register_to_config
    def __init__(
        self,
        dim_nl: int = 128,
        dim_a: int = 512,
        width: int = 512,
        layers: int = 8,
        heads: int = 8,
        hidden: int = 1024,
        frames: int = 128,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self._make_common(dim_nl, dim_a, width, layers, heads, hidden, dim_nl)

    def forward(self, before: Tensor, f_a: Tensor) -> Tensor:
        """Frames 1 to m of the window from those one earlier.

        ``before`` [B, m, d] standardised frames 0 to m - 1; ``f_a`` [B, m, d_a] speech of frames 1 to m -> [B, m, d].
        """
        count = before.shape[1]
        tokens = torch.cat([self.speech(f_a), self.motion(before)], -1) + self.positions[:count]
        causal = nn.Transformer.generate_square_subsequent_mask(count, device=before.device, dtype=before.dtype)
        return before + self.out(self.body(tokens, mask=causal, is_causal=True))


def sinusoids(place: Tensor, width: int) -> Tensor:
    """Embedding of places or times [n] as sines and cosines (Vaswani et al. 2017): [n, width]."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=place.device) / (width // 2))
    angle = place[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], -1).to(torch.get_default_dtype())
