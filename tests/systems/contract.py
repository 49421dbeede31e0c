"""The battery that every stage inherits: a subclass names the stage and its parents, and gets the tests.

    from contract import TrainedContract

    class TestConre(TrainedContract):
        system = "see_the_speaker"
        stage = Conre
        lineage = ()                        # the stages it needs, in order of need

``VOXFACE_GOLDEN=write pytest tests/systems -k golden`` writes the golden losses anew.
"""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from systems.base import Batch, ComputedStage, Stage, TrainedStage, View

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4  # relative, of golden losses: other CPUs sum in another order
ALIKE = 1e-5  # absolute and relative, between a batch of two and two of one


# ------------------------------------------------------------------ batches
def make_batch(view: View, items: int, seed: int = 0) -> Batch:
    """A batch as the loader makes it: a drawn face per item whose mouth, landmarks and sound belong together.

    Item i has speaker i (hue, pitch, size of the face), gender i % 2, and motion of its own.
    """
    rng = np.random.default_rng([seed, items])
    n, size, width = view.frames, view.size, (view.frames + 2 * view.context) * 640
    count = max(50, n + 10)
    start = rng.integers(0, count - n + 1, items)
    index = (
        start[:, None] + np.arange(n)
        if view.pick == "successive"
        else np.stack([rng.permutation(count)[:n] for _ in range(items)])
    )
    time = (index + rng.uniform(0, 9, (items, 1))) / 25.0
    mouth = 0.5 + 0.5 * np.sin(2 * np.pi * 3.1 * time)  # [B, n] opening, 0..1
    turn = 0.06 * np.sin(2 * np.pi * 0.7 * time)  # [B, n] sideways, of the view
    speaker = np.arange(items)
    hue = np.random.default_rng(seed).uniform(-0.7, 0.7, (items, 3))
    batch: Batch = {
        "key": [f"toy-{seed}-{i}" for i in speaker],
        "index": torch.from_numpy(index.astype(np.int64)),
        "count": torch.full((items,), count),
    }
    if "frames" in view.fields:
        frames = [[draw_face(size, hue[b], mouth[b, t], turn[b, t]) for t in range(n)] for b in range(items)]
        batch["frames"] = torch.from_numpy(np.asarray(frames, np.float32))
    if "landmarks" in view.fields:
        points = [[place_landmarks(mouth[b, t], turn[b, t], b) for t in range(n)] for b in range(items)]
        batch["landmarks"] = torch.from_numpy(np.asarray(points, np.float32))
    if "audio" in view.fields:
        batch["audio"] = torch.from_numpy(make_sound(view, index, mouth, speaker, width, rng))
    if "spectrogram" in view.fields:
        batch["spectrogram"] = torch.from_numpy(make_spectrogram(speaker, rng))
    if "speaker" in view.fields:
        batch["speaker"] = torch.from_numpy(speaker)
    if "gender" in view.fields:
        batch["gender"] = torch.from_numpy(speaker % 2)
    return batch


