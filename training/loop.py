"""The one training loop: what every trained stage of every paper has in common."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from contracts.errors import Misuse
from contracts.files import commit_bytes, sweep
from contracts.settings import canonical_json
from systems.base import Batch, ComputedStage, Stage, TrainedStage
from training import checkpoint, quarantine
from training.averages import Average
from training.checkpoint import Identity, State
from training.draws import Draws
from training.gradients import Precision, average, micro_batches, total_norm
from training.pace import pace, paced
from training.record import Record
from training.validation import Source, describe, draw_picture, generators, move, score, seed_torch

CPU = torch.device("cpu")
IN_A_ROW = 5  # skipped steps, after which training stops
OWN = 2**30  # stands with the rank where a loss draws what cannot be shared out by items
LINES = 500  # about so many training lines a stage's record has

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """Where and on what one stage is trained."""

    folder: Path  # gets metrics.jsonl, checkpoints/, pictures/, validation/
    train: Source
    held_out: Mapping[str, Source]  # "known" and "new", those that are not empty
    identity: Identity
    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    feed: Callable[[int, int], Iterable[Batch]] | None = None  # batches of steps start to stop, if not from ``train``
    stop: Callable[[], bool] | None = None  # rank 0 is asked after each step; true ends training at a checkpoint

    @property
    def first(self) -> bool:
        """Whether this process writes (rank 0)."""
        return self.rank == 0

    def draw(self, stage: Stage, model: nn.ModuleDict, step: int) -> None:
        """Write ``pictures/step-000040.png`` of a held-out batch, if the stage has something to show."""
        source = self.held_out.get("new") or self.held_out.get("known") or self.train
        draw_picture(stage, model, source, self.device, self.folder / "pictures" / f"step-{step:06d}.png")


@dataclass(frozen=True)
class Trained:
    """What training left: the model, finished steps, mean validation measures as ``new/l1``."""

    model: nn.ModuleDict
    steps: int
    skipped: int
    measures: dict[str, float]


def train(stage: TrainedStage, parents: Mapping[str, nn.ModuleDict], course: Course) -> Trained:
    """Train ``stage`` to its number of steps, from its newest checkpoint if there is one.

    A run that is stopped anywhere and started again ends with the same weights, to the bit on CPU.
    Raises ``Misuse`` where losses stay non-finite, or the data differ from the checkpoint's.
    """
    settings = stage.settings
    if not len(course.train):
        course.train.batch(0)  # raises, saying what is missing
    if settings.batch // course.world < settings.accumulate:
        raise Misuse(
            f"{stage.name}: {settings.accumulate} micro-batches for each of {course.world} workers need a batch of "
            f"{settings.accumulate * course.world}, it is {settings.batch}: set accumulate lower"
        )
    torch.manual_seed(settings.seed)
    model = stage.build_model(parents).to(course.device)
    run = Run(stage, model, stage.optimizers(model), course, _foreign(model, parents))
    run.begin()
    batches = run.batches()
    while run.state.step < settings.steps:
        if run.redrawn:
            batches = run.batches()
        began = time.perf_counter()
        batch = next(batches)
        run.step(batch, time.perf_counter() - began)
        step, last = run.state.step, run.state.step == settings.steps
        stopped = not last and run.stopped()
        if settings.validate_every and step % settings.validate_every == 0 and not last:
            run.validate()
        if last or stopped or step % settings.checkpoint_every == 0:
            run.save()
        if stopped:
            break
    measures = run.validate()
    if run.average is not None:
        run.average.give(run.weights())
    if course.first:
        run.record.append("end", run.state.step, measures, skipped=run.state.skipped)
        run.record.sync()
    return Trained(model.eval(), run.state.step, run.state.skipped, measures)


def compute(
    stage: ComputedStage, parents: Mapping[str, nn.ModuleDict], course: Course, genders: Sequence[str]
) -> Trained:
    """Compute ``stage`` in one pass over the samples that it draws; ``genders`` by position in ``course.train``."""
    began = time.perf_counter()
    keys = list(course.train.speaker_of)
    positions = stage.draw(genders, keys)
    record = Record(course.folder)
    record.cut(-1)
    record.append("start", 0, {}, steps=1, world=course.world, device=str(course.device))
    torch.manual_seed(stage.settings.seed)
    model = stage.compute(
        {name: parent.to(course.device) for name, parent in parents.items()},
        (move(batch, course.device) for batch in course.train.passes(positions)),
    )
    values = {"samples": float(len(positions)), "seconds/step": time.perf_counter() - began}
    record.append("train", 1, values)
    course.draw(stage, model, 1)
    record.append("end", 1, {})
    record.sync()
    return Trained(model.eval(), 1, 0, {})


@dataclass
class Run:
    """One stage in training: the state that changes from step to step."""

    stage: TrainedStage
    model: nn.ModuleDict
    optimizers: Mapping[str, Optimizer]
    course: Course
    foreign: frozenset[str]  # frozen networks of parents: in no checkpoint, never in training mode
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        self.record = Record(self.course.folder)
        self.checkpoints = self.course.folder / "checkpoints"
        self.every = max(1, self.stage.settings.steps // LINES)
        settings = self.stage.settings
        self.precision = Precision(settings.precision, self.course.device, self.stage.phases)
        self.rates = {p: [group["lr"] for group in o.param_groups] for p, o in self.optimizers.items()}
        self.statistics = [
            (module, name)
            for place, module in self.model.named_modules()
            if place.split(".", 1)[0] not in self.foreign
            for name, _ in module.named_buffers(recurse=False)
        ]
        self.average: Average | None = None  # rank 0 keeps it, from begin() on
        self.redrawn = False  # whether batches already read ahead hold a sample that is no longer drawn

    def batches(self) -> Iterator[Batch]:
        """Batches of the steps that are left."""
        self.redrawn = False
        self.course.train.exclude(self.state.excluded)
        return iter((self.course.feed or self.read)(self.state.step, self.stage.settings.steps))

    def read(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches straight from the reader, in this process."""
        return (self.course.train.batch(step) for step in range(start, stop))

    def begin(self) -> None:
        """Resume from the newest whole checkpoint, or prepare; then all ranks hold what rank 0 holds."""
        course = self.course
        if course.first:
            sweep(self.checkpoints)
            found = checkpoint.newest(self.checkpoints, course.identity)
            if found:
                self._restore(found)
            else:
                for left in ("pictures", "validation"):  # of another run
                    shutil.rmtree(course.folder / left, ignore_errors=True)
                self.stage.prepare(self.model, (move(batch, course.device) for batch in course.train.passes()))
            self.record.cut(self.state.step if found else -1)
            quarantine.write(course.folder, self.state)
            self.record.append(
                "start",
                self.state.step,
                {},
                steps=self.stage.settings.steps,
                world=course.world,
                device=str(course.device),
            )
        if course.world > 1:
            step = torch.tensor([self.state.step], device=course.device)
            distributed.broadcast(step, 0)
            if not course.first and int(step):
                self._restore(checkpoint.load(self.checkpoints / f"step-{int(step):09d}", course.identity))
            self._share(self.model.state_dict().values())
        if self.stage.settings.ema and course.first:
            self.average = Average(self.stage.settings.ema, self.weights())
            if found and found.average:
                self.average.restore(found.average)
        self._training_mode()

    def step(self, batch: Batch, waited: float) -> None:
        """One step: every phase's loss, gradients averaged over ranks, its optimiser."""
        began = time.perf_counter()
        course, state, settings = self.course, self.state, self.stage.settings
        batch = move(batch, course.device)
        values: dict[str, float] = {}
        bad, due = None, course.first and ((state.step + 1) % self.every == 0 or state.step + 1 == settings.steps)
        statistics = [(buffer, buffer.clone()) for buffer in self._buffers()]
        for number, phase in enumerate(self.stage.phases):
            optimizer = self.optimizers[phase]
            if paced(settings):
                for group, rate in zip(optimizer.param_groups, self.rates[phase], strict=True):
                    group["lr"] = rate * pace(settings, state.step)
            optimizer.zero_grad(set_to_none=True)
            total, terms = self._backward(batch, phase, number)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if course.world > 1:
                total = average(parameters, total, len(batch["key"]) / settings.batch)
            scaler, reached = self.precision.scalers.get(phase), float(total)
            if scaler is not None and isfinite(reached):
                scaler.unscale_(optimizer)
            norm = total_norm(parameters)
            finite = isfinite(reached) and isfinite(norm)
            smaller = scaler is not None and isfinite(reached) and not finite and scaler.get_scale() > 1
            if not finite and not smaller:
                bad = phase
                if scaler is not None and isfinite(reached):
                    scaler.update()
                break
            if finite and settings.clip:
                nn.utils.clip_grads_with_norm_(parameters, settings.clip, norm)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)  # passes over gradients that the scale was too large for
                scaler.update()
                state.overflows += smaller
            if due:  # each of these waits for the device
                values[f"{phase}/total"] = reached
                values |= {f"{phase}/{name}": float(term) for name, term in terms.items()}
                values[f"grad_norm/{phase}"] = float(norm)
                values[f"lr/{phase}"] = float(optimizer.param_groups[0]["lr"])
                if scaler is not None:
                    values[f"scale/{phase}"] = scaler.get_scale()
        state.step += 1
        if bad is not None:
            for buffer, before in statistics:  # a value that is not finite would stay in running statistics for good
                buffer.copy_(before)
            self._skip(bad)
            return
        state.in_a_row = 0
        if state.named:
            quarantine.acquit(state, course.train.keys(state.step - 1))
        if self.average is not None:
            self.average.follow(self.weights(), state.step)
        if due:
            values |= {"seconds/step": time.perf_counter() - began, "seconds/wait": waited, "skipped": state.skipped}
            if state.excluded:
                values["excluded"] = len(state.excluded)
            if self.precision.scalers:
                values["overflows"] = state.overflows
            self.record.append("train", state.step, values)

    def _backward(self, batch: Batch, phase: str, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the phase on this rank's items; its loss and terms, means over micro-batches.

        Every rank and micro-batch draws from a generator seeded alike, of which :class:`Draws` gives it its
        own items' numbers; dropout has a seed for each rank.
        """
        course, settings, step = self.course, self.stage.settings, self.state.step
        rng, dropout = generators(settings.seed, step, course.rank, number)
        seed_torch(dropout, course.device)
        if course.world == settings.accumulate == 1:
            with self.precision.casting():
                losses = self.stage.loss(self.model, batch, phase, rng)
            self.precision.scale(phase, losses.total).backward()
            return losses.total.detach(), {name: term.detach() for name, term in losses.terms.items()}
        items, before = len(batch["key"]), settings.batch * course.rank // course.world
        own, _ = generators(settings.seed, step, OWN + course.rank, number)
        total, terms = torch.zeros((), device=course.device), dict[str, Tensor]()
        for first, stop, part in micro_batches(batch, settings.accumulate):
            rng, _ = generators(settings.seed, step, 0, number)
            share = (stop - first) / items
            with self.precision.casting(), Draws(rng, own, before + first, before + stop, settings.batch):
                losses = self.stage.loss(self.model, part, phase, rng)
            self.precision.scale(phase, losses.total * share).backward()
            total += losses.total.detach() * share
            for name, term in losses.terms.items():
                terms[name] = terms.get(name, 0) + term.detach() * share
        return total, terms

    def stopped(self) -> bool:
        """Whether training ends here: rank 0 decides for all, or one would wait for ever for another's next step."""
        course = self.course
        if course.stop is None:
            return False
        told = torch.tensor([bool(course.first and course.stop())], dtype=torch.uint8, device=course.device)
        if course.world > 1:
            distributed.broadcast(told, 0)
        return bool(told)

    def validate(self) -> dict[str, float]:
        """Measures on held-out items and a picture, by rank 0; values per item go to ``validation/<split>.json``."""
        if self.average is None:
            return self._validate()
        with self.average.worn(self.weights()):
            return self._validate()

    def _validate(self) -> dict[str, float]:
        measures: dict[str, float] = {}
        if self.course.first:
            for split, source in self.course.held_out.items():
                scores = score(self.stage, self.model, source, self.course.device)
                means = {f"{split}/{name}": value for name, value in scores.means().items()}
                measures |= means
                self.record.append("validation", self.state.step, means, split=split)
                commit_bytes(
                    self.course.folder / "validation" / f"{split}.json",
                    canonical_json(describe(scores, source.speaker_of, self.state.step)).encode(),
                )
            self.course.draw(self.stage, self.model, self.state.step)
            self._training_mode()
        return measures

    def save(self) -> None:
        """One checkpoint by rank 0, whose running statistics every rank then holds (as after a resumption)."""
        if self.course.world > 1:
            self._share(buffer for buffer in self.model.buffers() if buffer.is_floating_point())
        self.state.world = self.course.world
        if self.course.first:
            self.record.sync()
            self.state.scalers = self.precision.state()
            followed = self.average.values if self.average else None
            identity, weights = self.course.identity, self.weights()
            checkpoint.save(self.checkpoints, identity, self.state, weights, self.optimizers, followed)

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        self.state = found.state
        own = set(self.weights())
        if own != set(found.model):
            raise Misuse(f"{self.checkpoints} holds other networks than the stage builds: remove it to begin anew")
        self.model.load_state_dict(found.model, strict=False)
        for phase, optimizer in self.optimizers.items():
            optimizer.load_state_dict(found.optimizers[phase])
        self.precision.restore(found.state.scalers)

    def weights(self) -> dict[str, Tensor]:
        """The stage's own weights and statistics: all but networks of parents."""
        return {k: v for k, v in self.model.state_dict().items() if k.split(".", 1)[0] not in self.foreign}

    def _buffers(self) -> Iterator[Tensor]:
        return (getattr(module, name) for module, name in self.statistics)

    def _training_mode(self) -> None:
        for module in self.model.values():
            module.train(any(parameter.requires_grad for parameter in module.parameters()))

    def _share(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            distributed.broadcast(tensor.data, 0)

    def _skip(self, phase: str) -> None:
        state, settings = self.state, self.stage.settings
        keys = self.course.train.keys(state.step - 1)
        state.skipped, state.in_a_row = state.skipped + 1, state.in_a_row + 1
        logger.warning("%s step %d: %s is not finite, skipped", self.stage.name, state.step, phase)
        spare = len(self.course.train) - settings.batch
        out = quarantine.name(state, keys, phase, settings.exclude_after, spare)
        self.redrawn = bool(out)
        if self.course.first:
            self.record.append("skipped", state.step, {"skipped": state.skipped}, phase=phase, keys=keys, out=out)
            quarantine.write(self.course.folder, state)
        if state.in_a_row >= IN_A_ROW:
            self.record.sync()
            raise Misuse(
                f"{self.stage.name}: {IN_A_ROW} steps in a row were not finite, the last at step {state.step}: "
                f"lower its learning rate; the last good weights stand in {self.checkpoints}"
            )


def _foreign(model: nn.ModuleDict, parents: Mapping[str, nn.ModuleDict]) -> frozenset[str]:
    theirs = {id(module) for parent in parents.values() for module in parent.values()}
    return frozenset(
        name
        for name, module in model.items()
        if id(module) in theirs and not any(parameter.requires_grad for parameter in module.parameters())
    )
