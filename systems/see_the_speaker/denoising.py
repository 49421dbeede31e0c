"""The diffusion process over z: its schedule, the shifted reading of z^t, sampling, and a baseline (§III-A)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from diffusers import ConfigMixin, DDIMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

TIMES = 1000  # steps of the process in training
SCHEDULE = {  # Stable Diffusion's, since the paper takes its UNet from there
    "num_train_timesteps": TIMES,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}


def make_scheduler(steps: int | None = None) -> DDIMScheduler:
    """DDIM over ``steps`` of the process, starting at pure noise; all of them where None.

    Eqs. (1) and (3) as printed are shorthand for the usual variance-preserving process **[ours]**.
    """
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps or TIMES)
    return scheduler


def predict_noise(networks: Mapping[str, nn.Module], z_t: Tensor, t: Tensor, z_s: Tensor, z_p: Tensor) -> Tensor:
    """ε_θ(z^s, z^{t*}, t) [B, d] for noised ``z_t`` [B, d] at times ``t`` int64 [B].

    ``networks``: ``unet``, ``saw``, ``speech_tokens``, ``wiener``. ``z_p`` [d] in units of the deviation.
    Where the Wiener denoiser leads, the UNet tells what it leaves, in units of its error's deviation.
    """
    unet = networks["unet"]
    z_star = z_t + networks["saw"](z_s, z_p, t)  # eqs. (6), (9), §III-A2
    grid = z_star.unflatten(1, (unet.config.in_channels, unet.config.sample_size, -1))
    told = unet(grid, t, encoder_hidden_states=networks["speech_tokens"](z_s)).sample.flatten(1)
    wiener = networks["wiener"]
    if not wiener.config.leads:
        return told
    alpha = make_scheduler().alphas_cumprod.to(z_t)[t]
    return wiener(z_t, alpha) + wiener.left(alpha) * told


def sample(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """z^0 [B, d] from ``noise`` [B, d] by DDIM without fresh noise.

    ``predict(z_t, t)`` returns ε for ``t`` int64 [B]. What it adds to z^t before reading it never enters
    the update: else the prior would pile up once per step. (Not ``DDIMScheduler.step``: with this spacing
    it misses the next time where ``steps`` does not divide 1000.)
    """
    scheduler = make_scheduler(steps)
    alphas = [*scheduler.alphas_cumprod[scheduler.timesteps].tolist(), 1.0]
    z = noise
    for t, here, there in zip(scheduler.timesteps.to(z.device), alphas, alphas[1:]):
        epsilon = predict(z, t.expand(len(z)))
        z_0 = (z - (1 - here) ** 0.5 * epsilon) / here**0.5  # eq. (3), §III-A1, variance-preserving
        z = there**0.5 * z_0 + (1 - there) ** 0.5 * epsilon
    return z


class WienerDenoiser(ModelMixin, ConfigMixin):
    """The best linear denoiser that knows each dimension's mean and variance and nothing else: the baseline.

    ``leads``: the UNet adds to it instead of beginning from nothing.  # not in the paper: short training spends
    its steps on what is known in closed form otherwise
    """

    @register_to_config
    def __init__(self, dim: int = 4096, leads: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, z_t: Tensor, alpha: Tensor) -> Tensor:
        """ε [B, d] for ``z_t`` [B, d] = √ᾱ z^0 + √(1-ᾱ) ε, ``alpha`` = ᾱ [B]."""
        alpha = alpha[:, None]
        gain = self.variance * alpha.sqrt() / (alpha * self.variance + 1 - alpha)
        z_0 = self.mean + gain * (z_t - alpha.sqrt() * self.mean)
        return (z_t - alpha.sqrt() * z_0) / (1 - alpha).sqrt()

    def left(self, alpha: Tensor) -> Tensor:
        """Deviation [B, d] of its error in ε, ``alpha`` = ᾱ [B]."""
        alpha = alpha[:, None]
        return (alpha * self.variance / (alpha * self.variance + 1 - alpha)).sqrt()
