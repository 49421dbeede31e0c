"""The comparisons of ``make prove``, on numbers worked out by hand and on the toy system."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from bars import campaign
from bars.motion import distance, frechet, shrunk
from bars.see_the_speaker import correlation, principal, recall, ridge

from contracts.split import balanced
from training.evaluate import beside


def test_recall_counts_and_chance_is_combinatorial() -> None:
    likeness = np.array([[0.9, 0.1, 0.5], [0.9, 0.8, 0.7], [0.1, 0.2, 0.9]])
    speakers, gallery = np.array([0, 1, 2]), np.ones((3, 3), bool)
    found, chance = recall(likeness, speakers, gallery, 1)
    assert found == [1.0, 0.0, 1.0]
    assert chance == pytest.approx([1 / 3] * 3)
    assert recall(likeness, speakers, gallery, 2)[0] == [1.0, 1.0, 1.0]
    assert recall(likeness, speakers, gallery, 2)[1] == pytest.approx([2 / 3] * 3)
    assert all(map(math.isnan, recall(likeness, speakers, gallery, 3)[0]))  # everybody is found
    alone = np.eye(3, dtype=bool)
    assert all(map(math.isnan, recall(likeness, speakers, alone, 1)[0]))
    # two clips of one speaker: chance finds one of them more often
    assert recall(likeness, np.array([0, 0, 2]), gallery, 1)[1] == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_frechet_is_the_closed_form_of_two_gaussians() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 3)) * (1, 2, 3)
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    y = rng.standard_normal((4000, 3)) * (2, 2, 1) + (0, 1, 0)
    assert frechet(x, y) == pytest.approx(1 + (2 - 1) ** 2 + (3 - 1) ** 2, rel=0.1)
    few = rng.standard_normal((8, 12))
    assert np.linalg.matrix_rank(shrunk(few)) == 12  # more dimensions than frames, yet of full rank
    assert np.trace(shrunk(few)) == pytest.approx(few.var(0).sum())


def test_motion_shuffled_in_time_and_no_motion_are_far_from_the_truth() -> None:
    t = np.arange(80) / 25
    true = np.stack([np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)], 1)
    near = np.stack([np.sin(2 * np.pi * t + 0.2), np.cos(2 * np.pi * t + 0.2)], 1)
    shuffled = np.random.default_rng(0).permutation(true)
    held = np.repeat(true[:1], len(true), 0)
    assert distance(near, true) < 0.1 * min(distance(shuffled, true), distance(held, true))


def test_what_is_read_from_codes() -> None:
    torch.manual_seed(0)
    codes = torch.randn(5, 40, 4)
    codes[..., 2] *= 10
    opening = 3 * codes[..., 1] + torch.arange(5.0)[:, None]  # each clip has a level of its own
    assert ridge(codes, opening, share=1e-6) == pytest.approx(torch.tensor([0.0, 3, 0, 0]), abs=1e-2)
    basis, spread = principal(codes, 2)
    assert basis.shape == (4, 2)
    assert abs(float(basis[2, 0])) == pytest.approx(1, abs=0.01)
    assert float(spread[0]) == pytest.approx(10, rel=0.1)
    a = torch.tensor([[0.0, 1, 2], [1, 1, 1]])
    assert correlation(a, -a).tolist() == pytest.approx([-1, 0])


def test_a_bar_is_passed_only_where_the_interval_is_clear() -> None:
    about = {"stage": "x", "measure": "l1", "split": "new", "baseline": "copy"}
    speakers = [str(i) for i in range(8)]
    better, worse = [0.5 + 0.01 * i for i in range(8)], [0.4, 1.6] * 4
    ones = [1.0] * 8
    assert beside(about, better, ones, speakers, "lower", bar=True)["verdict"] == "PASS"
    assert beside(about, worse, ones, speakers, "lower", bar=True)["verdict"] == "MISS"
    assert beside(about, better, ones, speakers, "higher", bar=True)["verdict"] == "MISS"
    assert beside(about, better, ones, speakers, "lower", bar=False)["verdict"] == "INFO"
    assert beside(about, better, ones, ["a"] * 8, "lower", bar=True)["verdict"] == "MISS"  # one speaker proves nothing
    nothing = beside(about, [math.nan] * 8, ones, speakers, "lower", bar=True)
    assert (nothing["verdict"], nothing["ours"]) == ("MISS", None)


def test_of_every_gender_a_share_is_left_out() -> None:
    genders = {f"f{i}": "f" for i in range(13)} | {f"m{i}": "m" for i in range(22)} | {"x": "unknown"}
    split = balanced(genders, 0.25, 0)
    out = [name for name, side in split.speakers.items() if side == "val"]
    assert [sum(genders[name] == gender for name in out) for gender in ("f", "m", "unknown")] == [4, 6, 0]
    assert split == balanced(dict(reversed(genders.items())), 0.25, 0)
    assert split.side("f0") == split.extended(["newcomer"]).side("f0")


def test_the_whole_proof_of_a_system_that_says_nothing(small_dataset, toy_system, tmp_path, monkeypatch, capsys):
    """Ingested people, a rule's split, each stage's own bar, pictures, a second run that trains nothing."""
    monkeypatch.setattr(campaign, "SECONDS", 0.05)
    monkeypatch.setattr("bars.pictures.TALKS", 1)
    arguments = [toy_system, "--train", str(small_dataset.dataset), "--work", str(tmp_path), "--loaders", "0"]
    code = campaign.main(arguments)
    out = tmp_path / "prove" / small_dataset.dataset.name / toy_system
    told = json.loads((out / "prove.json").read_bytes())
    bars = {(line["stage"], line["split"]): line["verdict"] for line in told["lines"] if line["baseline"]}
    assert bars.keys() == {(stage, split) for stage in ("coder", "mouth") for split in ("known", "new")}
    assert code == (3 if "MISS" in bars.values() else 0)
    assert "| coder | l1" in (out / "table.md").read_text()
    assert {path.name for path in (out / "pictures").iterdir()} == {"coder-known.png", "coder-new.png", "talk-0.png"}
    printed = capsys.readouterr().out
    assert "6 speakers in 12 clips learnt from, 2 speakers in 4 clips never seen" in printed
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert stamps
    assert campaign.main(arguments) == code
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == stamps
