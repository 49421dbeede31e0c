"""Retraining a toy: what is promoted, what is not, and that a step that fails leaves the champion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Misuse, Transient
from contracts.selection import read_selection
from flows import environment
from flows.console import silent
from flows.leftovers import find, remove
from flows.places import Places
from flows.promotion import PromotionParams
from flows.retrain import RetrainJob, last_decision, proceed, retrain, todo

GOOD = {"coder": {"steps": 80}, "mouth": {"steps": 40}}
MOVES = ("enter", "point")  # what makes a bundle the champion
POOR = {"coder": {"steps": 2}, "mouth": {"steps": 2}}


@pytest.fixture(scope="module", autouse=True)
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prefect reads its settings when imported: they must stand before the first flow of these tests."""
    environment.prepare(tmp_path_factory.mktemp("work"))


class Pipeline:
    """Stands in the place of DVC: trains the toy in this process, with the settings of now, and counts what it sent."""

    def __init__(self, job: RetrainJob, system: str) -> None:
        self.job, self.system = job, system
        self.settings: dict[str, Any] = POOR
        self.made: dict[str, Any] | None = None
        self.pushes = 0

    def status(self, root: Path, targets: list[str]) -> dict[str, Any]:
        return {} if self.made == self.settings else {targets[0]: ["changed"]}

    def reproduce(self, root: Path, targets: list[str]) -> list[str]:
        from systems import catalogue
        from training.agenda import TrainRequest, build_stage, lineage_of, pending
        from training.stages import Half, Place, run_stage

        places = self.job.places
        out = places.training(self.system)
        request = TrainRequest(self.system, "tiny", places.dataset, places.selection, out, changes=self.settings)
        half = Half(places.dataset, read_selection(places.selection))
        for name in pending(request):
            stage = build_stage(request, name)
            lineage = lineage_of(request, stage, request.digests())
            run_stage(catalogue.get(self.system), stage, lineage, half, half, out, Place())
        ran = [] if self.made == self.settings else list(targets)
        self.made = self.settings
        return ran

    def push(self, root: Path, targets: list[str]) -> int:
        self.pushes += 1
        return 3


def plainly(name: str, function: Callable[[], Any]) -> Any:
    """A step as it is."""
    return function()


