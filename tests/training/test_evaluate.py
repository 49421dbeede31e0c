"""Measures of restored stages beside their baselines."""

from __future__ import annotations

import pytest

from contracts.bundle import read_artifact
from training.evaluate import evaluate_system, table


def test_evaluation_compares_with_the_baseline_on_both_splits(done, small_dataset):
    lines = evaluate_system(
        "tones",
        done.out,
        dataset=small_dataset.dataset,
        selection=small_dataset.selection_folder,
        progress=lambda *_: None,
    )
    bars = {(line["stage"], line["split"]): line for line in lines if line["baseline"]}
    assert bars.keys() == {("coder", "known"), ("coder", "new"), ("mouth", "known"), ("mouth", "new")}
    assert {key: bars[key]["verdict"] for key in bars if bars[key]["verdict"] == "INFO"} == {
        ("coder", "known"): "INFO",
        ("mouth", "new"): "INFO",
    }
    # restored from the artifact the stage measures what it measured when it was trained
    trained = read_artifact(done.out / "mouth" / "artifact").measures
    per_speaker = bars["mouth", "new"]  # two speakers with two clips each: the mean over items is that over speakers
    assert per_speaker["ours"] == pytest.approx(trained["new/l1"])
    assert per_speaker["comparison"] == pytest.approx(trained["new/held"])
    assert per_speaker["speakers"] == 2
    assert [len(text.split()) for text in table(lines)] == [9] * len(lines)
