"""What is done and what is not: by lineage, by digest, and quickly where nothing changed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from contracts.errors import Misuse
from contracts.selection import write_selection
from training.agenda import TrainRequest, pending


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


def test_a_damaged_artifact_is_made_anew(done, train_all, tmp_path):
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
