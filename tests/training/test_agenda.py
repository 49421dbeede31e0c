"""What is done and what is not: by lineage, by digest, and quickly where nothing changed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import Misuse
from contracts.selection import read_selection, write_selection
from systems import catalogue
from training.agenda import TrainRequest, build_stage, lineage_of, mark_done, names, pending
from training.stages import Half, Place, run_stage


@pytest.fixture(scope="module")
def done(small_dataset, toy_system, tmp_path_factory) -> TrainRequest:
    """The toy system trained whole, without Ray."""
    out = tmp_path_factory.mktemp("out")
    request = TrainRequest(
        toy_system, "tiny", small_dataset.dataset, small_dataset.selection_folder, out, code="1f2e+aabb"
    )
    train_all(request)
    return request


def train_all(request: TrainRequest) -> None:
    half = Half(request.dataset, read_selection(request.selection))
    for name in pending(request):
        stage = build_stage(request, name)
        lineage = lineage_of(request, stage, request.digests())
        run_stage(catalogue.get(request.system), stage, lineage, half, half, request.out, Place())
    mark_done(request, request.fingerprint(), names(request))


def changed(request: TrainRequest, **changes) -> TrainRequest:
    return dataclasses.replace(request, **changes)


def test_all_is_pending_at_first_and_nothing_after(done, tmp_path):
    assert pending(changed(done, out=tmp_path)) == ["coder", "mean", "mouth"]
    assert pending(done) == []


def test_what_changed_is_pending_with_its_children(done):
    assert pending(changed(done, changes={"mouth": {"steps": 7}})) == ["mouth"]
    assert pending(changed(done, changes={"coder": {"steps": 7}})) == ["coder", "mouth"]
    assert pending(changed(done, changes={"mean": {"batch": 3}})) == ["mean", "mouth"]
    assert pending(changed(done, seed=1)) == ["coder", "mean", "mouth"]
    assert pending(changed(done, code="1f2e+ccdd")) == ["coder", "mean", "mouth"]
    assert pending(changed(done, code="5555+aabb")) == []  # another commit of the same sources
    assert pending(changed(done, changes={"coder": {"steps": 7}}, only=["coder"])) == ["coder"]
    assert pending(changed(done, workers=2)) == []


def test_another_selection_makes_all_pending(done, small_dataset, tmp_path):
    fewer = small_dataset.selection.model_copy(update={"samples": small_dataset.selection.samples[1:]})
    write_selection(tmp_path, fewer)
    assert pending(changed(done, selection=tmp_path)) == ["coder", "mean", "mouth"]
    write_selection(tmp_path, small_dataset.selection.model_copy(update={"dataset": "0" * 64}))
    with pytest.raises(Misuse, match=r"0{12}.*select again"):
        pending(changed(done, selection=tmp_path))


def test_a_damaged_artifact_is_made_anew(done, small_dataset, tmp_path):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    weights = next((out / "coder" / "artifact" / "coder").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    request = changed(done, out=out)
    assert pending(request) == ["coder", "mouth"]
    train_all(request)
    assert pending(request) == []
    for file in sorted(done.out.glob("*/artifact/**/*.safetensors")):  # and it is the same again
        assert file.read_bytes() == (out / file.relative_to(done.out)).read_bytes()


def test_wrong_names_and_settings_say_what_there_is(done, tmp_path):
    with pytest.raises(Misuse, match="tones has no stage 'codr'; it has coder, mean, mouth"):
        pending(changed(done, changes={"codr": {}}))
    with pytest.raises(Misuse, match="settings of coder: stps"):
        pending(changed(done, changes={"coder": {"stps": 3}}))
    with pytest.raises(Misuse, match="coder has no preset 'huge'; it has"):
        pending(changed(done, preset="huge"))
    with pytest.raises(Misuse, match="mouth needs coder, mean, not trained yet"):
        pending(changed(done, out=tmp_path, only=["mouth"]))


def test_a_no_op_needs_neither_torch_nor_ray(done):
    code = """
import sys
from pathlib import Path
from training.distributed import TrainRequest, pending
dataset, selection, out = map(Path, sys.argv[1:])
assert pending(TrainRequest("tones", "tiny", dataset, selection, out, code="1f2e+aabb")) == []
heavy = {"torch", "ray", "mlflow", "prefect"} & set(sys.modules)
assert not heavy, heavy
"""
    arguments = [str(done.dataset), str(done.selection), str(done.out)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def test_the_report_stands_alone_and_says_what_happened(done, tmp_path):
    from training.record import Record
    from training.report import write_training_report

    page = tmp_path / "report.html"
    write_training_report(done.out, page)
    text = page.read_text()
    assert "tones, trained" in text
    for stage in ("coder", "mean", "mouth"):
        assert f"id='{stage}'" in text
    assert text.count("data:image/png;base64,") == 4  # curves of two stages, two pictures of one
    assert "src='http" not in text
    assert "href='http" not in text
    assert "new (the bar)" in text
    assert "skipped" not in text
    Record(done.out / "mean").append("note", 0, {}, text="fewer <faces> than asked for")
    write_training_report(done.out, page)
    assert "fewer &lt;faces&gt; than asked for" in page.read_text()
    with pytest.raises(Misuse, match="holds no training"):
        write_training_report(Path(tmp_path / "none"), page)


def test_evaluation_compares_with_the_baseline_on_both_splits(done, small_dataset):
    from contracts.bundle import read_artifact
    from training.evaluate import evaluate_system, table

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


def test_prove_trains_measures_and_goes_on(small_dataset, toy_system, tmp_path, capsys):
    import json

    from training.prove import main

    dataset, out = str(small_dataset.dataset), str(tmp_path)
    arguments = [toy_system, "--train", dataset, "--test", dataset, "--resume", out]
    assert main([*arguments, "--minutes", "0"]) in (0, 3)
    assert "coder: out of time" in capsys.readouterr().out
    code = main(arguments)
    told = capsys.readouterr().out.splitlines()
    lines = json.loads(told[-1])
    assert [line["stage"] for line in lines if line["baseline"]] == ["coder", "mouth"]
    assert code == (3 if any(line["verdict"] == "MISS" for line in lines) else 0)
    assert told[0].startswith("coder l1 known ")
    assert main(arguments) == code
    assert capsys.readouterr().out.splitlines() == told  # nothing is trained again
    assert main([toy_system, "--train", out, "--test", dataset]) == 2
