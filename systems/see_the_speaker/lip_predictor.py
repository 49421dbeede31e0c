"""The network audio -> pose-free lips, in the place of AniPortrait's audio2lmk (§III-B1, §IV-D)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.see_the_speaker.lip_refiner import LIP_POINTS
from systems.see_the_speaker.speech_features import SpeechFeatures, SpeechKind


class LipPredictor(ModelMixin, ConfigMixin):
    """Speech features, then convolutions over time that use up the context; offsets from the mean lips.

    ``context``: frames of sound heard on each side of a frame; what lies further off changes nothing.
    """

    mean: Tensor
    deviation: Tensor

    @register_to_config
    def __init__(
        self,
        speech: SpeechKind = "mel",
        transformer: Mapping[str, Any] | None = None,
        pair: Literal["mean", "concat"] = "mean",
        hidden: int = 96,
        context: int = 6,
    ) -> None:
        super().__init__()
        if context % 2:
            raise ValueError("context must be even: each convolution hears two frames to each side")
        self.features = SpeechFeatures(speech, transformer, pair)
        self.entry = nn.Linear(self.features.width, hidden)
        self.convolutions = nn.ModuleList([nn.Conv1d(hidden, hidden, 5) for _ in range(context // 2)])
        self.norms = nn.ModuleList([nn.LayerNorm(hidden) for _ in range(context // 2)])
        self.out = nn.Linear(hidden, LIP_POINTS * 2)
        nn.init.zeros_(self.out.weight)  # the mean lips, before anything is learnt
        nn.init.zeros_(self.out.bias)
        self.register_buffer("mean", torch.zeros(LIP_POINTS, 2))
        self.register_buffer("deviation", torch.ones(LIP_POINTS, 2))

    def offsets(
        self, audio: Tensor, voice: Tensor, bands: Tensor | None = None, drop: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Standardised offsets from the mean lips [B, T, 40, 2]; ``audio`` and ``voice`` as in :meth:`forward`.

        In training ``bands`` int64 [B] moves the voices, and ``drop`` leaves hidden numbers out.
        """
        drop = drop or nn.Identity()
        x = drop(F.gelu(self.entry(self.features(audio, voice, bands))))
        for convolution, norm in zip(self.convolutions, self.norms):
            y = drop(F.gelu(convolution(norm(x).transpose(1, 2))).transpose(1, 2))
            x = x[:, 2:-2] + y
        return self.out(x).unflatten(-1, (LIP_POINTS, 2))

    def forward(self, audio: Tensor, voice: Tensor) -> Tensor:
        """``audio`` [B, 640 (T + 2 context)] in [-1, 1] -> pose-free lips [B, T, 40, 2] in head sizes.

        ``voice`` [B, 80]: ``contracts.speech.voice_level`` of the recordings that it was cut from.
        """
        return self.mean + self.deviation * self.offsets(audio, voice)
