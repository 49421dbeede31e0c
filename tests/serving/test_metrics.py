"""What Prometheus reads of the service: counted with what happened, kept over restarts and deletions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from serving.api import create_api
from serving.jobs import Result
from serving.ledger import Ledger, sqlite_url
from serving.loader import load_pipeline
from serving.metrics import METRICS, METRICS_TYPE, PREFIX, exposition
from serving.queue import TRIES, Queue
from serving.render import Renderer
from serving.rows import Model, Models
from serving.service import Service
from serving.tally import count, counted
from serving.worker import Worker

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "infra" / "grafana" / "serving.json"
SCRAPED = {PREFIX + name + "_total" * (kind == "counter"): labels for name, (kind, labels, _) in METRICS.items()}


def exposed(said: str) -> dict[str, float]:
    """Values by name and labels."""
    lines = (line.rpartition(" ") for line in said.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_videos_steps_and_refusals_are_counted_and_stay_counted(
    bundle: Path, tmp_path: Path, speech: Callable[..., Path]
) -> None:
    renderer = Renderer(*load_pipeline(bundle))
    own = renderer.bundle_digest[:12]
    service = Service(tmp_path / "service", Models([Model("champion", bundle, renderer.bundle)]))
    key = service.keys.create("me", ["submit", "read"])[1]
    scraper = {"Authorization": f"Bearer {service.keys.create('prometheus', ['metrics'])[1]}"}
    with TestClient(create_api(service)) as door:
        assert door.get("/metrics").status_code == 401
        assert door.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 403
        assert door.get("/v1/jobs", headers=scraper).status_code == 403  # it may do nothing else
        own_key = {"Authorization": f"Bearer {key}"}
        sounds = {"a": speech("a.wav", 16_000).read_bytes(), "loud": speech("b.wav", 16_000, peak=1.0).read_bytes()}
        items = json.dumps([{"audio": "a"}, {"audio": "a", "seed": 1}, {"audio": "loud"}])
        answer = door.post("/v1/jobs", headers=own_key, files={**sounds, "items": (None, items)})
        waiting = exposed(door.get("/metrics", headers=scraper).text)
        assert waiting[f'voxface_serve_executions{{bundle="{own}",state="queued"}}'] == 3
        job = answer.json()["job"]
        worker = Worker(service.queue, renderer.bundle_digest, service.results, renderer.render, spent=renderer.take)
        while worker.work():
            pass
        answer = door.get("/metrics", headers=scraper)
        assert answer.headers["content-type"] == METRICS_TYPE
        found = exposed(answer.text)
        of = f'bundle="{own}"'
        assert found[f'voxface_serve_videos_total{{{of},code="",state="done"}}'] == 2
        assert found[f'voxface_serve_videos_total{{{of},code="INTERNAL",state="failed"}}'] == 1
        assert found[f"voxface_serve_frames_total{{{of}}}"] == 50
        assert found[f"voxface_serve_speech_seconds_total{{{of}}}"] == pytest.approx(2.0)
        steps = {name: value for name, value in found.items() if name.startswith("voxface_serve_step_seconds")}
        assert {re.search('step="([a-z]+)"', name)[1] for name in steps} == {  # type: ignore[index]
            *("prepare", "model", "mark", "encode", "check", "publish")
        }
        assert min(steps.values()) > 0
        assert found['voxface_serve_requests_total{code="",status="202"}'] == 1
        assert found['voxface_serve_requests_total{code="",status="401"}'] == 1
        assert found["voxface_serve_waiting_seconds"] == 0
        assert door.delete(f"/v1/jobs/{job}", headers=own_key).status_code == 204
    service.close()
    again = Service(tmp_path / "service")
    kept = exposed(exposition(again.queue, 10))
    assert kept[f'voxface_serve_videos_total{{{of},code="",state="done"}}'] == 2  # though its job is gone
    assert kept["voxface_serve_queue_limit"] == 10
    again.close()


def test_executions_given_out_again_are_counted(ledger: Ledger, clock: Any, own_bundle: Path, speech: Any) -> None:
    from serving.jobs import Job
    from serving.keys import Keys
    from serving.orders import Item, Orders
    from serving.policy import admit

    job = Job(audio=speech("a.wav", 16_000), out=Path("x.mp4"))
    Orders(ledger).submit(Keys(ledger).local(), [Item("0", admit(job, "b" * 64), job)])
    queue = Queue(ledger)
    assert len(queue.claim("b" * 64, "one that dies", 1)) == 1
    clock.now += 30
    for _ in range(TRIES):
        (claim,) = queue.claim("b" * 64, "one that cannot", 1)
        assert queue.again(claim, "no space")
        clock.now += 60
    assert counted(ledger) == {
        ("retries", "b" * 12, "silent"): 1,
        ("retries", "b" * 12, "transient"): TRIES - 1,
        ("videos", "b" * 12, "failed", "EXHAUSTED"): 1,
    }
    lost = Result(out=job.out, sidecar=job.out, portrait=None, frames=1, seconds=1, job="", video="", reused=False)
    assert not queue.finish(claim, lost)
    assert ("videos", "b" * 12, "done", "") not in counted(ledger)  # what is not ours any more is not counted


def test_what_is_rolled_back_was_never_counted(ledger: Ledger) -> None:
    with suppress(ZeroDivisionError), ledger.writing() as connection:
        count(connection, {("frames", "b"): 5})
        raise ZeroDivisionError
    assert counted(ledger) == {}


def test_an_older_ledger_learns_to_count(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "ledger.db")
    ledger = Ledger(url)
    with ledger.writing() as connection:  # as version 1 left it
        connection.execute(text("DROP TABLE tally"))
        connection.execute(text("UPDATE ledger_version SET number = 1"))
    ledger.close()
    again = Ledger(url)
    assert counted(again) == {}
    again.close()


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) >= len(board["panels"]) > 5
    seen = set()
    for query in asked:
        names = set(re.findall(r"voxface_\w+", query))
        assert names, query
        assert names <= set(SCRAPED), query
        used = re.findall(r"by \((\w+)\)", query) + re.findall(r"[{,]\s*(\w+)\s*[=!]", query)
        assert set(used) <= {label for name in names for label in SCRAPED[name]}, query
        seen |= names
    assert seen == set(SCRAPED)  # and shows every one of them
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_readme_beside_the_dashboard_names_every_metric() -> None:
    said = (DASHBOARD.parent / "README.md").read_text()
    for name, labels in SCRAPED.items():
        assert f"`{name}`" in said
        assert all(f"`{label}`" in said for label in labels)
