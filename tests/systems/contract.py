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
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from toy_batch import make_batch, take

from systems.base import Batch, ComputedStage, Stage, TrainedStage, View

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4  # relative, of golden losses
ALIKE = 1e-5  # absolute and relative, between a batch of two and two of one


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


@contextmanager
def double_precision() -> Iterator[None]:
    """Networks built and noise drawn inside are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def double(batch: Batch) -> Batch:
    """The batch with its float32 tensors as float64."""
    return {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in batch.items()
    }


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
    @classmethod
    def one_thread(cls) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> Any:
        return cls.stage.preset("tiny", **cls.changes)

    @pytest.fixture(scope="class")
    @classmethod
    def parents(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, nn.ModuleDict]:
        made: dict[str, nn.ModuleDict] = {}
        for kind in cls.lineage:
            stage, folder = kind.preset("tiny"), tmp_path_factory.mktemp(kind.name)
            needed = {name: made[name] for name in kind.needs}
            made[kind.name] = make_artifact(stage, needed, [cls.batch(stage, cls.items, s) for s in (0, 1)], folder)
        return {name: made[name] for name in cls.stage.needs}

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
    @classmethod
    def batches(cls, subject: TrainedStage) -> list[Batch]:
        return [cls.batch(subject, cls.items, seed) for seed in range(10)]

    @pytest.fixture(scope="class")
    @classmethod
    def unbroken(cls, subject: TrainedStage, parents: Any, batches: list[Batch]) -> tuple[nn.ModuleDict, list[Any]]:
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
        inherited = copy.deepcopy({parent: net.state_dict() for parent, net in parents.items()})
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
                assert torch.equal(value, inherited[parent][name]), f"training changed {parent}.{name}"

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

    def test_golden_losses(self, subject: TrainedStage, batches: list[Batch]) -> None:
        """The first ten losses are those on record; a change needs a line in CHANGELOG.md.

        In double precision: in single, ten steps of Adam make one part in ten out of the last bit, which every
        processor rounds in its own way.
        """
        path = GOLDEN / f"{self.system}_{self.stage.name}.txt"
        with double_precision():
            made: dict[str, nn.ModuleDict] = {}
            for kind in self.lineage:
                stage = kind.preset("tiny")
                some = [double(self.batch(stage, self.items, seed)) for seed in (0, 1)]
                needed = {name: made[name] for name in kind.needs}
                model = build(stage, needed, some) if isinstance(stage, TrainedStage) else stage.compute(needed, some)
                networks = nn.ModuleDict({name: model[name] for name in kind.networks})
                made[kind.name] = networks.eval().requires_grad_(False)
            model = build(subject, {name: made[name] for name in self.stage.needs}, [double(b) for b in batches[:2]])
            optimizers = subject.optimizers(model)
            losses = [train_step(subject, model, optimizers, double(batch), i) for i, batch in enumerate(batches)]
        if os.environ.get("VOXFACE_GOLDEN") == "write":
            path.parent.mkdir(exist_ok=True)
            head = f"# {_cpu()}; torch {torch.__version__}; double precision; one line per step, one loss per phase"
            path.write_text("\n".join([head, *(" ".join(f"{value:.9g}" for value in step) for step in losses)]) + "\n")
        assert path.is_file(), f"{path} is missing: run once with VOXFACE_GOLDEN=write"
        np.testing.assert_allclose(np.asarray(losses), np.loadtxt(path, ndmin=2), rtol=TOLERANCE)

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
    @classmethod
    def batches(cls, subject: ComputedStage) -> list[Batch]:
        return [cls.batch(subject, cls.items, seed) for seed in range(3)]

    def test_same_input_same_result_and_export_keeps_it(
        self, subject: ComputedStage, parents: Any, batches: list[Batch], tmp_path: Path
    ) -> None:
        first, second = (subject.compute(parents, batches) for _ in range(2))
        subject.export(first, tmp_path)
        loaded = subject.load(tmp_path)
        assert set(loaded) == set(subject.networks)
        for name in subject.networks:
            for key, value in first[name].state_dict().items():
                assert torch.isfinite(value).all(), key
                assert torch.equal(value, second[name].state_dict()[key]), key
                assert torch.equal(value, loaded[name].state_dict()[key]), key
            assert dict(loaded[name].config) == dict(first[name].config) | {
                "_name_or_path": loaded[name].config["_name_or_path"]
            }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
