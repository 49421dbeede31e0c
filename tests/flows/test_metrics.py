"""A run's counts: in its result, at a port, in a text file, and in the dashboard that reads them."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest

from contracts.errors import Misuse
from flows.meter import Meter, clock
from flows.metrics import METRICS, published
from preprocessing.costs import Cost
from preprocessing.shard import Told

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "infra" / "grafana" / "ingestion.json"


@pytest.fixture
def meter() -> Meter:
    """Three rows in a shard, one of them carried over; then a fourth told of, and lost with its node."""
    meter = Meter()
    meter.begins(2, 4)
    rows = [
        Told("a", "kept", "kept", 50, costs={"Watch": Cost(2.0, 1.5)}, worker="one:1", peak_bytes=300_000_000),
        Told("b", "NO_FACE", "rejected", 20, costs={"Watch": Cost(1.0, 0.5)}, worker="one:1", peak_bytes=310_000_000),
        Told("c", "kept", "kept", carried=True, worker="one:1", peak_bytes=310_000_000),
    ]
    for row in rows:
        meter.told(row)
    meter.told(Told(costs={"commit": Cost(0.5, 0.25)}, worker="one:1", peak_bytes=320_000_000))
    meter.committed(rows)
    meter.told(Told("d", "CRASHED", "failed", 5, worker="two:9", peak_bytes=1))
    meter.lost_shard("node")
    return meter


def test_the_result_says_what_was_made_and_what_it_cost(meter: Meter) -> None:
    result = meter.result()
    assert result["rows_made"] == {"kept": 2, "NO_FACE": 1}
    assert (result["rows_carried_over"], result["shards_lost"]) == (1, {"node": 1})
    assert result["spent"] == [
        {"on": "Watch", "wall_s": 3.0, "cpu_s": 2.0},
        {"on": "commit", "wall_s": 0.5, "cpu_s": 0.25},
    ]
    assert result["worker_peak_mb"] == 320
    json.dumps(result)


def test_progress_says_pace_and_time_left(meter: Meter) -> None:
    meter._making_since -= 30.0
    assert re.fullmatch(r"0\.10 rows/s, [23] frames/s, 10 s left", meter.pace(3, 4))
    assert "left" not in meter.pace(0, 4) + meter.pace(4, 4)
    assert [clock(s) for s in (99, 100, 3600)] == ["99 s", "1 min 40 s", "1 h 0 min"]


def exposed(text: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_a_text_file_holds_the_run_s_end(meter: Meter, tmp_path: Path) -> None:
    file = tmp_path / "voxface.prom"
    with published(meter, None, file):
        assert exposed(file.read_text())["voxface_ingest_ended"] == 0.0
    found = exposed(file.read_text())
    assert found['voxface_ingest_rows_total{reason="",state="kept"}'] == 2.0
    assert found['voxface_ingest_rows_total{reason="NO_FACE",state="rejected"}'] == 1.0
    assert found['voxface_ingest_step_seconds_total{clock="cpu",step="Watch"}'] == 2.0
    assert found['voxface_ingest_shards_lost_total{why="node"}'] == 1.0
    assert (found["voxface_ingest_source_frames_total"], found["voxface_ingest_rows_planned"]) == (75.0, 4.0)
    assert found["voxface_ingest_ended"] == 1.0
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_that_fails_has_not_ended_well(meter: Meter, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), published(meter, None, tmp_path / "v.prom"):
        raise ZeroDivisionError
    assert exposed((tmp_path / "v.prom").read_text())["voxface_ingest_ended"] == 0.0


def test_a_port_of_this_machine_serves_them_and_is_given_back(meter: Meter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misuse, match=f"--metrics-port {port}"), published(meter, port, None):
            pass
    with published(meter, port, None):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            found = exposed(answer.read().decode())
        assert found["voxface_ingest_shards_total"] == 1.0
        assert {name.partition("{")[0].removesuffix("_total") for name in found} == set(METRICS)
        meter.told(Told("e", "kept", "kept", 25))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert exposed(answer.read().decode())["voxface_ingest_source_frames_total"] == 100.0
    socket.create_server(("127.0.0.1", port)).close()


def test_a_file_that_cannot_be_written_is_named(meter: Meter, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="--metrics-file"), published(meter, None, tmp_path / "no" / "v.prom"):
        pass


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) >= len(board["panels"]) > 5
    scraped = {name + "_total" * (kind == "counter"): labels for name, (kind, labels, _) in METRICS.items()}
    seen = set()
    for query in asked:
        names = set(re.findall(r"voxface_\w+", query))
        assert names, query
        assert names <= set(scraped), query
        allowed = {label for name in names for label in scraped[name]}
        used = re.findall(r"by \((\w+)\)", query) + re.findall(r"[{,]\s*(\w+)\s*[=!]", query)
        assert set(used) <= allowed, query
        seen |= names
    assert seen == set(scraped)  # and shows every one of them
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_readme_beside_the_dashboard_names_every_metric() -> None:
    text = (DASHBOARD.parent / "README.md").read_text()
    for name, (kind, labels, _) in METRICS.items():
        assert f"`{name}{'_total' * (kind == 'counter')}`" in text
        assert all(f"`{label}`" in text for label in labels)
