"""Drawing non-lip motion: guidance, tokens that are given, windows that go on, spans drawn again (§3.2, §3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from systems.av_prior.prior_network import AutoregressivePrior, DiffusionPrior

TIMES = 1000  # T; not in the paper
SEEN_AFTER = 4  # frames beyond a span that its last window sees


def make_scheduler(steps: int = TIMES) -> DDIMScheduler:
    """Eq. (6) with MDM's cosine schedule, sampled by DDIM in ``steps`` steps; the network predicts n^0."""
    scheduler = DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    return scheduler


def add_noise(n: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """n^t of standardised motion [B, L, d] at times ``t`` int64 [B]."""
    keep = make_scheduler().alphas_cumprod.to(n)[t][:, None, None]
    return keep.sqrt() * n + (1 - keep).sqrt() * noise  # eq. (6), §3.2, t steps at once


def guide(with_speech: Tensor, without: Tensor, scale: float) -> Tensor:
    """The two predictions put together."""
    return scale * with_speech + (1 - scale) * without  # eq. (10), §3.2


@torch.no_grad()
def draw_window(
    prior: DiffusionPrior,
    f_a: Tensor,
    known: Tensor,
    mask: Tensor,
    generators: Sequence[torch.Generator],
    *,
    steps: int | None = None,
    guidance: float | None = None,
) -> Tensor:
    """Motion [B, L, d] of one window.

    ``f_a`` [B, L, d_a]; ``known`` [B, L, d] motion, returned to the bit where ``mask`` [B, L] is 1; its first frame is
    the reference of a relative prior. Noise from one CPU generator per item. A prior that was trained without
    editing is given what is known only by having its predictions replaced there, as MDM does.
    """
    scheduler = make_scheduler(steps or prior.config.steps)
    scale = prior.config.guidance if guidance is None else guidance
    reference, given = known[:, 0], mask[..., None] > 0
    clean = prior.standardise(known, reference)
    seen = mask if prior.config.editing else torch.zeros_like(mask)
    x = torch.stack([torch.randn(known.shape[1:], generator=g) for g in generators]).to(known)
    told = torch.ones(len(x), device=x.device)
    for time in scheduler.timesteps:
        t = time.to(x.device).expand(len(x))
        n_0 = prior(x, t, f_a, told, clean, seen, reference)
        if scale != 1:
            n_0 = guide(n_0, prior(x, t, f_a, 0 * told, clean, seen, reference), scale)
        n_0 = torch.where(given, clean, n_0)
        x = scheduler.step(n_0, time, x).prev_sample
    # the last prediction: where the steps do not divide T, the scheduler ends with a little noise
    return torch.where(given, known, prior.restore(n_0, reference))


@torch.no_grad()
def roll_out(prior: AutoregressivePrior, f_a: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """Motion [B, L, d] of one window, frame after frame, from its first; arguments as of :func:`draw_window`."""
    reference = known[:, 0]
    clean = prior.standardise(known, reference)
    x = clean[:, :1]
    for frame in range(1, known.shape[1]):
        new = prior(x, f_a[:, 1 : frame + 1])[:, -1:]
        x = torch.cat([x, torch.where(mask[:, frame, None, None] > 0, clean[:, frame, None], new)], 1)
    return torch.where(mask[..., None] > 0, known, prior.restore(x, reference))


def windows(mask: Tensor, length: int) -> Iterator[tuple[int, int]]:
    """Windows (first, end) of at most ``length`` frames that together hold every frame that is not known.

    ``mask`` [T], 1 where motion is known. Each window begins with a known frame, the one before the first that is
    not; the window before may have made it, and the film's first frame is the exception. Where known frames follow a
    span, the last window over it sees some of them, or the span would end with a jump.
    """
    frames, done = len(mask), 0
    while done < frames:
        unknown = torch.nonzero(mask[done:] == 0)
        if not len(unknown):
            return
        start = done + int(unknown[0])
        first = max(start - 1, 0)
        end = min(first + length, frames)
        known = torch.nonzero(mask[start:])
        span_end = start + int(known[0]) if len(known) else frames
        if end < frames and end - SEEN_AFTER < span_end <= end:
            end = first + length // 2
        yield first, end
        done = end
