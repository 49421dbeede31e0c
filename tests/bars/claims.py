"""A claim: what a stage reached, item by item, beside what needs no learning, and whether that is a bar.

``tests/bars/<system>.py`` may hold ``CLAIMS``: for each stage a function from a :class:`Subject` to claims; comparisons
are computed there, not by the stage. Stages without one are held to their own ``bar``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from systems.base import Batch, TrainedStage
from training.data import Reader, Subset
from training.evaluate import Line, beside, judge, told
from training.prove import Proof
from training.validation import VALIDATING, Scores, generators, move, score

DRAW_APART = 10_000  # between the seeds of two draws of windows


@dataclass(frozen=True)
class Claim:
    """``ours[i]`` beside ``other[i]``, the comparison named ``baseline``, for the item ``keys[i]``."""

    measure: str
    baseline: str
    better: str
    split: str
    keys: Sequence[str]
    ours: Sequence[float]
    other: Sequence[float]
    bar: bool


@dataclass(frozen=True)
class Subject:
    """A trained stage and everything that a comparison may want to look at."""

    proof: Proof
    stage: TrainedStage
    model: nn.ModuleDict

    @cached_property
    def readers(self) -> Mapping[Subset, Reader]:
        """Of the splits that have items."""
        found = {split: self.proof.reader(self.stage, split) for split in self.proof.halves}
        return {split: reader for split, reader in found.items() if len(reader)}

    @cached_property
    def scores(self) -> Mapping[Subset, Scores]:
        """What the stage itself measures, on each split."""
        device = self.proof.place.device
        return {split: score(self.stage, self.model, reader, device) for split, reader in self.readers.items()}

    def rng(self) -> torch.Generator:
        """The generator that validation gets, for the same draws."""
        rng, dropout = generators(self.stage.settings.seed, 0, VALIDATING, 0)
        torch.manual_seed(dropout)
        return rng

    def batches(self, subset: Subset, *more: str, draw: int = 0) -> Iterator[Batch]:
        """One pass over a subset, the same windows each time, with ``more`` fields than the stage asks for.

        Another ``draw`` takes other windows of the same clips; 0 those that validation has.
        """
        view = self.stage.view
        reader = self.proof.reader(self.stage, subset, replace(view, fields=(*view.fields, *more)))
        reader.seed += draw * DRAW_APART
        with torch.no_grad():
            for batch in reader.passes():
                yield move(batch, self.proof.place.device)

    def each(self, split: Subset, measure: Callable[[Batch], Tensor], draws: int = 1) -> list[float]:
        """A measure [B] of every batch, item by item; the mean over ``draws`` windows of every clip."""
        passes = (torch.cat([measure(batch) for batch in self.batches(split, draw=i)]) for i in range(draws))
        return torch.stack([values.double().cpu() for values in passes]).mean(0).tolist()

    def claim(
        self,
        split: Subset,
        measure: str,
        baseline: str,
        better: str,
        ours: str | Sequence[float],
        other: str | float | Sequence[float],
        *,
        on: str = "",
    ) -> Claim:
        """A claim about all items of a split; names stand for the stage's own measures. ``on``: the bar's split."""
        scores = self.scores[split]
        ours, other = (scores.values[values] if isinstance(values, str) else values for values in (ours, other))
        other = [float(other)] * len(scores.keys) if isinstance(other, int | float) else other
        return Claim(measure, baseline, better, split, scores.keys, ours, other, split == on)


Claims = Callable[[Subject], Iterable[Claim]]


def of_system(system: str) -> Mapping[str, Claims]:
    """The comparisons that are written for a system, by stage; none where nobody has written any."""
    name = f"bars.{system}"
    return importlib.import_module(name).CLAIMS if importlib.util.find_spec(name) else {}


def examine(proof: Proof, stage: TrainedStage, model: nn.ModuleDict) -> list[Line]:
    """The stage's lines: its claims, or its own bar, then whatever else it measures."""
    subject = Subject(proof, stage, model.eval())
    make = of_system(proof.house.name).get(stage.name)
    lines: list[Line] = []
    if make is None:
        for split, reader in subject.readers.items():
            lines += judge(stage.name, stage.bar, split, subject.scores[split], reader.speaker_of)
        return lines
    said: dict[str, set[str]] = {}
    for claim in make(subject):
        speaker_of = subject.readers[claim.split].speaker_of
        about: dict[str, Any] = {"stage": stage.name, "measure": claim.measure, "split": claim.split}
        about["baseline"] = claim.baseline
        speakers = [speaker_of[key] for key in claim.keys]
        lines.append(beside(about, claim.ours, claim.other, speakers, claim.better, bar=claim.bar))
        said.setdefault(claim.split, set()).add(claim.measure)
    for split, reader in subject.readers.items():
        lines += told(stage.name, split, subject.scores[split], reader.speaker_of, said.get(split, set()))
    return lines
