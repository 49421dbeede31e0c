"""Speech to portrait: what the three SCFP stages do together at inference (§III-A)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PortraitGenerator:
    """Draws a face for a voice.

    ``conre``, ``face_prior``, ``portrait_diffusion``: the stages' networks as ``Stage.load`` gives them.
    """

    def __init__(self, conre: nn.ModuleDict, face_prior: nn.ModuleDict, portrait_diffusion: nn.ModuleDict) -> None:
        self.conre = conre
        self.face_prior = face_prior
        self.portrait_diffusion = portrait_diffusion

    @torch.no_grad()
    def __call__(self, spectrogram: Tensor, seeds: Sequence[int], steps: int | None = None) -> Tensor:
        """Portraits [B, 3, S, S] in [-1, 1] for speech ``spectrogram`` [B, 2, 257, 598].

        ``seeds``: one per item, the only source of its noise, so that a batch of two is two of one.
        ``steps``: denoising steps; None takes the number that the stage was trained for. S is the size of
        the faces that E_f reads (224 at ``paper``).
        """
        raise NotImplementedError
