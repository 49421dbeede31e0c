"""M_diff: ADM's UNet (Dhariwal & Nichol 2021) over time instead of space (§III-B2, §IV-D)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.see_the_speaker.speech_features import SpeechFeatures, SpeechKind


class ResBlock(nn.Module):
    """ADM's residual block in one dimension; the time scales and shifts after the second norm (AdaGN)."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_groups(inputs), inputs)
        self.conv_in = nn.Conv1d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.norm_out = nn.GroupNorm(_groups(outputs), outputs)
        self.conv_out = nn.Conv1d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)  # as ADM: every block starts as its skip
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``x`` [B, inputs, n], ``embedding`` [B, e] -> [B, outputs, n]."""
        y = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.modulate(F.silu(embedding))[:, :, None].chunk(2, 1)
        return self.skip(x) + self.conv_out(F.silu(self.norm_out(y) * (1 + scale) + shift))


class Attention(nn.Module):
    """ADM's self-attention, over time."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(_groups(channels), channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, n] -> the same shape."""
        q, k, v = (part.unflatten(1, (self.heads, -1)).transpose(2, 3) for part in self.qkv(self.norm(x)).chunk(3, 1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        return x + self.out(y)


class MotionUNet(ModelMixin, ConfigMixin):
    """Noised motion, speech and what is known of the motion, to the noise: ε of eq. (20).

    Motion is standardised here (``standardise``, ``restore``), by buffers. ``relative``: it is the
    displacement from the reference's code, not the code: identity that leaks into z_m cancels, and an
    untrained network moves about the portrait's own pose.  # not in the paper
    ``from_gaussian``: the network adds to the best guess for a Gaussian process over time, the same for every
    dimension, with the covariance of the training data, given the noised and the known frames
    (:meth:`gaussian`): what is drawn is smooth from the start.  # not in the paper: for short training
    ``frames``, ``overlap``, ``context``, ``steps``: how it was trained to be used: frames of a window, those
    it shares with the window before, frames of sound to each side, denoising steps.
    """

    mean: Tensor
    deviation: Tensor
    covariance: Tensor

    @register_to_config
    def __init__(
        self,
        width: int = 128,
        speech: SpeechKind = "hubert",
        transformer: Mapping[str, Any] | None = None,
        pair: Literal["mean", "concat"] = "mean",
        speech_width: int = 256,
        channels: int = 256,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        heads: int = 4,
        attention_from: int = 1,
        relative: bool = True,
        from_gaussian: bool = True,
        frames: int = 128,
        overlap: int = 8,
        context: int = 4,
        steps: int = 50,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        if from_gaussian:
            self.register_buffer("covariance", torch.eye(frames))
        self.features = SpeechFeatures(speech, transformer, pair)
        self.speech_in = nn.Linear(self.features.width, speech_width)
        embedding = 4 * channels
        self.time = nn.Sequential(nn.Linear(channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.reference = nn.Linear(width, embedding)
        # noised motion, known motion, whether it is known, speech: side by side
        self.entry = nn.Conv1d(2 * width + 1 + speech_width, channels, 3, padding=1)
        here, kept = channels, [channels]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            attend = level >= attention_from
            for _ in range(blocks):
                self.downs.append(_Layer(here, channels * multiplier, embedding, heads if attend else 0))
                here = channels * multiplier
                kept.append(here)
            if level < len(multipliers) - 1:
                self.downs.append(nn.Conv1d(here, here, 3, stride=2, padding=1))
                kept.append(here)
        self.middle = nn.ModuleList([_Layer(here, here, embedding, heads), _Layer(here, here, embedding, 0)])
        for level, multiplier in reversed(list(enumerate(multipliers))):
            attend = level >= attention_from
            for _ in range(blocks + 1):
                layer = _Layer(here + kept.pop(), channels * multiplier, embedding, heads if attend else 0)
                self.ups.append(layer)
                here = channels * multiplier
            if level:
                self.ups.append(nn.Conv1d(here, here, 3, padding=1))
        self.norm_out = nn.GroupNorm(_groups(here), here)
        self.out = nn.Conv1d(here, width, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def standardise(self, z_m: Tensor, reference: Tensor) -> Tensor:
        """Codes [B, n, d] with the reference's [B, d] -> what diffusion sees, about mean 0 and deviation 1."""
        z = z_m - reference[:, None] if self.config.relative else z_m
        return (z - self.mean) / self.deviation

    def restore(self, x: Tensor, reference: Tensor) -> Tensor:
        """Undo :meth:`standardise`."""
        z = x * self.deviation + self.mean
        return z + reference[:, None] if self.config.relative else z

    def hear(self, audio: Tensor, context: int) -> Tensor:
        """``audio`` [B, 640 (n + 2 context)] -> speech features [B, n, speech_width]."""
        features = self.features(audio)
        return self.speech_in(features[:, context : features.shape[1] - context])

    def gaussian(self, x: Tensor, keep: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """Noise in ``x`` [B, n, d] as a Gaussian process over time would have it; arguments as ``forward``'s."""
        # Frames are observations of x_0: known ones all but exact, the others with the variance of their noise.
        keep = keep[:, None]
        variance = torch.where(mask > 0, 1e-4, (1 - keep) / keep)
        seen = torch.where(mask[..., None] > 0, known, x / keep.sqrt()[..., None])
        x_0 = self.covariance @ torch.linalg.solve(self.covariance + torch.diag_embed(variance), seen)
        return (x - keep.sqrt()[..., None] * x_0) / (1 - keep).sqrt()[..., None]

    def forward(
        self, x: Tensor, t: Tensor, keep: Tensor, speech: Tensor, known: Tensor, mask: Tensor, reference: Tensor
    ) -> Tensor:
        """Noise in ``x`` [B, n, d] at times ``t`` int64 [B] with ``keep`` = ᾱ_t [B].

        ``speech`` [B, n, e] from :meth:`hear`; ``known`` [B, n, d] standardised motion where ``mask`` [B, n]
        is 1; ``reference`` [B, d] the portrait's (in training: some frame's) code. n is divisible by
        2^(levels - 1). Returns ε [B, n, d].
        """
        embedding = self.time(_sinusoids(t, self.time[0].in_features)) + self.reference(reference)
        h = torch.cat([x, known * mask[..., None], mask[..., None], speech], -1).transpose(1, 2)
        h = self.entry(h)
        kept = [h]
        for layer in self.downs:
            h = layer(h, embedding) if isinstance(layer, _Layer) else layer(h)
            kept.append(h)
        for layer in self.middle:
            h = layer(h, embedding)
        for layer in self.ups:
            if isinstance(layer, _Layer):
                h = layer(torch.cat([h, kept.pop()], 1), embedding)
            else:
                h = layer(F.interpolate(h, scale_factor=2, mode="nearest"))
        e = self.out(F.silu(self.norm_out(h))).transpose(1, 2)
        if self.config.from_gaussian:
            e = e + self.gaussian(x, keep, known, mask)
        return e


class _Layer(nn.Module):
    """A residual block, and attention where ``heads`` is not 0."""

    def __init__(self, inputs: int, outputs: int, embedding: int, heads: int) -> None:
        super().__init__()
        self.block = ResBlock(inputs, outputs, embedding)
        self.attention = Attention(outputs, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(x, embedding))


def _groups(channels: int) -> int:
    return math.gcd(32, channels)


def _sinusoids(t: Tensor, width: int) -> Tensor:
    """ADM's embedding of times [B] -> [B, width]."""
    rate = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    phase = t[:, None].float() * rate
    return torch.cat([phase.cos(), phase.sin()], 1)
