"""A system small enough for tests: a grey face whose mouth is as bright as the sound is loud."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contracts.errors import Misuse
from systems.base import (
    Bar,
    Batch,
    Chunk,
    ComputedStage,
    Losses,
    Request,
    StageSettings,
    System,
    TalkingFacePipeline,
    TrainedStage,
    View,
)

SIZE = 16


class Coder(ModelMixin, ConfigMixin):
    """Images [B, 3, 16, 16] to codes [B, width] and back."""

    @register_to_config
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * SIZE * SIZE, width), nn.BatchNorm1d(width), nn.Dropout(0.1)
        )
        self.up = nn.Linear(width, 3 * SIZE * SIZE)

    def forward(self, images: Tensor) -> Tensor:
        return self.up(self.down(images)).view(-1, 3, SIZE, SIZE)


class Mean(ModelMixin, ConfigMixin):
    """One image [3, 16, 16], computed."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("image", torch.zeros(3, SIZE, SIZE))


class Mouth(ModelMixin, ConfigMixin):
    """Loudness [B, 1] to an image [B, 3, 16, 16] to be added."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(1, 3 * SIZE * SIZE)

    def forward(self, loudness: Tensor) -> Tensor:
        return self.out(loudness).view(-1, 3, SIZE, SIZE)


class Judge(nn.Module):
    """A discriminator, so that there is a second phase."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class CoderSettings(StageSettings):
    width: int = 8
    lr: float = 1e-2
    pause: float = 0.0  # seconds that a step takes longer: there is time to kill it


class CoderStage(TrainedStage):
    """An autoencoder of single frames."""

    name = "coder"
    presets: ClassVar = {
        "tiny": CoderSettings(steps=6, batch=4, checkpoint_every=2, validate_every=4),
        "small": CoderSettings(steps=60, batch=8),
        "paper": CoderSettings(steps=600, batch=8),
    }
    networks: ClassVar = {"coder": Coder}
    bar = Bar("l1", "grey", "lower", "new")

    @property
    def view(self) -> View:
        return View(("frames", "speaker"), size=SIZE, kinds=("clip", "face"))

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        return nn.ModuleDict({"coder": Coder(self.settings.width)})

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        return {"main": Adam(model["coder"].parameters(), lr=self.settings.lr)}

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        time.sleep(self.settings.pause)
        images = batch["frames"][:, 0]
        noise = 0.05 * torch.randn(images.shape, generator=rng)
        l1 = (model["coder"](images + noise) - images).abs().mean()
        return Losses(l1, {"l1": l1.detach()})

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        images = batch["frames"][:, 0]
        return {
            "l1": (model["coder"](images) - images).abs().mean((1, 2, 3)),
            "grey": images.abs().mean((1, 2, 3)),
        }

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray:
        images = batch["frames"][:, 0]
        both = torch.cat([images, model["coder"](images)], dim=2).clamp(-1, 1)  # truth above, result below
        return to_uint8(torch.cat(list(both), dim=2)[None])[0]


class MeanStage(ComputedStage):
    """The mean frame of a gender-balanced draw."""

    name = "mean"
    presets: ClassVar = {preset: StageSettings(steps=1, batch=4) for preset in ("tiny", "small", "paper")}
    networks: ClassVar = {"mean": Mean}

    @property
    def view(self) -> View:
        return View(("frames",), size=SIZE, kinds=("face",))

    def draw(self, genders: Sequence[str], keys: Sequence[str]) -> list[int]:
        women, men = ([i for i, g in enumerate(genders) if g == gender] for gender in ("f", "m"))
        count = min(len(women), len(men))
        if not count:
            raise Misuse("the mean face needs women and men")
        return sorted(women[:count] + men[:count])

    def compute(self, parents: Mapping[str, nn.ModuleDict], batches: Iterable[Batch]) -> nn.ModuleDict:
        mean = Mean()
        mean.image.copy_(torch.cat([batch["frames"][:, 0] for batch in batches]).mean(0))
        return nn.ModuleDict({"mean": mean})


