"""Speech as one vector per video frame: HuBERT, wav2vec 2.0 or log-mel (§IV-D; Tables VI and XI)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from contracts.errors import Misuse
from contracts.sample import SAMPLES_PER_FRAME
from systems.common.mel import COLUMNS, MELS, log_mels, move_bands

SpeechKind = Literal["mel", "wav2vec2", "hubert"]

# Published sizes; anything else is given as ``transformer`` (tests use tiny ones).
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}
SIZES: dict[SpeechKind, dict[str, Any]] = {"hubert": LARGE, "wav2vec2": {}}  # HuBERT-large; wav2vec 2.0 base


class SpeechFeatures(ModelMixin, ConfigMixin):
    """Sound to features per video frame.

    ``kind``: ``mel`` four columns of log-mel per frame, brought to zero mean and unit deviation by buffers, or by
    the voice's own mean where it is given;
    ``hubert``, ``wav2vec2`` transformers with 50 vectors per second. ``transformer``: changes to its config.
    ``pair``: how the vectors 2i and 2i + 1 become frame i's, their mean or side by side.
    """

    mean: Tensor
    deviation: Tensor

    @register_to_config
    def __init__(
        self,
        kind: SpeechKind = "mel",
        transformer: Mapping[str, Any] | None = None,
        pair: Literal["mean", "concat"] = "mean",
    ) -> None:
        super().__init__()
        self.kind, self.pair = kind, pair
        if kind == "mel":
            self.register_buffer("mean", torch.full((MELS,), -6.0))
            self.register_buffer("deviation", torch.full((MELS,), 3.0))
            self.width = MELS * COLUMNS
        else:
            self.network = _transformer(kind, SIZES[kind] | dict(transformer or {}))
            self.width = self.network.config.hidden_size * (2 if pair == "concat" else 1)

    def load_published(self, path: str) -> None:
        """Take the weights of a folder as transformers publishes it, and keep them fixed. ``Misuse`` if it fails."""
        if self.kind == "mel":
            raise Misuse("speech: mel has no published weights; leave speech_weights empty")
        try:
            self.network = type(self.network).from_pretrained(path, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise Misuse(f"speech_weights: {path} holds no {self.kind} in safetensors: {error}") from None
        self.network.requires_grad_(False).eval()

    def measure(self, sounds: Iterable[Tensor], voices: Iterable[Tensor] = ()) -> None:
        """Set the buffers of ``mel`` from sounds [B, N], about their voices [B, 80]; nothing for the others."""
        if self.kind != "mel":
            return
        mels = [log_mels(sound) for sound in sounds]
        if mels:
            self.mean.copy_(torch.cat([mel.flatten(0, 1) for mel in mels]).mean(0))
            about = [voice[:, None] for voice in voices] or [self.mean] * len(mels)
            mel = torch.cat([(mel - voice).flatten(0, 1) for mel, voice in zip(mels, about, strict=True)])
            self.deviation.copy_(mel.std(0).clamp_min(1e-2))

    def forward(self, audio: Tensor, voice: Tensor | None = None, bands: Tensor | None = None) -> Tensor:
        """``audio`` [B, 640 T] in [-1, 1] -> features [B, T, width].

        For ``mel``: ``voice`` [B, 80], a recording's ``contracts.speech.voice_level``, takes the place of the mean
        over all; ``bands`` int64 [B]: bands that the voice is moved up by, as by a shorter throat.
        """
        frames = audio.shape[1] // SAMPLES_PER_FRAME
        if self.kind == "mel":
            mel = (log_mels(audio) - (self.mean if voice is None else voice[:, None])) / self.deviation
            if bands is not None:
                mel = move_bands(mel, bands)
            return mel.reshape(len(audio), frames, self.width)
        # The vectors' window is 400 samples every 320: without padding the last frame would lack one.
        # Both models were published on sounds of zero mean and unit deviation.
        sound = (audio - audio.mean(1, keepdim=True)) / (audio.std(1, keepdim=True) + 1e-5)
        vectors = self.network(nn.functional.pad(sound, (0, 400))).last_hidden_state[:, : 2 * frames]
        pairs = vectors.reshape(len(audio), frames, 2, -1)
        return pairs.mean(2) if self.pair == "mean" else pairs.flatten(2)


def _transformer(kind: SpeechKind, sizes: Mapping[str, Any]) -> nn.Module:
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    # Masking draws from numpy's global generator; layer drop and dropout from torch's: all off, so that
    # the step's own generator is the only source of chance.
    still = {
        "apply_spec_augment": False,
        "layerdrop": 0.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
    }
    if kind == "hubert":
        return HubertModel(HubertConfig(**{**sizes, **still}))
    return Wav2Vec2Model(Wav2Vec2Config(**{**sizes, **still}))
