"""What a paper must say to be trained and served: stages, a system, one pipeline interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from contracts.errors import Misuse
from contracts.settings import Settings

if TYPE_CHECKING:
    from systems.common.tables import Table

Preset = Literal["paper", "small", "tiny"]
Batch = dict[str, Any]  # tensors by field name (View), and lists of strings
FIELDS = ("frames", "landmarks", "audio", "spectrogram", "voice", "speaker", "gender")


@dataclass(frozen=True)
class View:
    """What one training item is cut from a sample. The loader decodes these fields only.

    Batches hold, by field (B items, n = ``frames``, S = ``size``, c = ``context``):

    - ``frames`` float32 [B, n, 3, S, S] in [-1, 1], RGB;
    - ``landmarks`` float32 [B, n, 478, 2] in 0..1 of the view;
    - ``audio`` float32 in [-1, 1]: for successive frames [B, (n + 2 c) * 640], frame i spanning
      samples (c + i) * 640 to (c + i + 1) * 640; for random frames [B, n, (2 c + 1) * 640],
      each centred on its frame; zeros beyond the ends of the clip;
    - with a ``margin`` of m, ``landmarks`` and ``audio`` are those of n + 2 m successive frames, of which ``frames``
      and ``index`` are the n in the middle;
    - with ``references`` = k further frames of the clip, each at least half a second away from the window:
      ``references`` float32 [B, k, 3, S, S], ``reference_landmarks`` [B, k, 478, 2], where ``frames`` and
      ``landmarks`` are among the fields, and ``reference_index`` int64 [B, k]. For unseen seconds of known speakers
      they may come from the seconds that are trained on;
    - ``spectrogram`` float32 [B, 2, 257, 598]: ``contracts.speech`` of six seconds of the clip, the first ones except
      in training, which draws them;
    - ``voice`` float32 [B, 80]: ``contracts.speech.voice_level`` of the clip;
    - ``speaker`` int64 [B]: number of the speaker in the selection; ``gender`` int64 [B]:
      0 f, 1 m, -1 unknown;
    - always ``key`` (list of B strings), ``index`` int64 [B, n]: frame numbers in the clip,
      ``count`` int64 [B]: frames of the clip.
    """

    fields: tuple[str, ...]
    frames: int = 1
    pick: Literal["random", "successive"] = "random"
    size: int = 256
    context: int = 0
    references: int = 0
    kinds: tuple[str, ...] = ("clip",)
    margin: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.fields) - set(FIELDS)
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}; there are {FIELDS}")
        if self.margin and self.pick != "successive":
            raise ValueError("random frames have no margin")

    @property
    def span(self) -> int:
        """Frames that a window takes: those with pictures, and the margins."""
        return self.frames + 2 * self.margin


@dataclass
class Losses:
    """The scalar to minimise, and its named parts (detached) for the record."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Bar:
    """Which validation measure counts for a stage, and the trivial result it stands beside."""

    measure: str  # a name in what ``validate`` returns
    baseline: str | float  # another such name, or a constant
    better: Literal["lower", "higher"]
    speakers: Literal["new", "known"]


class StageSettings(Settings):
    """Settings that every stage has; a stage adds its networks' sizes. Values are the preset's."""

    steps: int
    batch: int
    seed: int = 0
    validate_every: int = 0  # steps; 0: at the end only
    checkpoint_every: int = 20  # steps
    accumulate: Annotated[int, Field(ge=1)] = 1  # micro-batches that a worker's share of the batch is computed in
    precision: Literal["float32", "bf16", "fp16"] = "float32"  # of losses, by autocast; weights stay float32
    clip: Annotated[float, Field(ge=0)] = 0.0  # largest gradient norm of a phase; 0: any
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' moving average, the result then; 0: none
    warmup: Annotated[int, Field(ge=0)] = 0  # steps over which the learning rates rise
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rates after that
    exclude_after: Annotated[int, Field(ge=0)] = 3  # steps not finite until a sample is drawn no more; 0: never


