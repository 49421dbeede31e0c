"""Measures of restored stages beside their baselines."""

from __future__ import annotations

import pytest

from contracts.bundle import read_artifact
from contracts.errors import Misuse
from systems import catalogue
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


def test_weights_that_do_not_fit_the_code_are_refused(done, tmp_path, toy_system):
    """Never a network that is partly random: a weight that the file lacks, or of another size."""
    import shutil

    from safetensors.torch import load_file, save_file

    kind = catalogue.get(toy_system).stage("mouth")
    folder = tmp_path / "artifact"
    shutil.copytree(done.out / "mouth" / "artifact", folder)
    file = next((folder / "mouth").glob("*.safetensors"))
    weights = load_file(file)
    for changed in (
        {"out.weight": weights["out.weight"]},
        weights | {"more": weights["out.bias"].clone()},
        weights | {"out.bias": weights["out.bias"][:5].clone()},
    ):
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(Misuse, match=r"made by other code.*train mouth again"):
            kind.load(folder)
    save_file(weights, file, metadata={"format": "pt"})
    kind.load(folder)
