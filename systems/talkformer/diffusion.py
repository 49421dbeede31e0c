"""Diffusion of the lower half (§III-A): noising, the noise predicted, DDIM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from systems.talkformer.denoiser import Condition, Denoiser
from systems.talkformer.latents import lower_half, put_below

TIMES = 1000  # T, §IV-A5


def make_scheduler(steps: int | None = None) -> DDIMScheduler:
    """latent-diffusion's schedule; with ``steps``, the times that DDIM visits, from T down."""
    scheduler = DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_start=0.0015,  # latent-diffusion's for faces
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    if steps is not None:
        scheduler.set_timesteps(steps)
    return scheduler


@dataclass
class Clip:
    """What stays the same at every denoising step of L successive frames of each of B videos."""

    context: Tensor  # standardised latents [B L, C, h, w] whose upper halves are seen
    z_r: Tensor  # standardised latents of the references [B, C, h, w]
    condition: Condition


def predict_noise(denoiser: Denoiser, clip: Clip, z_t: Tensor, t: Tensor) -> Tensor:
    """ε_θ(z_t, t) of the lower half: ``z_t`` [B L, C, h / 2, w], ``t`` int64 [B L] -> the shape of ``z_t``."""
    whole = put_below(clip.context, z_t)
    told = lower_half(denoiser(whole, t, clip.condition, clip.z_r))
    if not denoiser.config.leads:
        return told
    alpha = make_scheduler().alphas_cumprod.to(z_t)[t][:, None, None, None]
    guess = lower_half(clip.z_r).repeat_interleave(len(z_t) // len(clip.z_r), 0)
    variance = denoiser.spread
    noise_share = alpha * variance + 1 - alpha
    best = (z_t - alpha.sqrt() * guess) * (1 - alpha).sqrt() / noise_share  # of a Gaussian about the reference
    return best + (alpha * variance / noise_share).sqrt() * told  # told: in deviations of what is left unknown


def add_noise(z_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """z_t of the lower half [F, C, h / 2, w] at times ``t`` int64 [F]."""
    return make_scheduler().add_noise(z_0, noise, t)


def spread_times(items: int, frames: int, rng: torch.Generator) -> Tensor:
    """t int64 [items, frames], each uniform over the process, together spread evenly over it.

    # not in the paper: independent times make the loss of a small batch mostly a matter of which times came up
    """
    count = items * frames
    place = torch.arange(count).view(frames, items).T  # an item's frames lie far apart
    share = (place + torch.rand(items, frames, generator=rng)) / count + torch.rand((), generator=rng)
    return (share % 1 * TIMES).long().clamp_max(TIMES - 1)


@torch.no_grad()
def sample(denoiser: Denoiser, clip: Clip, noise: Tensor, steps: int | None = None) -> Tensor:
    """ẑ_0 of the lower half [B L, C, h / 2, w], standardised, from ``noise`` of that shape, by DDIM.

    It starts from the masked face's lower half, diffused to T (§III-A); no fresh noise is added on the way.
    """
    scheduler = make_scheduler(steps or denoiser.config.steps)
    alphas = [*scheduler.alphas_cumprod[scheduler.timesteps].tolist(), 1.0]
    first = scheduler.timesteps[0].to(noise.device).expand(len(noise))
    z = add_noise(lower_half(clip.context), noise, first)
    for t, here, there in zip(scheduler.timesteps.to(z.device), alphas, alphas[1:]):
        epsilon = predict_noise(denoiser, clip, z, t.expand(len(z)))
        z_0 = (z - (1 - here) ** 0.5 * epsilon) / here**0.5
        z = there**0.5 * z_0 + (1 - there) ** 0.5 * epsilon
    return z
