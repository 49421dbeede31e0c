"""Settings that every stage has: micro-batches, precision, clipping, moving averages, learning rates."""

from __future__ import annotations

import logging

import pytest
import torch
from toys.plain import RATE, Plain

from contracts.errors import Misuse
from systems.base import Losses, StageSettings
from training.checkpoint import newest
from training.loop import train
from training.pace import pace
from training.record import read_record


class Killed(BaseException):
    """Stands in for SIGKILL."""


def kill_after(steps: int):
    seen = []

    def stop() -> bool:
        seen.append(None)
        if len(seen) == steps:
            raise Killed
        return False

    return stop


def weights(trained) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def assert_equal(one, other) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def losses(folder) -> list[float]:
    return [line["values"]["main/total"] for line in read_record(folder) if line["kind"] == "train"]


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_micro_batches_are_one_batch(toy_stage, course_for, tmp_path, parts):
    """Of eight items, in 2, 3 (unequal) and 8 parts: 50 losses within 1e-5, with noise drawn by the loss."""
    whole, split = (Plain(toy_stage("coder", batch=8, steps=50, accumulate=k)) for k in (1, parts))
    train(whole, {}, course_for(whole, tmp_path / "whole"))
    train(split, {}, course_for(split, tmp_path / "split"))
    assert losses(tmp_path / "split") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    one = losses(tmp_path / "whole")
    assert sum(one[-10:]) < 0.99 * sum(one[:10]), "it learned"


def test_more_micro_batches_than_items_are_refused(toy_stage, course_for, tmp_path):
    stage = toy_stage("coder", batch=4, accumulate=5)
    with pytest.raises(Misuse, match="5 micro-batches for each of 1 workers need a batch of 5, it is 4"):
        train(stage, {}, course_for(stage, tmp_path))


EVERYTHING = {"accumulate": 2, "clip": 0.5, "ema": 0.9, "warmup": 3, "schedule": "cosine", "steps": 8}


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_killed_and_resumed_with_everything_on(toy_stage, course_for, tmp_path, precision):
    stage = toy_stage("coder", precision=precision, **EVERYTHING)
    unbroken = train(stage, {}, course_for(stage, tmp_path / "a"))
    with pytest.raises(Killed):
        train(stage, {}, course_for(stage, tmp_path / "b", stop=kill_after(5)))
    kept = newest(tmp_path / "b" / "checkpoints", course_for(stage, tmp_path).identity)
    assert kept.state.step == 4
    assert set(kept.state.scalers) == ({"main"} if precision == "fp16" else set())
    assert kept.average.keys() == kept.model.keys()
    resumed = train(stage, {}, course_for(stage, tmp_path / "b"))
    assert_equal(weights(unbroken), weights(resumed))
    assert unbroken.measures == resumed.measures
    assert all(value.dtype != torch.bfloat16 for value in weights(unbroken).values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_what_single_does(toy_stage, course_for, tmp_path, precision):
    single, half = (Plain(toy_stage("coder", steps=30, batch=8, precision=p)) for p in ("float32", precision))
    train(single, {}, course_for(single, tmp_path / "single"))
    train(half, {}, course_for(half, tmp_path / "half"))
    one, other = losses(tmp_path / "single"), losses(tmp_path / "half")
    assert one != other, "nothing was cast"
    assert other == pytest.approx(one, rel=1e-3)


class Large(Plain):
    """A loss so large that its gradients leave fp16 at the first scales."""

    def loss(self, *arguments) -> Losses:
        losses = self.stage.loss(*arguments)
        return Losses(losses.total * 1e5, losses.terms)


def test_a_scale_too_large_is_lowered_and_nobody_blamed(toy_stage, course_for, tmp_path):
    stage = Large(toy_stage("coder", steps=12, precision="fp16", clip=1e-3))
    trained = train(stage, {}, course_for(stage, tmp_path))
    assert trained.skipped == 0
    assert not (tmp_path / "quarantine.json").exists()
    lines = [line["values"] for line in read_record(tmp_path) if line["kind"] == "train"]
    scales = [line["scale/main"] for line in lines]
    assert scales == sorted(scales, reverse=True)
    assert 0 < lines[-1]["overflows"] < 12
    assert scales[-1] == 65536 / 2 ** lines[-1]["overflows"]


def test_clipped_gradients_move_weights_no_further(toy_stage, course_for, tmp_path):
    free, held = (Plain(toy_stage("coder", steps=1, clip=clip)) for clip in (0, 0.01))
    torch.manual_seed(0)
    start = free.build_model({}).state_dict()
    moved = {}
    for name, stage in (("free", free), ("held", held)):
        after = weights(train(stage, {}, course_for(stage, tmp_path / name)))
        moved[name] = torch.cat([(after[key] - start[key]).flatten() for key in start]).norm()
    line = next(line for line in read_record(tmp_path / "held") if line["kind"] == "train")
    norm = line["values"]["grad_norm/main"]
    assert norm > 0.01, "the record tells the norm before"
    assert moved["free"] == pytest.approx(RATE * norm, rel=1e-3)
    assert moved["held"] == pytest.approx(RATE * 0.01, rel=1e-3)


def test_the_moving_average_is_validated_and_left(toy_stage, course_for, tmp_path):
    stage, plain = (toy_stage("coder", steps=6, ema=ema) for ema in (0.8, 0.0))
    seen = []
    averaged = train(stage, {}, course_for(stage, tmp_path / "a", stop=lambda: seen.append(None)))
    train(plain, {}, course_for(plain, tmp_path / "b"))
    assert losses(tmp_path / "a") == losses(tmp_path / "b"), "averaging changed what is trained"
    # the same average by hand, from weights after each step
    expected = None
    for steps in range(7):
        torch.manual_seed(0)
        start = stage.build_model({}).state_dict()
        if steps:
            short = toy_stage("coder", steps=steps)
            start = weights(train(short, {}, course_for(short, tmp_path / f"short{steps}")))
        decay = min(0.8, (1 + steps) / (10 + steps))
        if expected is None:
            expected = {k: v.double() for k, v in start.items()}
        else:
            expected = {k: decay * expected[k] + (1 - decay) * v.double() for k, v in start.items()}
    for name, value in weights(averaged).items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), expected[name], atol=1e-6), name
    assert averaged.measures == next(line["values"] for line in read_record(tmp_path / "a") if line["kind"] == "end")


