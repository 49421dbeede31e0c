"""One stage from selected samples to its artifact: parents, readers, the loop, export."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from contracts.bundle import Lineage, read_artifact, seal_artifact
from contracts.files import commit_bytes, commit_folder
from contracts.selection import Selection
from contracts.settings import canonical_digest, canonical_json
from systems.base import Batch, ComputedStage, Stage, System, TrainedStage
from training.agenda import artifact_folder, recipe
from training.checkpoint import Identity
from training.data import Reader, Subset
from training.loop import CPU, Course, Trained, compute, train
from training.record import STAGE_FILE


@dataclass(frozen=True)
class Half:
    """A dataset and what is used of it."""

    dataset: Path
    selection: Selection


@dataclass(frozen=True)
class Place:
    """Where a stage runs: this process among ``world``, its device, when it stops early, how it is fed."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    stop: Callable[[], bool] | None = None  # given to every process or to none
    feed: Callable[[Reader, int, int], Iterable[Batch]] | None = None  # None: batches are read in this process


def run_stage(
    system: System, stage: Stage, lineage: Lineage, learn: Half, test: Half, out: Path, place: Place
) -> Trained:
    """Train or compute ``stage`` into ``out/<stage>``; rank 0 leaves the artifact once all steps are done.

    ``known`` items are of ``learn``, ``new`` ones of ``test`` (which may be the same). On other ranks of a
    computed stage nothing is done, and the model returned is empty.
    """
    folder = out / stage.name
    settings, shared = stage.settings, isinstance(stage, TrainedStage)  # a computed stage is rank 0's alone
    if not shared and place.rank:
        return Trained(nn.ModuleDict(), 0, 0, {})
    alone = {"seed": settings.seed, "batch": settings.batch}
    ranked = alone | ({"rank": place.rank, "world": place.world} if shared else {})
    source = Reader(learn.dataset, learn.selection, stage.view, subset="train", **ranked)
    halves: Mapping[Subset, Half] = {"known": learn, "new": test}
    held_out = {s: Reader(h.dataset, h.selection, stage.view, subset=s, **alone) for s, h in halves.items()}
    feed = place.feed
    course = Course(
        folder=folder,
        train=source,
        held_out={subset: reader for subset, reader in held_out.items() if len(reader)},
        identity=Identity(data=canonical_digest([lineage.dataset, lineage.selection]), recipe=recipe(lineage)),
        rank=place.rank,
        world=place.world,
        device=place.device,
        feed=(lambda start, stop: feed(source, start, stop)) if feed else None,
        stop=place.stop,
    )
    parents = load_parents(system, stage, out)
    if course.first:
        told = {"system": system.name, "stage": stage.name, "lineage": lineage.model_dump(mode="json")}
        commit_bytes(folder / STAGE_FILE, canonical_json(told).encode())
    if isinstance(stage, ComputedStage):
        trained = compute(stage, parents, course, [span.sample.gender for span in source.spans])
    else:
        assert isinstance(stage, TrainedStage)
        trained = train(stage, parents, course)
    if course.first and (not shared or trained.steps == settings.steps):
        with commit_folder(artifact_folder(out, stage.name)) as temporary:
            stage.export(trained.model.cpu(), temporary)
            seal_artifact(temporary, system.name, stage.name, lineage, trained.measures)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return trained


def load_parents(system: System, stage: Stage | type[Stage], out: Path) -> dict[str, nn.ModuleDict]:
    """The networks that the stage needs, their digests checked. Raises ``Corrupt`` or ``Misuse``."""
    parents = {}
    for need in stage.needs:
        read_artifact(artifact_folder(out, need))
        parents[need] = system.stage(need).load(artifact_folder(out, need))
    return parents


def restore(system: System, kind: type[Stage], out: Path) -> tuple[TrainedStage, nn.ModuleDict]:
    """A trained stage and its whole model, from artifacts whose digests were checked.

    What the stage does not export (a discriminator) is as it was built: ``validate`` does not use it.
    """
    artifact = read_artifact(artifact_folder(out, kind.name))
    settings = dict(artifact.lineage.settings)
    stage = kind.preset(settings.pop("preset"), **settings)
    assert isinstance(stage, TrainedStage)
    model = stage.build_model(load_parents(system, kind, out))
    for name, network in kind.load(artifact_folder(out, kind.name)).items():
        model[name].load_state_dict(network.state_dict())
    return stage, model.eval()
