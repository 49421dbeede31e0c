"""What there is to train: a request, the lineage each stage would have, and which stages lack it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Artifact, Lineage, read_artifact
from contracts.errors import Corrupt, Misuse
from contracts.files import commit_bytes
from contracts.selection import read_record
from contracts.settings import canonical_digest, canonical_json
from contracts.shards import dataset_digest

if TYPE_CHECKING:  # systems imports torch, which takes seconds
    from systems.base import Stage

DONE_FILE = "done.json"


@dataclass(frozen=True)
class TrainRequest:
    """Train a system at a preset on a selection of a dataset. ``changes``: settings by stage."""

    system: str
    preset: str
    dataset: Path
    selection: Path  # folder of the selection
    out: Path  # gets a folder per stage: artifact/, metrics.jsonl, checkpoints/, pictures/
    workers: int = 1
    seed: int = 0
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    only: list[str] | None = None  # these stages alone; their parents must stand
    code: str = "unknown"  # <commit>+<digest of sources>
    loaders: int = 0  # processes per worker that decode ahead
    threads: int | None = None  # of torch, per worker; None: the cores shared out

    def fingerprint(self) -> str:
        """Digest of all that decides what comes out. Raises ``Misuse`` where selection and dataset do not fit."""
        return canonical_digest(
            [self.data(), self.system, self.preset, self.seed, self.changes, self.only, sources(self.code)]
        )

    def data(self) -> str:
        """Digest of dataset and selection. Raises ``Misuse`` where they do not fit each other."""
        return canonical_digest(self.digests())

    def digests(self) -> tuple[str, str]:
        """Of the dataset and of the selection, from their records. Raises ``Misuse`` where they do not fit."""
        record = read_record(self.selection)
        if record is None:
            raise Misuse(f"{self.selection} holds no selection: voxface dataset select")
        dataset = dataset_digest(self.dataset)
        if record.dataset != dataset:
            raise Misuse(
                f"the selection in {self.selection} was made of a dataset {record.dataset[:12]}, {self.dataset} is "
                f"{dataset[:12]}: select again: voxface dataset select"
            )
        return dataset, record.digest


@dataclass(frozen=True)
class StageResult:
    """One stage, standing: ``trained`` now, or found done."""

    stage: str
    artifact: Path
    digest: str
    trained: bool
    measures: dict[str, float]


def sources(code: str) -> str:
    """The part of a code version that counts: the digest of the sources, where it names one.

    >>> sources("1f2e3d+aabbcc")
    'aabbcc'
    """
    return code.rpartition("+")[2]


def artifact_folder(out: Path, stage: str) -> Path:
    """Where a stage's artifact stands, or will."""
    return out / stage / "artifact"


def build_stage(request: TrainRequest, name: str) -> Stage:
    """The stage with the request's settings. Raises ``Misuse`` for a wrong preset or setting."""
    from systems import catalogue

    kind = catalogue.get(request.system).stage(name)
    changes = {"seed": request.seed} | dict(request.changes.get(name, {}))
    return kind.preset(request.preset, **changes)  # type: ignore[arg-type]


def lineage_of(request: TrainRequest, stage: Stage, digests: tuple[str, str]) -> Lineage:
    """What the stage would come from if it were trained now. Raises ``Misuse`` where a parent does not stand."""
    dataset, selection = digests
    return Lineage(
        dataset=dataset,
        selection=selection,
        parents={need: read_artifact(artifact_folder(request.out, need), verify=False).digest for need in stage.needs},
        code=request.code,
        settings={"preset": request.preset, **stage.settings.model_dump(mode="json")},
        unnamed=tuple(getattr(stage, "stand_ins", ())),
    )


def recipe(lineage: Lineage) -> str:
    """Digest of settings, parents and sources: with the data, what a checkpoint must share to be continued."""
    return canonical_digest([lineage.parents, lineage.settings, sources(lineage.code)])


def names(request: TrainRequest) -> list[str]:
    """The stages asked for, in order of need. Raises ``Misuse`` for names, presets or settings that are not."""
    from systems import catalogue

    system = catalogue.get(request.system)
    for name in [*request.changes, *(request.only or ())]:
        system.stage(name)
    wanted = [stage.name for stage in system.stages if request.only is None or stage.name in request.only]
    for name in wanted:
        build_stage(request, name)
    return wanted


def pending(request: TrainRequest) -> list[str]:
    """Stages to train, in order. Quick, and without torch, where nothing changed since all were done.

    A stage is done where its artifact is whole and comes from what it would be made of now.
    """
    fingerprint = request.fingerprint()
    if _all_done(request.out, fingerprint):
        return []
    digests = request.digests()
    wanted = names(request)
    todo: list[str] = []
    for name in wanted:
        stage = build_stage(request, name)
        if set(stage.needs) & set(todo):
            todo.append(name)
            continue
        missing = [need for need in stage.needs if standing(request.out, need) is None]
        if missing:
            raise Misuse(f"{name} needs {', '.join(missing)}, not trained yet: train them too (leave out --only)")
        if not stands(request, stage, digests):
            todo.append(name)
    if not todo:
        mark_done(request, fingerprint, wanted)
    return todo


def stands(request: TrainRequest, stage: Stage, digests: tuple[str, str]) -> bool:
    """Whether the stage's artifact is whole and comes from what it would be made of now."""
    found = standing(request.out, stage.name)
    return found is not None and _without_commit(found.lineage) == _without_commit(lineage_of(request, stage, digests))


def standing(out: Path, stage: str) -> Artifact | None:
    """The stage's artifact, its files checked; ``None`` where there is none or it is damaged: it is made anew."""
    try:
        return read_artifact(artifact_folder(out, stage))
    except (Misuse, Corrupt):
        return None


def mark_done(request: TrainRequest, fingerprint: str, stages: list[str]) -> None:
    """Remember that everything asked for stands."""
    digests = {name: read_artifact(artifact_folder(request.out, name), verify=False).digest for name in stages}
    commit_bytes(request.out / DONE_FILE, canonical_json({"request": fingerprint, "stages": digests}).encode())


def _all_done(out: Path, fingerprint: str) -> bool:
    try:
        done = json.loads((out / DONE_FILE).read_bytes())
        stages = dict(done["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if done.get("request") != fingerprint:
        return False
    found = {name: standing(out, name) for name in stages}
    return all(artifact is not None and artifact.digest == stages[name] for name, artifact in found.items())


def _without_commit(lineage: Lineage) -> dict[str, Any]:
    """The lineage as JSON; the same sources under another commit make the same weights."""
    return lineage.model_dump(mode="json") | {"code": sources(lineage.code)}
