"""A training that was killed after its last stage: the same command sends MLflow what was kept back, once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import training.agenda
from contracts.bundle import Lineage
from contracts.selection import RECORD_FILE
from flows.commands.train import _job, _train
from flows.params import TrainParams
from flows.running import running
from flows.train import TrainJob
from training.agenda import TrainRequest
from training.record import STAGE_FILE, Record


def test_the_rest_is_sent_once_and_then_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(training.agenda, "pending", lambda request: [])
    lineage = Lineage(dataset="d", selection="e", parents={}, code="1+a", settings={"steps": 2})
    stage = tmp_path / "out" / "portrait"
    record = Record(stage)
    for step in (1, 2):
        record.append("train", step, {"main/total": 1.0 / step})
    record.append("end", 2, {})
    told = {"system": "toy", "stage": "portrait", "lineage": lineage.model_dump(mode="json")}
    (stage / STAGE_FILE).write_text(json.dumps(told))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    request = TrainRequest("toy", "tiny", tmp_path / "dataset", tmp_path / "selection", stage.parent)
    job = TrainJob(request, "local", uri)
    with running("train", work=tmp_path) as run:
        _train(run, job)
    assert "2 points sent to MLflow that an interrupted run had kept back" in capsys.readouterr().err
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    assert {each.info.status for each in runs} == {"FINISHED"}
    monkeypatch.setattr("training.tracking.forward", None)  # would be called, and fail
    began = time.monotonic()
    with running("train", work=tmp_path) as run:
        _train(run, job)
    assert time.monotonic() - began < 3
    assert "MLflow" not in capsys.readouterr().err


def test_processes_that_read_ahead_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text("{}")
    with running("train", work=tmp_path) as run:
        job = _job(run, "toy", TrainParams(loaders=3), None, tmp_path, None, "local")
    assert job.request.loaders == 3
