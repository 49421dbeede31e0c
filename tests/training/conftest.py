"""Fixtures of the training room: a stage of the toy system, ready to be run by the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.selection import read_selection
from systems import catalogue
from systems.base import Stage
from training.agenda import TrainRequest, build_stage, lineage_of, mark_done, names, pending
from training.checkpoint import Identity
from training.data import Reader
from training.loop import Course
from training.stages import Half, Place, run_stage

IDENTITY = Identity(data="d" * 64, recipe="r" * 64)


@pytest.fixture(autouse=True)
def _one_thread_of_torch() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def toy_stage(toy_system: str) -> Callable[..., Stage]:
    """``toy_stage("coder", steps=8)``: a stage of the toy system at ``tiny``."""
    return lambda name, **changes: catalogue.get(toy_system).stage(name).preset("tiny", **changes)


@pytest.fixture
def course_for(small_dataset: Any) -> Callable[..., Course]:
    """``course_for(stage, folder, **changes)``: the small dataset's readers, one process on the CPU."""

    def make(stage: Stage, folder: Path, **changes: Any) -> Course:
        def reader(subset: Any) -> Reader:
            settings = stage.settings
            return Reader(
                small_dataset.dataset,
                small_dataset.selection,
                stage.view,
                subset=subset,
                seed=settings.seed,
                batch=settings.batch,
            )

        given = {"train": reader("train"), "held_out": {s: reader(s) for s in ("known", "new")}, "identity": IDENTITY}
        given["held_out"] = {s: r for s, r in given["held_out"].items() if len(r)}
        return Course(folder=folder, **(given | changes))

    return make


@pytest.fixture(scope="session")
def done(small_dataset, toy_system, tmp_path_factory) -> TrainRequest:
    """The toy system trained whole, without Ray."""
    out = tmp_path_factory.mktemp("out")
    request = TrainRequest(
        toy_system, "tiny", small_dataset.dataset, small_dataset.selection_folder, out, code="1f2e+aabb"
    )
    _train_all(request)
    return request


@pytest.fixture(scope="session")
def train_all() -> Callable[[TrainRequest], None]:
    """Train what is pending of a request, without Ray."""
    return _train_all


def _train_all(request: TrainRequest) -> None:
    half = Half(request.dataset, read_selection(request.selection))
    for name in pending(request):
        stage = build_stage(request, name)
        lineage = lineage_of(request, stage, request.digests())
        run_stage(catalogue.get(request.system), stage, lineage, half, half, request.out, Place())
    mark_done(request, request.fingerprint(), names(request))