def draw_face(size: int, hue: np.ndarray, mouth: float, turn: float) -> np.ndarray:
    """A face of soft ellipses [3, size, size] in [-1, 1]."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    image = np.full((3, size, size), -0.6) + 0.2 * x

    def spot(cx: float, cy: float, rx: float, ry: float, colour: Any) -> None:
        inside = 1 / (1 + np.exp(np.clip((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 - 1) * 12, -40, 40)))
        image[:] = image * (1 - inside) + np.asarray(colour).reshape(3, 1, 1) * inside

    middle = 0.5 + turn
    spot(middle, 0.5, 0.3, 0.4, 0.3 + 0.5 * hue)
    for side in (-0.11, 0.11):
        spot(middle + side, 0.42, 0.05, 0.03, [0.8, 0.8, 0.8])
    spot(middle, 0.7, 0.1, 0.015 + 0.05 * mouth, [-0.2, -0.8, -0.8])
    return np.clip(image, -1, 1)


def place_landmarks(mouth: float, turn: float, speaker: int) -> np.ndarray:
    """478 points [478, 2] in 0..1: scattered over the face, with lips, eyes and oval where mediapipe has them."""
    from contracts import face

    points = _scatter().copy()

    def ring(ids: Any, cx: float, cy: float, rx: float, ry: float) -> None:
        angle = 2 * np.pi * np.arange(len(ids)) / len(ids)
        points[list(ids)] = np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1)

    opening = 0.01 + 0.05 * mouth
    ring(face.LIPS, 0.5, 0.7, 0.1, 0.02 + opening)
    ring(face.RIGHT_EYE, 0.39, 0.42, 0.05, 0.02)
    ring(face.LEFT_EYE, 0.61, 0.42, 0.05, 0.02)
    points[[61, 291]] = [[0.4, 0.7], [0.6, 0.7]]
    points[[13, 14]] = [[0.5, 0.7 - opening], [0.5, 0.7 + opening]]
    middle = np.array([0.5, 0.5])
    return (points - middle) * (1 + 0.02 * (speaker % 5)) + middle + np.array([turn, 0.0])


@cache
def _scatter() -> np.ndarray:
    return 0.5 + np.random.default_rng(0).uniform(-0.25, 0.25, (478, 2))


def make_sound(
    view: View, index: np.ndarray, mouth: np.ndarray, speaker: np.ndarray, width: int, rng: np.random.Generator
) -> np.ndarray:
    """A hum at each speaker's pitch, as loud as the mouth is open; [B, width] or [B, n, (2 c + 1) * 640]."""
    pitch = 110.0 * 1.3 ** (speaker % 6)
    if view.pick == "random":
        width = (2 * view.context + 1) * 640
        starts, loud = index - view.context, np.repeat(mouth[..., None], width, -1)
    else:
        starts = index[:, :1] - view.context
        place = np.linspace(0, mouth.shape[1] - 1, width) if mouth.shape[1] > 1 else np.zeros(width)
        loud = np.stack([np.interp(place, np.arange(mouth.shape[1]), row) for row in mouth])[:, None]
    time = starts[..., None] / 25.0 + np.arange(width) / 16_000
    tone = np.sin(2 * np.pi * pitch[:, None, None] * time) + 0.5 * np.sin(4 * np.pi * pitch[:, None, None] * time)
    sound = 0.3 * loud * tone + 0.01 * rng.standard_normal(tone.shape)
    return (sound if view.pick == "random" else sound[:, 0]).astype(np.float32)


def make_spectrogram(speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Harmonics at each speaker's pitch, signs as random as phases are; [B, 2, 257, 598]."""
    bins = np.arange(257)[None, :, None]
    pitch = (4.0 + 1.5 * (speaker % 6))[:, None, None]  # in bins of 31.25 Hz
    comb = np.exp(-(((bins + pitch / 2) % pitch - pitch / 2) ** 2)) * np.exp(-bins / 60)
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * np.arange(598) / 25 + speaker[:, None])[:, None, :]
    signs = rng.choice([-1.0, 1.0], (len(speaker), 2, 257, 598))
    return (signs * (comb * beat)[:, None] + 0.02 * rng.standard_normal(signs.shape)).astype(np.float32)


def take(batch: Batch, items: slice) -> Batch:
    """The batch of some items."""
    return {name: values[items] for name, values in batch.items()}


# ------------------------------------------------------------------ running a stage
def generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step, as the training loop makes it: one per (seed, step)."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def build(stage: TrainedStage, parents: Mapping[str, nn.ModuleDict], batches: list[Batch]) -> nn.ModuleDict:
    """The stage's modules before the first step, initialised by the stage's seed."""
    torch.manual_seed(stage.settings.seed)
    model = stage.build_model(parents)
    stage.prepare(model, batches)
    return model


