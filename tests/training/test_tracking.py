"""MLflow as a mirror: every point once, whatever was cut, resumed or down in between; bundles by alias."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from contracts.bundle import Lineage, read_bundle, seal_artifact, write_bundle
from contracts.errors import Corrupt, Misuse
from training.record import STAGE_FILE, Record
from training.registry import register, resolve
from training.tracking import forward, unsent

LINEAGE = Lineage(
    dataset="d" * 64,
    selection="e" * 64,
    parents={"conre": "f" * 64},
    code="1f2e3d+aabbcc",
    settings={"preset": "tiny", "steps": 4, "lr": 0.001},
    unnamed=("LPIPS[E_f]",),
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests here: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A stage's folder as training leaves it after two of four steps."""
    folder = tmp_path / "out" / "portrait"
    record = Record(folder)
    record.append("start", 0, {}, steps=4)
    for step in (1, 2):
        record.append("train", step, {"main/total": 1.0 / step, "grad_norm/main": 2.0, "lr/main": 0.001})
    told = {"system": "toy", "stage": "portrait", "lineage": LINEAGE.model_dump(mode="json")}
    (folder / STAGE_FILE).write_text(json.dumps(told))
    (folder / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "pictures" / "step-000002.png")
    return folder


def history(client, run, key):
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, key))


def test_points_arrive_once_with_tags_parameters_and_pictures(trained, uri):
    from mlflow.tracking import MlflowClient

    out = trained.parent
    assert forward(out, uri, "toy") == 6
    assert forward(out, uri, "toy") == 0
    record = Record(trained)
    record.cut(1)  # killed, resumed from step 1: step 2 comes again, then new ones
    record.append("start", 1, {}, steps=4)
    for step in (2, 3, 4):
        record.append("train", step, {"main/total": 1.0 / step, "grad_norm/main": 2.0, "lr/main": 0.001})
    record.append("validation", 4, {"new/R@1": 0.5, "new/chance": 0.25}, split="new")
    record.append("end", 4, {"new/R@1": 0.5, "new/chance": 0.25})
    assert forward(out, uri, "toy") == 2 * 3 + 2
    assert forward(out, uri, "toy") == 0
    client = MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name("toy")
    assert place.artifact_location == (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
    runs = {run.info.run_name: run for run in client.search_runs([place.experiment_id])}
    assert runs.keys() == {"toy", "portrait"}
    run = runs["portrait"]
    assert run.data.tags["mlflow.parentRunId"] == runs["toy"].info.run_id
    assert run.data.tags["voxface.dataset"] == LINEAGE.dataset
    assert run.data.tags["voxface.selection"] == LINEAGE.selection
    assert run.data.tags["mlflow.source.git.commit"] == "1f2e3d"
    assert run.data.tags["voxface.parent.conre"] == "f" * 64
    assert run.data.tags["voxface.stand_ins"] == "LPIPS[E_f]"
    assert run.data.params == {"preset": "tiny", "steps": "4", "lr": "0.001"}
    assert history(client, run, "main/total") == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert history(client, run, "new/R_1") == [(4, 0.5)]
    assert run.info.status == "FINISHED"
    assert [a.path for a in client.list_artifacts(run.info.run_id, "pictures")] == ["pictures/step-000002.png"]


def test_what_a_killed_run_kept_back_is_known_without_mlflow(trained, uri, monkeypatch):
    from mlflow.tracking import MlflowClient

    out = trained.parent
    assert not unsent(out.parent / "elsewhere", uri)
    assert unsent(out, uri)
    forward(out, uri, "killed")
    assert not unsent(out, uri)
    assert unsent(out, "http://127.0.0.1:9")  # another place has nothing of it
    record = Record(trained)
    record.append("train", 3, {"main/total": 0.3})
    record.append("end", 4, {"new/R@1": 0.5})
    assert unsent(out, uri)
    assert forward(out, "http://127.0.0.1:9", "killed") == 0
    assert unsent(out, uri)
    assert forward(out, uri, "killed") == 1
    assert not unsent(out, uri)
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("killed").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_nothing_to_send_imports_no_mlflow(tmp_path):
    code = "import sys; from pathlib import Path; from training.tracking import unsent\n"
    code += "assert not unsent(Path(sys.argv[1]), 'sqlite:///x.db'); assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_mlflow_that_is_down_costs_no_point_and_little_time(trained, uri, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert forward(trained.parent, "http://127.0.0.1:9", "down") == 0
    assert "kept for later" in caplog.text
    assert time.monotonic() - began < 20
    assert forward(trained.parent, uri, "down") == 6


def test_another_recipe_is_another_run(trained, uri):
    from mlflow.tracking import MlflowClient

    forward(trained.parent, uri, "recipes")
    told = json.loads((trained / STAGE_FILE).read_text())
    told["lineage"]["settings"]["lr"] = 0.01
    (trained / STAGE_FILE).write_text(json.dumps(told))
    assert forward(trained.parent, uri, "recipes") == 6
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("recipes").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["portrait", "portrait", "toy"]


def bundle(folder: Path, steps: int) -> Path:
    artifact = folder / "artifact"
    (artifact / "net").mkdir(parents=True)
    (artifact / "net" / "config.json").write_text(json.dumps({"steps": steps}))
    seal_artifact(artifact, "toy", "portrait", LINEAGE, {})
    write_bundle(folder / "bundle of mine", "toy", "tiny", {"portrait": artifact})
    return folder / "bundle of mine"


def test_an_alias_leads_to_a_folder_and_its_digest(tmp_path, uri):
    one, two = bundle(tmp_path / "a", 1), bundle(tmp_path / "b", 2)
    with pytest.raises(Misuse, match="no bundle of toy is registered as champion"):
        resolve("toy", "champion", uri)
    assert register(one, "toy", "champion", uri) == 1
    assert resolve("toy", "champion", uri) == (one, read_bundle(one).digest)
    assert register(two, "toy", "challenger", uri) == 2
    assert resolve("toy", "champion", uri)[0] == one
    assert register(two, "toy", "champion", uri) == 2  # moved, not registered again
    assert resolve("toy", "champion", uri) == (two, read_bundle(two).digest)
    (two / "portrait" / "net" / "config.json").write_text("{}")
    with pytest.raises(Corrupt):
        register(two, "toy", "champion", uri)
    import shutil

    shutil.rmtree(two)
    with pytest.raises(Misuse, match="is gone"):
        resolve("toy", "champion", uri)
