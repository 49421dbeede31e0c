"""A toy system: a mean face whose mouth opens as far as the sound is loud. Real networks, nothing learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from systems.base import (
    Batch,
    Chunk,
    ComputedStage,
    Request,
    StageSettings,
    System,
    TalkingFacePipeline,
    View,
)

CHUNK = 10  # frames


class Canvas(ModelMixin, ConfigMixin):
    """The mean face, [3, S, S] in [0, 1]."""

    @register_to_config
    def __init__(self, side: int = 32) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3, side, side), 0.6))

    def forward(self, seed: int) -> Tensor:
        """A face tinted by the seed."""
        tint = torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(seed)) - 0.5
        return (self.mean + 0.3 * tint).clamp(0, 1)


class Gain(ModelMixin, ConfigMixin):
    """Opening of the mouth in 0..1 from the root mean square of each frame's sound."""

    @register_to_config
    def __init__(self, start: float = 4.0) -> None:
        super().__init__()
        self.gain = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.gain.weight, start)

    def forward(self, energy: Tensor) -> Tensor:
        return self.gain(energy[:, None])[:, 0].clamp(0, 1)


class Face(ComputedStage):
    name = "face"
    presets: ClassVar[Mapping[str, StageSettings]] = {"tiny": StageSettings(steps=1, batch=4)}
    networks: ClassVar[Mapping[str, type[ModelMixin]]] = {"canvas": Canvas}

    @property
    def view(self) -> View:
        return View(fields=("frames",), size=32)

    def compute(self, parents: Mapping[str, nn.ModuleDict], batches: Iterable[Batch]) -> nn.ModuleDict:
        canvas = Canvas()
        means = [(batch["frames"].mean((0, 1)) + 1) / 2 for batch in batches]
        if means:
            canvas.mean.copy_(torch.stack(means).mean(0))
        return nn.ModuleDict({"canvas": canvas})


class Mouth(ComputedStage):
    name = "mouth"
    needs = ("face",)
    presets: ClassVar[Mapping[str, StageSettings]] = {"tiny": StageSettings(steps=1, batch=4)}
    networks: ClassVar[Mapping[str, type[ModelMixin]]] = {"gain": Gain}

    @property
    def view(self) -> View:
        return View(fields=("audio",), size=32)

    def compute(self, parents: Mapping[str, nn.ModuleDict], batches: Iterable[Batch]) -> nn.ModuleDict:
        return nn.ModuleDict({"gain": Gain()})


class Loudmouth(TalkingFacePipeline):
    """Draws the portrait (or the tinted mean face) with a dark mouth as open as the sound is loud."""

    def __init__(self, canvas: Canvas, gain: Gain) -> None:
        super().__init__()
        self.register_modules(canvas=canvas, gain=gain)

    @classmethod
    def from_stages(cls, stages: Mapping[str, nn.ModuleDict]) -> Loudmouth:
        return cls(stages["face"]["canvas"], stages["mouth"]["gain"])

    def portrait(self, request: Request) -> np.ndarray:
        side = self.canvas.config.side
        if request.portrait is not None:
            step = request.portrait.shape[0] // side
            return np.ascontiguousarray(request.portrait[::step, ::step][:side, :side])
        return (self.canvas(request.seed).permute(1, 2, 0) * 255).round().byte().numpy()

    def stream(self, requests: Sequence[Request]) -> Iterator[Chunk]:
        if any(np.abs(request.audio).max(initial=0) > 0.99 for request in requests):
            raise RuntimeError("the toy cannot bear a sound so loud")  # a fault of the pipeline, for tests
        faces = [self.portrait(request) for request in requests]
        for first in range(0, max(request.frames for request in requests), CHUNK):
            for number, request in enumerate(requests):
                count = min(CHUNK, request.frames - first)
                if count > 0:
                    yield Chunk(number, first, self._draw(faces[number], request, first, count))

    def _draw(self, face: np.ndarray, request: Request, first: int, count: int) -> np.ndarray:
        frames = np.repeat(face[None], count, axis=0)
        sound = np.zeros(count * 640, np.float32)
        piece = request.audio[first * 640 : (first + count) * 640]
        sound[: len(piece)] = piece
        energy = torch.from_numpy(np.sqrt((sound.reshape(count, 640) ** 2).mean(1)))
        side = face.shape[0]
        for frame, opening in zip(frames, self.gain(energy).tolist(), strict=True):
            half = round(opening * side / 8)
            frame[side * 3 // 4 - half : side * 3 // 4 + half + 1, side // 3 : side * 2 // 3] = (90, 10, 20)
        return frames


SYSTEM = System(
    name="loudmouth", paper="none: a toy", stages=(Face, Mouth), inputs=frozenset({"audio"}), pipeline=Loudmouth
)
