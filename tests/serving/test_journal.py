"""Logs are lines of JSON with the ids of jobs, and say nothing of people."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from serving.api import create_api
from serving.journal import FOLDER, KEPT_S, Journal
from serving.loader import load_pipeline
from serving.render import Renderer
from serving.rows import Model, Models
from serving.service import Service
from serving.worker import Worker


def lines(root: Path, kind: str) -> list[dict]:
    (path,) = (root / FOLDER).glob(f"{kind}-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job_is_followed_by_its_id(bundle: Path, tmp_path: Path, speech: Callable[..., Path]) -> None:
    renderer = Renderer(*load_pipeline(bundle))
    root = tmp_path / "service"
    service = Service(root, Models([Model("champion", bundle, renderer.bundle)]))
    service.journal = Journal(root, "door")
    info, key = service.keys.create("Ada Lovelace", ["submit", "read"])
    headers = {"Authorization": f"Bearer {key}"}
    sound = speech("secret-name.wav", 16_000).read_bytes()
    with TestClient(create_api(service)) as door:
        jobs = []
        for label in ("a greeting to Ada", "the same"):  # two jobs, one execution
            form = {"audio": ("secret-name.wav", sound), "label": (None, label), "id": (None, f"of-{len(jobs)}")}
            jobs.append(door.post("/v1/jobs", headers=headers, files=form).json()["job"])
        journal = Journal(root, "model")
        worker = Worker(service.queue, renderer.bundle_digest, service.results, renderer.render, journal=journal)
        assert [worker.work(), worker.work()] == [1, 0]
        assert door.delete(f"/v1/jobs/{jobs[0]}", headers=headers).status_code == 204
    asked, again, deleted = lines(root, "door")
    assert [asked["event"], again["event"], deleted["event"]] == ["asked", "asked", "deleted"]
    assert [asked["job"], again["job"], deleted["job"]] == [*jobs, jobs[0]]
    assert {asked["key"], deleted["key"]} == {info.id}
    (ended,) = lines(root, "model")
    assert (ended["event"], ended["state"], ended["frames"]) == ("ended", "done", 25)
    assert ended["jobs"] == sorted(jobs)
    said = "".join(path.read_text() for path in (root / FOLDER).iterdir())
    assert not [word for word in ("Ada", "greeting", "secret", str(tmp_path)) if word in said]
    service.close()


def test_what_was_written_long_ago_goes(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    old, new = folder / "door-a-1.jsonl", folder / "door-a-2.jsonl"
    for path, age in ((old, KEPT_S + 60), (new, 60)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    Journal(tmp_path, "door").close()
    assert [path.name for path in folder.iterdir()] == [new.name]
