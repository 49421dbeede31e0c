"""The loop: same weights after any stop, other data refused, values that are not finite passed over."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from contracts.errors import Misuse
from systems.base import Losses
from training.checkpoint import Identity
from training.feed import feed
from training.loop import compute, train
from training.record import read_record


class Killed(BaseException):
    """Stands in for SIGKILL: nothing after it runs."""


def weights(trained) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def kill_after(steps: int):
    seen = []

    def stop() -> bool:
        seen.append(None)
        if len(seen) == steps:
            raise Killed
        return False

    return stop


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("killed_after", [1, 2, 3, 5])
def test_killed_and_resumed_gives_the_weights_of_an_unbroken_run(toy_stage, course_for, tmp_path, killed_after):
    stage = toy_stage("coder")
    unbroken = train(stage, {}, course_for(stage, tmp_path / "a"))
    with pytest.raises(Killed):
        train(stage, {}, course_for(stage, tmp_path / "b", stop=kill_after(killed_after)))
    resumed = train(stage, {}, course_for(stage, tmp_path / "b"))
    assert_equal(weights(unbroken), weights(resumed))
    assert unbroken.measures == resumed.measures
    assert unbroken.measures.keys() == {"known/l1", "known/grey", "new/l1", "new/grey"}
    # steps redone: no more than between two checkpoints; the record reads as if nothing had happened
    lines = [read_record(tmp_path / run) for run in "ab"]
    starts = [[line["step"] for line in run if line["kind"] == "start"] for run in lines]
    assert starts[0] == [0]
    saved = (killed_after - 1) // 2 * 2  # killed before the checkpoint of its last step
    assert starts[1] == ([0, saved] if saved else [0])
    values = [
        [{k: v for k, v in line["values"].items() if "seconds" not in k} for line in run if line["kind"] == "train"]
        for run in lines
    ]
    assert values[0] == values[1]
    assert len(values[0]) == 6


def test_a_damaged_checkpoint_costs_steps_and_no_bit(toy_stage, course_for, tmp_path, caplog):
    stage = toy_stage("coder", steps=8)
    unbroken = train(stage, {}, course_for(stage, tmp_path / "a"))
    with pytest.raises(Killed):
        train(stage, {}, course_for(stage, tmp_path / "b", stop=kill_after(5)))
    model = tmp_path / "b" / "checkpoints" / "step-000000004" / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-100] ^= 1
    model.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        resumed = train(stage, {}, course_for(stage, tmp_path / "b"))
    assert str(model) in caplog.text
    assert "falling back to step-000000002" in caplog.text
    assert [line["step"] for line in read_record(tmp_path / "b") if line["kind"] == "start"] == [0, 2]
    assert_equal(weights(unbroken), weights(resumed))


@pytest.mark.parametrize("processes", [0, 1, 2, 4])
def test_any_number_of_loading_processes_gives_the_same_order_and_losses(toy_stage, course_for, tmp_path, processes):
    """An excluded sample among them: processes that decode ahead leave it out from the same step on."""
    stage = toy_stage("coder", steps=12, validate_every=0)
    runs = []
    for name in ("here", "fed"):
        course = course_for(stage, tmp_path / name)
        given, key = [], course.train.keys(0)[0]

        def note(start, stop, reader=course.train, name=name, given=given, key=key):
            reader.exclude({key: 5})
            batches = map(reader.batch, range(start, stop)) if name == "here" else feed(reader, start, stop, processes)
            for batch in batches:
                given.append(batch["key"])
                yield batch

        train(stage, {}, dataclasses.replace(course, feed=note))
        values = [line["values"]["main/total"] for line in read_record(tmp_path / name) if line["kind"] == "train"]
        runs.append((given, values))
        assert any(key in drawn for drawn in given[:5])
        assert not any(key in drawn for drawn in given[5:])
    assert runs[0] == runs[1]
    assert len(runs[0][1]) == 12


def test_two_phases_and_parents_resume_too(toy_stage, course_for, tmp_path):
    coder, mean, mouth = toy_stage("coder"), toy_stage("mean"), toy_stage("mouth")
    course = course_for(mean, tmp_path / "mean")
    computed = compute(mean, {}, course, [span.sample.gender for span in course.train.spans])
    parents = {
        "coder": train(coder, {}, course_for(coder, tmp_path / "coder")).model.requires_grad_(False),
        "mean": computed.model,
    }
    before = {k: v.clone() for k, v in parents["coder"].state_dict().items()}
    unbroken = train(mouth, parents, course_for(mouth, tmp_path / "a"))
    with pytest.raises(Killed):
        train(mouth, parents, course_for(mouth, tmp_path / "b", stop=kill_after(3)))
    resumed = train(mouth, parents, course_for(mouth, tmp_path / "b"))
    assert_equal(weights(unbroken), weights(resumed))
    assert_equal(before, parents["coder"].state_dict())  # its running statistics included
    kept = sorted((tmp_path / "b" / "checkpoints").iterdir())[-1] / "model.safetensors"
    from safetensors.torch import load_file

    assert {name.split(".")[0] for name in load_file(kept)} == {"mouth", "judge"}


def test_a_computed_stage_averages_a_balanced_draw(toy_stage, course_for, tmp_path):
    stage = toy_stage("mean")
    course = course_for(stage, tmp_path)
    genders = [span.sample.gender for span in course.train.spans]
    trained = compute(stage, {}, course, genders)
    images = torch.cat([batch["frames"][:, 0] for batch in course.train.passes(stage.draw(genders, genders))])
    assert torch.allclose(trained.model["mean"].image, images.mean(0))
    assert len(images) == 12


class Poisoned:
    """A stage whose loss is not finite at some steps."""

    def __init__(self, stage, steps: set[int]) -> None:
        self.stage, self.steps, self.step = stage, steps, 0

    def __getattr__(self, name):
        return getattr(self.stage, name)

    def loss(self, *arguments) -> Losses:
        losses = self.stage.loss(*arguments)
        self.step += 1
        return Losses(losses.total * float("nan")) if self.step - 1 in self.steps else losses


def test_a_step_that_is_not_finite_is_skipped_and_counted(toy_stage, course_for, tmp_path, caplog):
    stage = toy_stage("coder")
    trained = train(Poisoned(stage, {1, 3}), {}, course_for(stage, tmp_path))
    assert trained.skipped == 2
    assert all(torch.isfinite(value).all() for value in weights(trained).values())
    skipped = [line for line in read_record(tmp_path) if line["kind"] == "skipped"]
    assert [line["step"] for line in skipped] == [2, 4]
    assert all(len(line["keys"]) == 4 for line in skipped)


def test_training_stops_after_five_in_a_row_and_keeps_the_last_good(toy_stage, course_for, tmp_path):
    stage = toy_stage("coder", steps=20)
    with pytest.raises(Misuse, match="coder: 5 steps in a row were not finite"):
        train(Poisoned(stage, set(range(4, 20))), {}, course_for(stage, tmp_path))
    resumed = train(stage, {}, course_for(stage, tmp_path))  # unpoisoned: goes on from step 8 with good weights
    assert resumed.steps == 20
    assert all(torch.isfinite(value).all() for value in weights(resumed).values())


def test_other_data_are_refused_with_both_fingerprints(toy_stage, course_for, tmp_path):
    stage = toy_stage("coder")
    with pytest.raises(Killed):
        train(stage, {}, course_for(stage, tmp_path, stop=kill_after(3)))
    with pytest.raises(Misuse, match=r"(?s)d{12}.*e{12}.*remove") as refused:
        train(stage, {}, course_for(stage, tmp_path, identity=Identity("e" * 64, "r" * 64)))
    assert str(tmp_path) in str(refused.value)


def test_another_recipe_begins_anew_and_says_so(toy_stage, course_for, tmp_path, caplog):
    stage = toy_stage("coder")
    with pytest.raises(Killed):
        train(stage, {}, course_for(stage, tmp_path, stop=kill_after(3)))
    with caplog.at_level(logging.WARNING):
        trained = train(stage, {}, course_for(stage, tmp_path, identity=Identity("d" * 64, "s" * 64)))
    assert "begins anew" in caplog.text
    assert trained.steps == 6
    assert [line["step"] for line in read_record(tmp_path) if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_stopped_early_it_leaves_a_checkpoint_and_goes_on(toy_stage, course_for, tmp_path):
    stage = toy_stage("coder")
    whole = train(stage, {}, course_for(stage, tmp_path / "a"))
    part = train(stage, {}, course_for(stage, tmp_path / "b", stop=lambda: True))
    assert part.steps == 1
    assert part.measures
    assert_equal(weights(whole), weights(train(stage, {}, course_for(stage, tmp_path / "b"))))


def test_pictures_and_values_per_item_are_kept(toy_stage, course_for, small_dataset, tmp_path):
    import json

    from PIL import Image

    stage = toy_stage("coder")
    trained = train(stage, {}, course_for(stage, tmp_path))
    assert [path.name for path in sorted((tmp_path / "pictures").iterdir())] == ["step-000004.png", "step-000006.png"]
    assert Image.open(tmp_path / "pictures" / "step-000006.png").size == (4 * 16, 2 * 16)
    new = json.loads(Path(tmp_path / "validation" / "new.json").read_text())
    assert set(new["speakers"]) == {s.speaker for s in small_dataset.selection.samples if s.split == "val"}
    assert sum(new["values"]["l1"]) / len(new["keys"]) == pytest.approx(trained.measures["new/l1"])


def test_no_data_is_told_in_one_line(toy_stage, course_for, small_dataset, tmp_path):
    from training.data import Reader

    stage = toy_stage("coder")
    none = small_dataset.selection.model_copy(update={"samples": ()})
    empty = Reader(small_dataset.dataset, none, stage.view, subset="train", seed=0, batch=4)
    with pytest.raises(Misuse, match="no train samples of kind clip or face"):
        train(stage, {}, course_for(stage, tmp_path, train=empty))
