"""Speech to portrait: what the three SCFP stages do together at inference (§III-A)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from systems.common.noise import normal, seed_generators
from systems.see_the_speaker.denoising import predict_noise, sample


class PortraitGenerator:
    """Draws a face for a voice.

    ``conre``, ``face_prior``, ``portrait_diffusion``: the stages' networks as ``Stage.load`` gives them.
    """

    def __init__(
        self,
        conre: Mapping[str, nn.Module],
        face_prior: Mapping[str, nn.Module],
        portrait_diffusion: Mapping[str, nn.Module],
    ) -> None:
        self.speech_encoder = conre["speech_encoder"]
        self.face_encoder = conre["face_encoder"]
        self.face_decoder = conre["face_decoder"]
        self.z_p = scaled_prior(self.face_encoder, face_prior["prior"])
        self.networks = portrait_diffusion

    @torch.no_grad()
    def __call__(self, spectrogram: Tensor, seeds: Sequence[int], steps: int | None = None) -> Tensor:
        """Portraits [B, 3, S, S] in [-1, 1] for speech ``spectrogram`` [B, 2, 257, 598].

        ``seeds``: one per item, the only source of its noise, so that a batch of two is two of one.
        ``steps``: denoising steps; None takes the number in the stage's config. S is the size of the faces
        that E_f reads (224 at ``paper``).
        """
        if len(seeds) != len(spectrogram):
            raise ValueError(f"{len(spectrogram)} spectrograms need as many seeds, not {len(seeds)}")
        noise = normal(seed_generators(seeds), len(self.z_p)).to(spectrogram)
        return self.draw(self.speech_encoder.code(spectrogram), noise, steps)

    def draw(self, z_s: Tensor, noise: Tensor, steps: int | None = None) -> Tensor:
        """Portraits [B, 3, S, S] for voices ``z_s`` and ``noise``, both [B, d]."""

        def predict(z_t: Tensor, t: Tensor) -> Tensor:
            return predict_noise(self.networks, z_t, t, z_s, self.z_p)

        z_0 = sample(predict, noise, steps or self.networks["saw"].config.steps)
        return self.face_decoder(self.face_encoder.restore(z_0))


def scaled_prior(face_encoder: nn.Module, prior: nn.Module) -> Tensor:
    """z^p [d] in units of the training deviation, not centred **[ours]**.

    The diffusion works on standardised z. Centred like z, the mean face would be the zero vector and eq. (9)
    would add nothing.
    """
    return prior.z_p / face_encoder.deviation
