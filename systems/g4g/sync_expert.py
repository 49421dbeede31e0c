"""Stage ``sync_expert``: which sound belongs to which mouth (§3.3, "pre-trained sync expert network")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.curves import draw_curves
from systems.common.landmarks import pose_free_lips
from systems.common.mel import AROUND, mel_windows
from systems.g4g.expert import WINDOW, SyncExpert, offset_and_confidence, shifted_distances
from systems.g4g.regions import face_of, mouth_of

SHIFTS = 6  # frames of shift looked at to either side
CONTEXT = SHIFTS + AROUND
NEAR = 2  # frames of shift that are neither in sync nor out of it


class SyncExpertSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    size: int = 416  # §4.3
    frames: int = 50
    side: int = 128
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    audio_channels: tuple[int, ...] = (32, 64, 128, 256)
    width: int = 512
    joint: int = 512
    learning_rate: float = 1e-4
    weight_lips: float = 1.0
    light: float = 0.2  # largest change of brightness and contrast in training, of the range


class SyncExpertStage(TrainedStage):
    """Contrast within a clip: face, voice and room are the same everywhere in it, and only time can tell."""

    name = "sync_expert"
    presets: ClassVar[Mapping[str, SyncExpertSettings]] = {
        "paper": SyncExpertSettings(steps=100_000, batch=16),
        "small": SyncExpertSettings(
            steps=4000,
            batch=16,
            size=208,
            side=96,
            channels=(16, 32, 64, 96, 128),
            audio_channels=(16, 32, 64),
            width=256,
            joint=128,
            learning_rate=3e-4,
            validate_every=500,
        ),
        "tiny": SyncExpertSettings(
            steps=160,
            batch=6,
            size=104,
            frames=32,
            side=32,
            channels=(8, 16, 32),
            audio_channels=(8, 16, 32),
            width=64,
            joint=32,
            learning_rate=1e-3,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"sync_expert": SyncExpert}
    bar = Bar(measure="accuracy", baseline=0.5, better="higher", speakers="new")
    settings: SyncExpertSettings

    @property
    def view(self) -> View:
        """Successive frames with the sound about them, as far as the shifts reach."""
        s = self.settings
        fields = ("frames", "landmarks", "audio")
        return View(fields, frames=s.frames, pick="successive", size=s.size, context=CONTEXT)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """The expert."""
        s = self.settings
        return nn.ModuleDict({"sync_expert": SyncExpert(s.side, s.channels, s.audio_channels, s.width, s.joint)})

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Mean and deviation of the mel bands, and how far lips move about their mean."""
        expert, mels, lips = model["sync_expert"], [], []
        for batch in batches:
            mels.append(mel_windows(batch["audio"])[:, ::WINDOW].flatten(0, 2))
            points = pose_free_lips(batch["landmarks"])
            lips.append((points - points.mean(1, keepdim=True)).flatten(0, 1))
        if mels:
            mel = torch.cat(mels)
            expert.audio.mean.copy_(mel.mean(0))
            expert.audio.deviation.copy_(mel.std(0).clamp_min(1e-2))
            expert.lips_deviation.copy_(torch.cat(lips).std(0).clamp_min(1e-3))

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam over everything."""
        return {"main": Adam(model.parameters(), self.settings.learning_rate)}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """Cross-entropy of in-sync pairs among the out-of-sync ones of the same clip, both ways; and the lips."""
        expert, s = model["sync_expert"], self.settings
        mouths = mouth_of(face_of(batch["frames"]))
        gain, lift = (s.light * (2 * torch.rand(2, len(mouths), generator=rng) - 1)).to(mouths)[..., None, None, None]
        frames = expert.frames((mouths * (1 + gain[:, None]) + lift[:, None]).clamp(-1, 1))
        v, a = expert.see(frames, frames.mean(1)), expert.hear(batch["audio"])[:, 2:-2]
        contrast = _contrast(v, a, expert.log_scale.exp())
        # not in the paper: lips are told where they are, because a few dozen speakers do not teach what a mouth is
        points = pose_free_lips(batch["landmarks"])
        true = (points - points.mean(1, keepdim=True)) / expert.lips_deviation
        lips = (expert.read_lips(frames) - true).abs().mean()
        total = contrast + s.weight_lips * lips
        return Losses(total, {"contrast": contrast.detach(), "lips": lips.detach()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Measures [B]: pairs told rightly, whether the offset is found among 13, its error, LSE-D and LSE-C."""
        v, a = embed(model["sync_expert"], batch["frames"], batch["audio"])
        distances = shifted_distances(v, a, SHIFTS)
        offset, lse_d, lse_c = offset_and_confidence(distances)
        return {
            "accuracy": _accuracy(v, a),
            "offset_found": (offset.abs() <= 1).to(v),
            "offset_by_chance": torch.full_like(lse_d, 3 / (2 * SHIFTS + 1)),
            "offset_error": offset.abs().to(v),
            "lse_d": lse_d,
            "lse_c": lse_c,
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """Distance at each shift of -6 to 6 frames, one row per clip: least in the middle where the expert is right."""
        v, a = embed(model["sync_expert"], batch["frames"], batch["audio"])
        return draw_curves([-shifted_distances(v, a, SHIFTS).repeat_interleave(8, 1)])


def embed(expert: SyncExpert, crops: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of mouths [B, n - 4, e] and of sounds [B, n - 4 + 12, e].

    ``crops`` [B, n, 3, S, S] in [-1, 1]; ``audio`` [B, 640 (n + 18)], nine frames more on either side. Mouth i belongs
    to sound i + 6.
    """
    frames = expert.frames(mouth_of(face_of(crops)))
    return expert.see(frames, frames.mean(1)), expert.hear(audio)[:, 2:-2]


def _contrast(v: Tensor, a: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy, both ways, of mouths [B, w, e] among the sounds [B, w + 12, e] of their own clip."""
    windows = v.shape[1]
    scores, apart = scale * v @ a.transpose(1, 2), _apart(windows, v.device)
    # a frame or two of shift is neither right nor wrong
    scores = scores.masked_fill((apart > 0) & (apart <= NEAR), float("-inf"))
    target = torch.arange(windows, device=v.device).expand(len(v), -1)
    heard = F.cross_entropy(scores.transpose(1, 2), target + SHIFTS)
    seen = F.cross_entropy(scores[..., SHIFTS : SHIFTS + windows], target)
    return (heard + seen) / 2


def _accuracy(v: Tensor, a: Tensor) -> Tensor:
    """Of all pairs of an in-sync and an out-of-sync sound of the same mouth, the share told rightly, [B]."""
    windows = v.shape[1]
    scores = v @ a.transpose(1, 2)
    right = scores.diagonal(SHIFTS, 1, 2)[:, :windows, None] > scores
    out = _apart(windows, v.device) > WINDOW - 1  # no frame in common
    return (right & out).sum((1, 2)) / out.sum().to(v)


def _apart(windows: int, device: torch.device) -> Tensor:
    """Frames between mouth i and sound j, [w, w + 12]."""
    mouth = torch.arange(windows, device=device)[:, None]
    return (torch.arange(windows + 2 * SHIFTS, device=device) - SHIFTS - mouth).abs()