@pytest.fixture
def shop(
    tmp_path: Path, small_dataset: Any, toy_system: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[RetrainJob, Pipeline]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    places = Places(tmp_path / "work")
    places.work.mkdir()
    shutil.copytree(small_dataset.dataset, places.dataset)
    shutil.copytree(small_dataset.selection_folder, places.selection)
    job = RetrainJob(toy_system, tmp_path, places, PromotionParams())
    pipeline = Pipeline(job, toy_system)
    for name in ("status", "reproduce", "push"):
        monkeypatch.setattr(f"flows.versions.{name}", getattr(pipeline, name))
    return job, pipeline


def served(job: RetrainJob) -> tuple[str, str | None]:
    """Digests of champion and previous, as the registry says."""
    from training.registry import named

    found = [named(job.system, alias, job.places.tracking_uri) for alias in ("champion", "previous")]
    assert found[0] is not None
    assert json.loads(job.places.published(job.system).read_bytes())["digest"] == found[0].digest
    return found[0].digest, found[1].digest if found[1] else None


def test_first_better_worse_and_nothing_new(
    shop: tuple[RetrainJob, Pipeline], voxface: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, pipeline = shop
    assert todo(job) == {"changed": {"train@tones": ["changed"]}, "judge": True, "push": False}
    first = proceed(job, plainly, silent)
    assert (first["promoted"], first["why"], served(job)) == (
        True,
        "promoted: the first model",
        (first["challenger"], None),
    )
    assert todo(job) == {"changed": {}, "judge": False, "push": False}

    pipeline.settings = GOOD
    better = proceed(job, plainly, silent)
    assert better["promoted"], better["why"]
    assert served(job) == (better["challenger"], first["challenger"])
    (coder, mouth) = better["lines"]
    assert (coder["unit"], mouth["unit"], mouth["speakers"]) == ("clips", "speakers", 6)  # two new speakers are too few
    assert coder["verdict"] == mouth["verdict"] == "better"
    assert coder["low"] < coder["challenger"] - coder["champion"] < coder["high"] < 0
    page = Path(better["page"]).read_text()
    assert page.count("data:image/png") == 2  # the coder of both; a mouth draws nothing
    assert "clearly better" in page

    pipeline.settings = POOR
    worse = proceed(job, plainly, silent)
    assert not worse["promoted"]
    assert "clearly worse: coder l1" in worse["why"]
    assert served(job) == (better["challenger"], first["challenger"])
    assert worse["challenger"] == first["challenger"]  # the same settings give the same bytes
    assert pipeline.pushes == 3

    monkeypatch.setattr("flows.retrain.retrain", None)  # would be called, and fail
    (job.root / "dvc.yaml").write_text("stages: {}\n")
    said = voxface("retrain", job.system, "--json", "--work", job.places.work)
    assert (said.code, said.result["why"]) == (0, "nothing new"), said.err
    assert pipeline.pushes == 3

    dry = voxface("rollback", job.system, "--dry-run", "--json", "--work", job.places.work)
    assert dry.code == 0, dry.err
    assert served(job) == (better["challenger"], first["challenger"])
    assert voxface("rollback", job.system, "--json", "-q", "--work", job.places.work).code == 0
    assert served(job) == (first["challenger"], better["challenger"])
    assert voxface("rollback", job.system, "--to", 2, "-q", "--work", job.places.work).code == 0
    assert served(job) == (better["challenger"], first["challenger"])
    unknown = voxface("rollback", job.system, "--to", 9, "-q", "--work", job.places.work)
    assert unknown.code == 2
    assert "there are 1, 2" in unknown.err
    assert todo(job) == {"changed": {}, "judge": False, "push": False}  # the next retraining does not undo it


def test_a_step_that_fails_leaves_the_champion_and_is_made_up_for(
    shop: tuple[RetrainJob, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, pipeline = shop
    first = proceed(job, plainly, silent)
    pipeline.settings = GOOD
    for place in ("flows.publish.write_to", "training.challenge.challenge", *(f"training.registry.{x}" for x in MOVES)):
        with monkeypatch.context() as patch:
            patch.setattr(place, _broken)
            with pytest.raises(Transient, match="broken"):
                proceed(job, plainly, silent)
        assert served(job) == (first["challenger"], None), place
        assert last_decision(job) == first
        assert todo(job)["judge"], place  # the next one takes it up
    with monkeypatch.context() as patch:
        patch.setattr("flows.versions.push", _broken)
        with pytest.raises(Transient, match="broken"):
            proceed(job, plainly, silent)
    better = last_decision(job)
    assert better is not None
    assert served(job) == (better["challenger"], first["challenger"])  # sending data comes after, and is made up for
    assert todo(job) == {"changed": {}, "judge": False, "push": True}
    assert proceed(job, plainly, silent)["files_pushed"] == 3
    assert not todo(job)["push"]


def _broken(*arguments: Any, **named: Any) -> Any:
    raise Transient("broken")


def test_the_test_stays_frozen_and_loses_speakers_that_are_trained_on(
    shop: tuple[RetrainJob, Pipeline], tmp_path: Path
) -> None:
    from contracts.selection import write_selection
    from training.exam import exam, freeze

    job, _ = shop
    assert freeze(job.places.selection, job.frozen)
    assert not freeze(job.places.selection, job.frozen)
    was = read_selection(job.places.selection)
    same, notes = exam(job.frozen, job.places.dataset, job.places.selection)
    assert (same.samples, notes) == (was.samples, [])
    swapped = [
        s.model_copy(update={"split": {"s6": "train", "s0": "val"}.get(s.speaker, s.split)}) for s in was.samples
    ]
    write_selection(job.places.selection, was.model_copy(update={"samples": tuple(swapped)}))
    left, notes = exam(job.frozen, job.places.dataset, job.places.selection)
    assert {s.speaker for s in left.samples if s.split == "val"} == {"s7"}  # s0 was never frozen as a test speaker
    assert "1 speakers" in notes[0]
    again, notes = exam(job.frozen, job.places.dataset, job.places.selection)
    assert (again, notes) == (left, [])
    with pytest.raises(Misuse, match="no frozen test"):
        exam(tmp_path / "nowhere", job.places.dataset, job.places.selection)


def test_new_clips_change_the_models_and_not_the_test(shop: tuple[RetrainJob, Pipeline]) -> None:
    from contracts.selection import Chosen, write_selection
    from contracts.shards import committed, dataset_digest, write_shard

    job, pipeline = shop
    dataset, was = job.places.dataset, read_selection(job.places.selection)
    pipeline.settings = GOOD
    first = proceed(job, plainly, silent)
    clip = next(sample for sample in was.samples if sample.kind == "clip")
    key = f"drawn-s9-t0-{99:012x}-s00"
    told = {"level": "span", "key": key, "span": 0, "row": 99, "state": "kept", "kind": "clip", "frames": clip.frames}
    write_shard(dataset, 4, [(key, next(committed(dataset)).read(clip.key))], [told], steps="drawn", rows="more")
    more = Chosen(key=key, shard=4, kind="clip", frames=clip.frames, speaker="s9", gender="f", split="train")
    write_selection(
        job.places.selection,
        was.model_copy(update={"dataset": dataset_digest(dataset), "samples": (*was.samples, more)}),
    )
    pipeline.made = None  # what DVC sees
    second = proceed(job, plainly, silent)
    assert second["champion"] == first["challenger"] != second["challenger"]
    assert read_selection(job.frozen) == was
    assert {(line["stage"], line["items"], line["verdict"] != "missing") for line in second["lines"]} == {
        ("coder", 8, True),
        ("mouth", 6, True),
    }
    assert second["notes"] == []


def test_gc_takes_what_nothing_names_and_nothing_else(shop: tuple[RetrainJob, Pipeline]) -> None:
    job, _ = shop
    places = job.places
    first = proceed(job, plainly, silent)
    shutil.copytree(first["bundle"], places.bundles(job.system) / "0")
    shutil.copytree(places.dataset, places.work / "copy")  # the same digest: the champion was made of it
    other = places.work / "other"
    shutil.copytree(places.dataset, other)
    for path in other.glob("shard-000003*"):
        path.unlink()
    for folder in (places.dataset, other, places.work / "copy"):
        (folder / "plan.parquet").write_bytes(b"planned")
    for stage in ("coder", "mouth"):
        (places.training(job.system) / stage / "checkpoints").mkdir()
    told = places.training(job.system) / "mouth" / "stage.json"
    begun = json.loads(told.read_bytes())
    begun["lineage"]["settings"]["steps"] = 99
    told.write_text(json.dumps(begun))  # begun anew: its checkpoints are current work
    assert find(places, days=1) == []  # all of it is young
    found = {(each.kind, each.path.relative_to(places.work).as_posix()) for each in find(places, days=0)}
    assert found == {
        ("bundle", "bundles/tones/0"),
        ("dataset", "other"),
        ("checkpoints", "training/tones/coder/checkpoints"),
    }
    before = {path for path in places.work.rglob("*") if path.is_file() and path.name != ".lock"}
    went = remove(places, 0, silent)
    after = {path for path in places.work.rglob("*") if path.is_file() and path.name != ".lock"}
    assert {path for path in before if any(each.path in path.parents for each in went)} == before - after
    assert sum(each.bytes for each in went) > 0
    assert served(job) == (first["challenger"], None)
    assert find(places, days=0) == []


@pytest.mark.cluster
def test_as_a_prefect_flow(shop: tuple[RetrainJob, Pipeline]) -> None:
    job, _ = shop
    told = retrain(job, silent)
    assert told["promoted"]
    assert served(job) == (told["challenger"], None)