class Stage(ABC):
    """A thing trained or computed once, leaving one artifact: networks with their configs."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()  # stages whose networks build_model or compute receives
    presets: ClassVar[Mapping[str, StageSettings]]  # paper, small, tiny
    networks: ClassVar[Mapping[str, type[ModelMixin]]]  # exported networks, by their names in the ModuleDict
    bar: ClassVar[Bar | None] = None

    def __init__(self, settings: StageSettings) -> None:
        self.settings = settings

    @classmethod
    def preset(cls, preset: Preset, **changes: Any) -> Stage:
        """The stage at a preset, with single settings changed. Raises ``Misuse`` for a wrong name."""
        if preset not in cls.presets:
            raise Misuse(f"{cls.name} has no preset {preset!r}; it has {', '.join(cls.presets)}")
        base = cls.presets[preset]
        return cls(type(base).read(base.model_dump() | changes, f"settings of {cls.name}"))

    @property
    @abstractmethod
    def view(self) -> View:
        """What a training item is."""

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """What takes the place of published weights that were not given; the artifact's lineage repeats it."""
        return ()

    def export(self, model: nn.ModuleDict, to: Path) -> None:
        """Write ``to/<network>/`` (config.json and safetensors) for each of ``networks``.

        Raises ``ValueError`` where a weight is not finite.
        """
        for name in self.networks:
            network = model[name]
            for key, value in network.state_dict().items():
                if not torch.isfinite(value).all():
                    raise ValueError(f"{self.name}: {name}.{key} is not finite")
            network.save_pretrained(to / name, safe_serialization=True)

    @classmethod
    def load(cls, path: Path) -> nn.ModuleDict:
        """The exported networks, in eval mode, frozen. Check the artifact's digests first.

        Raises ``Misuse`` where weights and code do not fit: a network is never left with random weights in silence.
        """
        model = nn.ModuleDict()
        for name, kind in cls.networks.items():
            try:
                model[name], found = kind.from_pretrained(
                    path / name, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
                )
            except RuntimeError as error:  # sizes differ
                found = {"sizes": str(error).splitlines()[1:2]}
            wrong = [f"{what}: {', '.join(map(str, keys))}" for what, keys in found.items() if keys]
            if wrong:
                raise Misuse(f"{path / name} was made by other code ({'; '.join(wrong)[:200]}): train {cls.name} again")
        return model.eval().requires_grad_(False)

    def picture(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> np.ndarray | None:
        """What the stage produces on a validation batch, as uint8 [H, W, 3]; None where nothing is to be seen."""
        return None


class TrainedStage(Stage):
    """A stage that learns: what a paper says about training, nothing about running it."""

    phases: ClassVar[tuple[str, ...]] = ("main",)  # each step runs these in order, one optimiser each

    @abstractmethod
    def build_model(self, parents: Mapping[str, nn.ModuleDict]) -> nn.ModuleDict:
        """All modules of the stage, parents' networks (frozen) under their own names among them.

        Called after ``torch.manual_seed``: initialisation may draw from torch's global generator.
        """

    @abstractmethod
    def optimizers(self, model: nn.ModuleDict) -> dict[str, Optimizer]:
        """One optimiser per phase."""

    @abstractmethod
    def loss(self, model: nn.ModuleDict, batch: Batch, phase: str, rng: torch.Generator) -> Losses:
        """The loss of one phase. Every random draw comes from ``rng`` (a generator on the CPU)."""

    @abstractmethod
    def validate(self, model: nn.ModuleDict, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Measures [B], one value per item, under ``no_grad`` and eval mode; baselines beside them."""

    def prepare(self, model: nn.ModuleDict, batches: Iterable[Batch]) -> None:
        """Before the first step (rank 0, result broadcast): statistics of the training data into buffers."""


class ComputedStage(Stage):
    """A stage that is computed in one pass over samples: the face prior."""

    @abstractmethod
    def compute(self, parents: Mapping[str, nn.ModuleDict], batches: Iterable[Batch]) -> nn.ModuleDict:
        """The result as networks holding buffers. ``batches`` is one pass over the drawn samples."""

    def draw(self, genders: Sequence[str], keys: Sequence[str]) -> list[int]:
        """Which samples ``compute`` gets, as positions; all of them unless a stage says otherwise."""
        return list(range(len(keys)))


@dataclass(frozen=True)
class System:
    """One paper: its stages in order of need, what it asks of a user, and its pipeline."""

    name: str
    paper: str
    stages: tuple[type[Stage], ...]
    inputs: frozenset[str]  # {"audio"}, {"audio", "video"}, …
    pipeline: type[TalkingFacePipeline]
    # stage -> settings of ``tiny`` that change where bars are to be met: up to four minutes each on two cores
    proof: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)  # the paper's ablations by number, for ``voxface ablate``

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for stage in self.stages:
            missing = set(stage.needs) - seen
            if missing:
                raise ValueError(f"{self.name}: {stage.name} needs {sorted(missing)} before it")
            seen.add(stage.name)
        if unknown := set(self.proof) - seen:
            raise ValueError(f"{self.name}: there is no stage {sorted(unknown)} to prove")

    def stage(self, name: str) -> type[Stage]:
        """The stage of that name. Raises ``Misuse`` naming those there are."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise Misuse(f"{self.name} has no stage {name!r}; it has {', '.join(s.name for s in self.stages)}")


@dataclass
class Faces:
    """Successive frames of a source video with a face in each; frames without one are nobody's to change.

    ``crops`` uint8 [n, S, S, 3] of frames ``first`` to ``first + n``, aligned like stored crops, S the pipeline's
    ``crop_side``. ``references`` uint8 [k, S, S, 3] and their ``landmarks`` float32 [k, 478, 2] in 0..1 show the same
    person at other moments: k is the pipeline's ``references``; the same arrays for a whole shot. ``points``
    float32 [n, 478, 2] are the landmarks of the crops themselves.
    """

    first: int
    crops: np.ndarray
    references: np.ndarray
    landmarks: np.ndarray
    points: np.ndarray | None = None


@dataclass
class Request:
    """One video to make. ``audio`` float32 [N] at 16 kHz in [-1, 1]; ``portrait`` uint8 [H, W, 3] aligned
    like a stored crop; ``video`` the faces of a source video, in order, for systems that dub."""

    audio: np.ndarray
    seed: int
    portrait: np.ndarray | None = None
    video: Iterator[Faces] | None = None
    steps: int | None = None  # denoising steps; None: the system's own number

    @property
    def frames(self) -> int:
        """Frames of the result: ``round(25 * seconds)``."""
        from contracts.sample import FPS, SAMPLE_RATE

        return round(FPS * len(self.audio) / SAMPLE_RATE)


@dataclass
class Chunk:
    """Successive frames of one request: ``frames`` uint8 [n, H, W, 3], the first being number ``first``.

    A system that dubs gives crops back, one chunk for each of its ``Faces``, and ``mask`` float32 [H, W] in 0..1: how
    far they take the source's place.
    """

    request: int
    first: int
    frames: np.ndarray
    mask: np.ndarray | None = None


@dataclass
class TalkingFace:
    """A whole result: ``frames`` uint8 [T, H, W, 3] at 25 per second, and the portrait used, if any."""

    frames: np.ndarray
    portrait: np.ndarray | None = None


class TalkingFacePipeline(DiffusionPipeline):
    """One interface for every paper. Each request draws from its own generator, seeded by its seed."""

    references: ClassVar[int] = 0  # of a source video that the system wants to see beside each of its frames

    @property
    def crop_side(self) -> int | None:
        """Side of the crops of a source video, px; ``None`` for a system that dubs none."""
        return None

    @classmethod
    def from_stages(cls, stages: Mapping[str, nn.ModuleDict]) -> TalkingFacePipeline:
        """The pipeline over loaded stages (``Stage.load``), by stage name."""
        raise NotImplementedError(f"{cls.__name__} must say how it is put together")

    def stream(self, requests: Sequence[Request]) -> Iterator[Chunk]:
        """Frames of every request in order of time; a batch of two equals two of one."""
        raise NotImplementedError(f"{type(self).__name__} must say how it renders")

    def portrait(self, request: Request) -> np.ndarray | None:
        """The portrait that :meth:`stream` animates, uint8 [H, W, 3], where the system makes one."""
        return request.portrait

    def __call__(
        self,
        *,
        audio: np.ndarray,
        seed: int,
        portrait: np.ndarray | None = None,
        video: Iterator[Faces] | None = None,
        steps: int | None = None,
    ) -> TalkingFace:
        """:meth:`stream` for one request, collected."""
        request = Request(audio=audio, seed=seed, portrait=portrait, video=video, steps=steps)
        chunks = [chunk.frames for chunk in self.stream([request])]
        return TalkingFace(np.concatenate(chunks), self.portrait(request))