def train_step(
    stage: TrainedStage, model: nn.ModuleDict, optimizers: dict[str, Any], batch: Batch, step: int
) -> list[float]:
    """One step of every phase, as the training loop does it; the total losses."""
    model.train()
    rng, totals = generator(stage.settings.seed, step), []
    for phase in stage.phases:
        optimizers[phase].zero_grad(set_to_none=True)
        losses = stage.loss(model, batch, phase, rng)
        losses.total.backward()
        optimizers[phase].step()
        totals.append(float(losses.total.detach()))
    return totals


def make_artifact(stage: Stage, parents: Mapping[str, nn.ModuleDict], batches: list[Batch], to: Path) -> nn.ModuleDict:
    """What the stage's dependants receive: untrained (or computed), exported and loaded."""
    if isinstance(stage, TrainedStage):
        model = build(stage, parents, batches)
    else:
        assert isinstance(stage, ComputedStage)
        model = stage.compute(parents, batches)
    stage.export(model, to)
    return stage.load(to)


# ------------------------------------------------------------------ the batteries
class StageContract:
    """What trained and computed stages share."""

    system: ClassVar[str]
    stage: ClassVar[type[Stage]]
    lineage: ClassVar[tuple[type[Stage], ...]] = ()
    changes: ClassVar[dict[str, Any]] = {}  # to the preset "tiny", for speed
    items: ClassVar[int] = 4  # per batch

    @classmethod
    def batch(cls, stage: Stage, items: int, seed: int) -> Batch:
        """A batch for any stage of the lineage; override for data that :func:`make_batch` does not know."""
        return make_batch(stage.view, items, seed)

    @pytest.fixture(scope="class", autouse=True)
    def one_thread(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @pytest.fixture(scope="class")
    def subject(self) -> Any:
        return type(self).stage.preset("tiny", **self.changes)

    @pytest.fixture(scope="class")
    def parents(self, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, nn.ModuleDict]:
        made: dict[str, nn.ModuleDict] = {}
        for kind in self.lineage:
            stage, folder = kind.preset("tiny"), tmp_path_factory.mktemp(kind.name)
            needed = {name: made[name] for name in kind.needs}
            made[kind.name] = make_artifact(stage, needed, [self.batch(stage, self.items, s) for s in (0, 1)], folder)
        return {name: made[name] for name in type(self).stage.needs}

    def test_has_three_presets(self) -> None:
        assert set(self.stage.presets) == {"paper", "small", "tiny"}
        for name in ("paper", "small", "tiny"):
            assert isinstance(self.stage.preset(name).view, View)


class TrainedContract(StageContract):
    """The battery of a trained stage."""

    no_gradient: ClassVar[tuple[str, ...]] = ()  # prefixes of trainable parameters that may stay without a gradient
    batch_measures: ClassVar[tuple[str, ...]] = ()  # validation measures that compare the items of a batch
    fall: ClassVar[float] = 1.0  # thirty steps on one batch: the last losses stay below this share of the first
    paper_parents: ClassVar[Mapping[str, Callable[[], nn.ModuleDict]]] = {}  # for parents that are computed
    paper_parameters: ClassVar[float | None] = None  # trainable, in millions, at preset "paper"

    @pytest.fixture(scope="class")
    def batches(self, subject: TrainedStage) -> list[Batch]:
        return [self.batch(subject, self.items, seed) for seed in range(10)]

    @pytest.fixture(scope="class")
    def unbroken(self, subject: TrainedStage, parents: Any, batches: list[Batch]) -> tuple[nn.ModuleDict, list[Any]]:
        """Ten steps in one go: the model and its losses."""
        model = build(subject, parents, batches[:2])
        optimizers = subject.optimizers(model)
        losses = [train_step(subject, model, optimizers, batch, step) for step, batch in enumerate(batches)]
        return model, losses

    def test_every_phase_has_a_finite_loss(self, subject: TrainedStage, parents: Any, batches: list[Batch]) -> None:
        model = build(subject, parents, batches[:2]).train()
        assert set(subject.optimizers(model)) == set(subject.phases)
        for phase in subject.phases:
            drawn = torch.get_rng_state()
            losses = subject.loss(model, batches[0], phase, generator(0, 0))
            assert torch.equal(drawn, torch.get_rng_state()), "the loss draws from torch's global generator"
            assert losses.total.ndim == 0
            assert torch.isfinite(losses.total)
            assert losses.total.requires_grad
            for name, term in losses.terms.items():
                assert torch.isfinite(term).all(), name
                assert not term.requires_grad, f"{name} is not detached"

    def test_gradients_reach_the_trainable_and_only_those(
        self, subject: TrainedStage, parents: Any, batches: list[Batch]
    ) -> None:
        model = build(subject, parents, batches[:2])
        optimizers = subject.optimizers(model)
        optimized = {id(p) for o in optimizers.values() for group in o.param_groups for p in group["params"]}
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert {id(p) for p in trainable.values()} == optimized, "trainable and optimised parameters differ"
        inherited = {
            f"{parent}.{name}": value.clone()
            for parent, net in parents.items()
            for name, value in net.state_dict().items()
        }
        frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
        silent = set(trainable)
        for step in range(3):
            train_step(subject, model, optimizers, batches[step], step)
            silent -= {n for n in silent if (grad := trainable[n].grad) is not None and bool(grad.abs().sum() > 0)}
        silent = {name for name in silent if not name.startswith(self.no_gradient or ("\0",))}
        assert not silent, f"no gradient reached {sorted(silent)}"
        for name, value in frozen.items():
            assert model.get_parameter(name).grad is None, name
            assert torch.equal(model.get_parameter(name), value), name
        for parent, net in parents.items():
            for name, value in net.state_dict().items():
                assert torch.equal(value, inherited[f"{parent}.{name}"]), f"training changed {parent}.{name}"

    def test_thirty_steps_on_one_batch_reduce_the_loss(
        self, subject: TrainedStage, parents: Any, batches: list[Batch]
    ) -> None:
        model = build(subject, parents, batches[:2])
        optimizers = subject.optimizers(model)
        losses = [train_step(subject, model, optimizers, batches[0], step)[0] for step in range(30)]
        assert np.mean(losses[-5:]) < self.fall * np.mean(losses[:5]), losses

    def test_stop_and_resume_is_the_unbroken_run(
        self, subject: TrainedStage, parents: Any, batches: list[Batch], unbroken: Any
    ) -> None:
        model = build(subject, parents, batches[:2])
        optimizers = subject.optimizers(model)
        losses = [train_step(subject, model, optimizers, batches[step], step) for step in range(5)]
        assert losses == unbroken[1][:5], "the same seed gave other losses"
        kept = copy.deepcopy([model.state_dict(), {name: o.state_dict() for name, o in optimizers.items()}])

        torch.manual_seed(12345)
        model = subject.build_model(parents)
        optimizers = subject.optimizers(model)
        model.load_state_dict(kept[0])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(kept[1][name])
        losses += [train_step(subject, model, optimizers, batches[step], step) for step in range(5, 10)]
        assert losses == unbroken[1]
        whole = unbroken[0].state_dict()
        for name, value in model.state_dict().items():
            assert torch.equal(value, whole[name]), f"{name} differs after resuming"

    def test_export_and_load_give_the_same_output(
        self, subject: TrainedStage, parents: Any, batches: list[Batch], unbroken: Any, tmp_path: Path
    ) -> None:
        model = unbroken[0].eval()
        subject.export(model, tmp_path)
        kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
        assert kinds == {".json", ".safetensors"}
        loaded = subject.load(tmp_path)
        assert set(loaded) == set(subject.networks)
        assert not any(p.requires_grad for p in loaded.parameters())
        again = nn.ModuleDict({**dict(model.items()), **dict(loaded.items())}).eval()
        for name, value in self._validate(subject, model, batches[0]).items():
            assert torch.equal(value, self._validate(subject, again, batches[0])[name]), name

    def test_a_batch_of_two_is_two_of_one(self, subject: TrainedStage, batches: list[Batch], unbroken: Any) -> None:
        model = unbroken[0].eval()
        pair = self._validate(subject, model, take(batches[0], slice(0, 2)))
        alone = [self._validate(subject, model, take(batches[0], slice(i, i + 1))) for i in (0, 1)]
        for name, value in pair.items():
            assert value.shape == (2,), f"{name} is not one value per item"
            assert torch.isfinite(value).all(), name
            if name not in self.batch_measures:
                torch.testing.assert_close(
                    value, torch.cat([one[name] for one in alone]), rtol=ALIKE, atol=ALIKE, msg=name
                )

    def test_bar_names_measures(self, subject: TrainedStage, batches: list[Batch], unbroken: Any) -> None:
        measures = self._validate(subject, unbroken[0].eval(), batches[0])
        if subject.bar is not None:
            assert subject.bar.measure in measures
            assert isinstance(subject.bar.baseline, float) or subject.bar.baseline in measures

    def test_picture(self, subject: TrainedStage, batches: list[Batch], unbroken: Any) -> None:
        with torch.no_grad():
            picture = subject.picture(unbroken[0].eval(), batches[0], generator(0, 0))
        if picture is not None:
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
            assert picture.shape[2] == 3
            assert picture.std() > 0, "nothing is to be seen"

    def test_golden_losses(self, unbroken: Any) -> None:
        """The first ten losses are those on record; a change needs a line in CHANGELOG.md."""
        path = GOLDEN / f"{self.system}_{self.stage.name}.txt"
        if os.environ.get("VOXFACE_GOLDEN") == "write":
            path.parent.mkdir(exist_ok=True)
            lines = [" ".join(f"{value:.9g}" for value in step) for step in unbroken[1]]
            path.write_text(f"# {_cpu()}; torch {torch.__version__}; one line per step, one loss per phase\n")
            path.write_text(path.read_text() + "\n".join(lines) + "\n")
        assert path.is_file(), f"{path} is missing: run once with VOXFACE_GOLDEN=write"
        golden = np.loadtxt(path, ndmin=2)
        np.testing.assert_allclose(np.asarray(unbroken[1]), golden, rtol=TOLERANCE)

    def test_paper_preset_builds(self) -> None:
        """At the paper's sizes, on the ``meta`` device: shapes and counts without memory."""
        built: dict[str, nn.ModuleDict] = {}
        with torch.device("meta"):
            for kind in self.lineage:
                stage = kind.preset("paper")
                if isinstance(stage, TrainedStage):
                    model = stage.build_model({name: built[name] for name in kind.needs})
                    built[kind.name] = nn.ModuleDict({name: model[name] for name in kind.networks})
                else:
                    built[kind.name] = self.paper_parents[kind.name]()
            subject = self.stage.preset("paper")
            assert isinstance(subject, TrainedStage)
            model = subject.build_model({name: built[name] for name in self.stage.needs})
            subject.optimizers(model)
        millions = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
        assert millions > 0
        if self.paper_parameters is not None:
            assert millions == pytest.approx(self.paper_parameters, rel=0.001)

    @staticmethod
    def _validate(stage: TrainedStage, model: nn.ModuleDict, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return stage.validate(model, batch, generator(0, 0))


class ComputedContract(StageContract):
    """The battery of a computed stage."""

    @pytest.fixture(scope="class")
    def batches(self, subject: ComputedStage) -> list[Batch]:
        return [self.batch(subject, self.items, seed) for seed in range(3)]

    def test_same_input_same_result_and_export_keeps_it(
        self, subject: ComputedStage, parents: Any, batches: list[Batch], tmp_path: Path
    ) -> None:
        first, second = (subject.compute(parents, batches) for _ in range(2))
        subject.export(first, tmp_path)
        loaded = subject.load(tmp_path)
        assert set(loaded) == set(subject.networks)
        for name, value in first.state_dict().items():
            assert torch.isfinite(value).all(), name
            assert torch.equal(value, second.state_dict()[name]), name
            assert torch.equal(value, loaded.state_dict()[name]), name
        for name in subject.networks:
            assert dict(loaded[name].config) == dict(first[name].config) | {
                "_name_or_path": loaded[name].config["_name_or_path"]
            }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