def test_learning_rates_rise_and_fall_by_the_step_alone(toy_stage, course_for, tmp_path):
    settings = StageSettings(steps=100, batch=1, warmup=10, schedule="cosine")
    rates = [pace(settings, step) for step in range(100)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert {pace(StageSettings(steps=100, batch=1), step) for step in range(100)} == {1.0}
    stage = toy_stage("coder", steps=4, warmup=2, schedule="cosine")
    train(stage, {}, course_for(stage, tmp_path))
    told = [line["values"]["lr/main"] for line in read_record(tmp_path) if line["kind"] == "train"]
    assert told == pytest.approx([1e-2 * pace(stage.settings, step) for step in range(4)])


@pytest.mark.parametrize(("name", "value"), [("accumulate", 0), ("ema", 1.0), ("precision", "fp8"), ("clip", -1)])
def test_wrong_values_name_their_setting(toy_stage, name, value):
    with pytest.raises(Misuse, match=name):
        toy_stage("coder", **{name: value})


class Poisoned:
    """A stage whose pictures are not finite where a sample is among them."""

    def __init__(self, stage, keys) -> None:
        self.stage, self.keys, self.drawn = stage, set(keys), []

    def __getattr__(self, name):
        return getattr(self.stage, name)

    def loss(self, model, batch, phase, rng) -> Losses:
        self.drawn.append(batch["key"])
        bad = torch.tensor([key in self.keys for key in batch["key"]])
        frames = torch.where(bad[:, None, None, None, None], torch.nan, batch["frames"])
        return self.stage.loss(model, batch | {"frames": frames}, phase, rng)


def test_a_bad_sample_is_named_and_after_a_time_not_drawn(toy_stage, course_for, tmp_path, caplog):
    import json

    stage = Poisoned(toy_stage("coder", steps=60, validate_every=0, checkpoint_every=7), [])
    course = course_for(stage, tmp_path / "a")
    key = course.train.keys(0)[1]
    stage.keys = {key}
    with caplog.at_level(logging.WARNING):
        trained = train(stage, {}, course)
    assert trained.skipped == 3
    assert f"{key} was in 3 steps that were not finite" in caplog.text
    assert all(torch.isfinite(value).all() for value in weights(trained).values()), "running statistics included"
    lines = json.loads((tmp_path / "a" / "quarantine.json").read_text())
    mine = next(line for line in lines if line["key"] == key)
    assert mine["times"] == 3
    assert mine["out"] == mine["step"]
    assert mine["phase"] == "main"
    assert all(key not in drawn for drawn in stage.drawn[mine["out"] :])
    assert any(key in drawn for drawn in stage.drawn[: mine["out"]])
    out = [line["key"] for line in lines if line["out"] is not None]
    assert len(out) <= 3, "samples that stood beside it are acquitted by other steps"
    told = [line for line in read_record(tmp_path / "a") if line["kind"] == "skipped"]
    assert [key in line["keys"] for line in told] == [True] * 3
    assert told[-1]["out"] == out

    # killed at any step and resumed: the same draws, the same weights, the same file
    for step in (mine["out"] - 1, mine["out"] + 2):
        again = Poisoned(toy_stage("coder", steps=60, validate_every=0, checkpoint_every=7), [key])
        folder = tmp_path / f"b{step}"
        with pytest.raises(Killed):
            train(again, {}, course_for(again, folder, stop=kill_after(step)))
        resumed = train(again, {}, course_for(again, folder))
        assert_equal(weights(trained), weights(resumed))
        assert (folder / "quarantine.json").read_bytes() == (tmp_path / "a" / "quarantine.json").read_bytes()
        assert again.drawn[-20:] == stage.drawn[-20:]


def test_none_is_put_out_where_all_are_suspect(toy_stage, course_for, tmp_path, caplog):
    stage = Poisoned(toy_stage("coder", steps=20, batch=22, exclude_after=2), [])
    course = course_for(stage, tmp_path)
    stage.keys = set(course.train.speaker_of)
    with caplog.at_level(logging.WARNING), pytest.raises(Misuse, match="5 steps in a row were not finite"):
        train(stage, {}, course)
    assert "none of them is put out" in caplog.text
