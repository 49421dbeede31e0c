"""Stage ``lip_landmarks``: pose-free lips from speech (§III-B1; AniPortrait's audio2lmk, fine-tuned)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contracts.sample import SAMPLES_PER_FRAME
from systems.base import Bar, Batch, Losses, StageSettings, TrainedStage, View
from systems.common.curves import draw_curves
from systems.common.fidelity import correlation
from systems.common.landmarks import mouth_opening, pose_free_lips
from systems.common.mel import draw_bands
from systems.common.noise import dropout
from systems.see_the_speaker.lip_predictor import LipPredictor
from systems.see_the_speaker.motion_space import LIP_CONTEXT
from systems.see_the_speaker.speech_features import SpeechKind


class LipLandmarksSettings(StageSettings):
    """Sizes and weights; a value without a source is ours."""

    frames: int = 75
    speech: SpeechKind = "wav2vec2"  # AniPortrait's audio2lmk
    speech_weights: str = ""  # folder of published weights; none: the speech network learns from nothing
    transformer: dict[str, Any] = Field(default_factory=dict)
    hidden: int = 512
    learning_rate: float = 1e-4
    weight_spread: float = 0.0
    bands: int = 0  # most mel bands that a voice is moved by in training
    dropped: float = 0.0  # share of hidden numbers left out in training


class LipLandmarks(TrainedStage):
    """Speech to the 40 lip points, rotation, position and size removed."""

    name = "lip_landmarks"
    presets: ClassVar[Mapping[str, LipLandmarksSettings]] = {
        "paper": LipLandmarksSettings(steps=50_000, batch=16),
        "small": LipLandmarksSettings(
            steps=2000,
            batch=16,
            speech="mel",
            hidden=192,
            learning_rate=5e-4,
            weight_spread=1.0,
            validate_every=250,
            bands=3,
            dropped=0.2,
        ),
        "tiny": LipLandmarksSettings(
            steps=120,
            batch=8,
            frames=48,
            speech="mel",
            hidden=64,
            learning_rate=2e-3,
            weight_spread=1.0,
            bands=3,
            dropped=0.2,
        ),
    }
    networks: ClassVar[Mapping[str, Any]] = {"lip_predictor": LipPredictor}
    bar = Bar(measure="opening_correlation", baseline="opening_correlation_shuffled", better="higher", speakers="new")
    settings: LipLandmarksSettings

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """The speech network, where it is not the published one."""
        s = self.settings
        return () if s.speech_weights else (f"wav2vec 2.0 (pre-trained) -> {s.speech} (own)",)

    @property
    def view(self) -> View:
        """Successive landmarks with the sound, the context included, and what all of the clip's sound has in common."""
        return View(
            ("landmarks", "audio", "voice"), frames=self.settings.frames, pick="successive", context=LIP_CONTEXT
        )

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """The predictor, with published speech weights where a folder is given."""
        s = self.settings
        predictor = LipPredictor(s.speech, s.transformer, "mean", s.hidden, LIP_CONTEXT)
        if s.speech_weights:
            predictor.features.load_published(s.speech_weights)
        return nn.ModuleDict({"lip_predictor": predictor})

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Mean lips and their deviation; the deviation of the mel bands about each voice's mean."""
        predictor, lips, sounds, voices = model["lip_predictor"], [], [], []
        for batch in batches:
            lips.append(pose_free_lips(batch["landmarks"]).flatten(0, 1))
            sounds.append(batch["audio"])
            voices.append(batch["voice"])
        if lips:
            points = torch.cat(lips)
            predictor.mean.copy_(points.mean(0))
            predictor.deviation.copy_(points.std(0).clamp_min(1e-3))
        predictor.features.measure(sounds, voices)

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """Adam over what is not frozen."""
        return {"main": Adam([p for p in model.parameters() if p.requires_grad], self.settings.learning_rate)}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """L1 of the standardised lips, as they are and about their mean over the span.

        The second keeps what a voice cannot tell, the shape of this speaker's mouth, out of the way of what
        it can. ``spread``: L1 learns the middle of all mouths that fit a sound, which hardly moves; the
        deviation over time is therefore asked for too.  # not in the paper: the loss of audio2lmk
        """
        predictor = model["lip_predictor"]
        true = (pose_free_lips(batch["landmarks"]) - predictor.mean) / predictor.deviation
        s = self.settings
        bands = draw_bands(len(true), s.bands, rng, true.device)
        ours = predictor.offsets(batch["audio"], batch["voice"], bands, partial(dropout, share=s.dropped, rng=rng))
        shape = (ours - true).abs().mean()
        moving, moved = (x - x.mean(1, keepdim=True) for x in (ours, true))
        motion = (moving - moved).abs().mean()
        spread = (_deviation(moving) - _deviation(moved)).abs().mean()
        terms = {"shape": shape, "motion": motion, "spread": spread}
        total = shape + motion + s.weight_spread * spread
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Correlation of the mouth's opening with the true one [B], beside the same under shuffled speech.

        Shuffled: the sound of the same span, begun half a span later (and going round), so that voice and
        loudness are the same and only the moment is wrong.
        """
        predictor = model["lip_predictor"]
        true = pose_free_lips(batch["landmarks"])
        ours, later = (predictor(sound, batch["voice"]) for sound in (batch["audio"], _later(batch["audio"])))
        size = predictor.deviation
        return {
            "opening_correlation": correlation(mouth_opening(ours), mouth_opening(true)),
            "opening_correlation_shuffled": correlation(mouth_opening(later), mouth_opening(true)),
            "l1": ((ours - true) / size).abs().mean((1, 2, 3)),
            "l1_mean_shape": ((true.mean(1, keepdim=True) - true) / size).abs().mean((1, 2, 3)),
            "opening_spread": mouth_opening(ours).std(1) / mouth_opening(true).std(1).clamp_min(1e-4),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """The mouth's opening over time, one row per item: true in black, predicted in red."""
        ours = mouth_opening(model["lip_predictor"](batch["audio"], batch["voice"]))[:6]
        return draw_curves([mouth_opening(pose_free_lips(batch["landmarks"]))[:6], ours])


def _deviation(x: Tensor) -> Tensor:
    return (x.square().mean(1) + 1e-6).sqrt()


def _later(audio: Tensor) -> Tensor:
    frames = audio.shape[1] // SAMPLES_PER_FRAME
    return audio.roll(frames // 2 * SAMPLES_PER_FRAME, 1)