class MouthStage(TrainedStage):
    """What loudness adds to the mean frame, judged by a discriminator."""

    name = "mouth"
    needs = ("coder", "mean")
    phases = ("generator", "discriminator")
    presets: ClassVar = {
        "tiny": StageSettings(steps=5, batch=4, checkpoint_every=2),
        "small": StageSettings(steps=50, batch=8),
        "paper": StageSettings(steps=500, batch=8),
    }
    networks: ClassVar = {"mouth": Mouth}
    bar = Bar("l1", "held", "lower", "known")

    @property
    def view(self) -> View:
        return View(("frames", "audio"), frames=3, pick="successive", size=SIZE, context=1)

    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        own = {"mouth": Mouth(), "judge": Judge()}
        return nn.ModuleDict(own | {"coder": parents["coder"]["coder"], "mean": parents["mean"]["mean"]})

    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        pairs = zip(self.phases, ("mouth", "judge"))
        return {phase: Adam(model[name].parameters(), lr=1e-2) for phase, name in pairs}

    def render(self, model: nn.ModuleDict, audio: Tensor) -> Tensor:
        frames = audio[:, 640:-640].unflatten(1, (-1, 640))  # context of one frame at both ends
        loudness = frames.square().mean(2).sqrt().reshape(-1, 1)
        return model["mean"].image + model["mouth"](loudness)

    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        true = batch["frames"].flatten(0, 1)
        made = self.render(model, batch["audio"])
        if phase == "generator":
            l1 = (made - true).abs().mean()
            return Losses(l1 - 0.01 * model["judge"](made).mean(), {"l1": l1.detach()})
        return Losses((model["judge"](made.detach()) - model["judge"](true)).mean().tanh())

    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        true = batch["frames"]
        made = self.render(model, batch["audio"]).view(true.shape)
        return {
            "l1": (made - true).abs().mean((1, 2, 3, 4)),
            "held": (true[:, :1] - true).abs().mean((1, 2, 3, 4)),
        }


def to_uint8(images: Tensor) -> np.ndarray:
    """Images [n, 3, H, W] in [-1, 1] to uint8 [n, H, W, 3]."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


class TonesPipeline(TalkingFacePipeline):
    """Frames of 64 px: the mean face (or the portrait) with the mouth of each moment's loudness."""

    def __init__(self, mean: Mean, mouth: Mouth) -> None:
        super().__init__()
        self.register_modules(mean=mean, mouth=mouth)

    @classmethod
    def from_stages(cls, stages: Mapping[str, nn.ModuleDict]) -> TonesPipeline:
        return cls(stages["mean"]["mean"], stages["mouth"]["mouth"])

    def portrait(self, request: Request) -> np.ndarray:
        return to_uint8(self._base(request))[0]

    @torch.no_grad()
    def stream(self, requests: Sequence[Request]) -> Iterator[Chunk]:
        for number, request in enumerate(requests):
            sound = np.zeros(request.frames * 640, np.float32)
            sound[: len(request.audio)] = request.audio[: len(sound)]
            loudness = torch.from_numpy(sound).view(-1, 640).square().mean(1).sqrt()[:, None]
            for first in range(0, request.frames, 25):
                added = nn.functional.interpolate(self.mouth(loudness[first : first + 25]), size=(64, 64))
                yield Chunk(number, first, to_uint8(self._base(request) + added))

    def _base(self, request: Request) -> Tensor:
        if request.portrait is None:
            base = self.mean.image[None]
        else:
            base = torch.from_numpy(request.portrait.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        return nn.functional.interpolate(base, size=(64, 64))


SYSTEM = System(
    name="tones",
    paper="none: a system for tests",
    stages=(CoderStage, MeanStage, MouthStage),
    inputs=frozenset({"audio"}),
    pipeline=TonesPipeline,
)
