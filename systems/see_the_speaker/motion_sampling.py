"""The diffusion process over motion, and windows that continue each other (eq. (20), §III-B2, §III-C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from systems.see_the_speaker.motion_unet import MotionUNet

TIMES = 1000  # steps of the process in training, ADM's


def make_motion_scheduler(steps: int = TIMES) -> DDIMScheduler:
    """ADM's linear schedule, sampled by DDIM in ``steps`` steps from pure noise."""
    scheduler = DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    return scheduler


def kept(t: Tensor) -> Tensor:
    """ᾱ at times ``t`` int64 [B], [B]."""
    return make_motion_scheduler().alphas_cumprod.to(t.device)[t]


def add_noise(x: Tensor, noise: Tensor, keep: Tensor) -> Tensor:
    """Standardised motion [B, n, d] noised to ``keep`` = ᾱ [B]."""
    keep = keep[:, None, None]
    return keep.sqrt() * x + (1 - keep).sqrt() * noise


@torch.no_grad()
def sample_window(
    unet: MotionUNet,
    audio: Tensor,
    known: Tensor,
    mask: Tensor,
    reference: Tensor,
    generators: Sequence[torch.Generator],
    steps: int | None = None,
) -> Tensor:
    """Motion codes z_m [B, n, d] of one window.

    ``audio`` [B, 640 (n + 2 context)]; ``known`` z_m [B, n, d] where ``mask`` [B, n] is 1 (returned
    unchanged); ``reference`` [B, d]; noise from one CPU generator per item.
    """
    scheduler = make_motion_scheduler(steps or unet.config.steps)
    fixed, given = unet.standardise(known, reference), mask[..., None] > 0
    speech = unet.hear(audio, unet.config.context)
    noise = torch.stack([torch.randn(known.shape[1:], generator=g) for g in generators])
    x = noise.to(known)
    for t in scheduler.timesteps:
        keep = scheduler.alphas_cumprod[t].to(x).expand(len(x))
        e = unet(x, t.to(x.device).expand(len(x)), keep, speech, fixed, mask, reference)
        # What is known walks its own way back: its noise is known too.
        a = keep[:, None, None]
        e = torch.where(given, (x - a.sqrt() * fixed) / (1 - a).sqrt(), e)
        x = scheduler.step(e, t, x).prev_sample
    return torch.where(given, known, unet.restore(x, reference))
