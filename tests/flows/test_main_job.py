"""From clips to a marked video through Prefect, Ray, MLflow and Serve, with a toy in the place of a paper."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import environment

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prefect reads its settings when imported: they must stand before the first flow of these tests."""
    environment.prepare(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo corpus of two speakers with one sentence each, and the bad files that come with it."""
    from preprocessing.demo import make_demo_corpus

    return make_demo_corpus(tmp_path_factory.mktemp("demo") / "demo", speakers=2, sentences=1)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


def test_clips_become_a_dataset_in_which_every_row_is_accounted_for(
    voxface: Callable[..., Any], corpus: Path, tmp_path: Path
) -> None:
    said = voxface("ingest", "--manifest", corpus, "--workers", 2, "--json", "-q")
    assert said.code == 0, said.err
    rows = said.result["rows"]
    with corpus.open() as file:
        lines = list(csv.DictReader(file))
    assert rows["read"] == len(lines) == rows["kept"] + sum(rows["rejected"].values())
    assert rows["failed"] == {}
    assert rows["kept"] == sum(line["expected"] == "kept" for line in lines)
    dataset = tmp_path / "work" / "dataset"
    assert (dataset / "report.html").is_file()
    silent = voxface("dataset", "verify", dataset, "-q")
    assert (silent.code, silent.out, silent.err) == (0, "", "")

    before = bytes_of(dataset)
    again = voxface("ingest", "--manifest", corpus, "--workers", 1, "--json", "-q").result
    assert (again["frames_decoded"], again["shards_made"]) == (0, 0)
    assert bytes_of(dataset) == before
    budget = voxface("ingest", "--manifest", corpus, "--max-rejected", "1%", "-q")
    assert budget.code == 3
    assert "--max-rejected allows" in budget.err

    chosen = voxface("dataset", "select", dataset, "--json").result
    assert chosen["frames_decoded"] == 0
    stricter = voxface("dataset", "select", dataset, "--where", "kind == 'clip'", "--json").result
    assert stricter["frames_decoded"] == 0
    assert 0 < stricter["chosen"] < chosen["chosen"]
    assert bytes_of(dataset) == before

    tar = next(dataset.glob("shard-*.tar"))
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    damaged = voxface("dataset", "verify", dataset)
    assert damaged.code == 4
    assert tar.name in damaged.err
    assert "expected" in damaged.err


def test_a_dataset_becomes_a_marked_video(
    voxface: Callable[..., Any], small_dataset: Any, toy_system: str, corpus: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(small_dataset.dataset, dataset)
    where = ["--dataset", dataset, "--selection", small_dataset.selection_folder]
    dry = voxface("train", toy_system, *where, "--dry-run", "--json").result
    assert dry["to_train"]
    assert not (tmp_path / "work" / "training").exists()

    trained = voxface("train", toy_system, *where, "--json", "-q")
    assert trained.code == 0, trained.err
    assert trained.result["trained"] == dry["to_train"]
    assert Path(trained.result["report"]).is_file()
    again = voxface("train", toy_system, *where, "--json", "-q")
    assert again.result["trained"] == []
    assert again.result["stages"] == trained.result["stages"]

    told = voxface("evaluate", toy_system, *where, "--json", "-q")
    assert told.code == 0, told.err
    assert {line["stage"] for line in told.result["bars"]} <= {line["stage"] for line in trained.result["stages"]}

    published = voxface("publish", toy_system, "--json", "-q")
    assert published.code == 0, published.err
    bundle = Path(published.result["bundle"])
    assert bundle.name == published.result["digest"][:12]
    assert voxface("publish", toy_system, "--json").result == published.result

    sound = next(corpus.parent.glob("clips/*.mp4"))
    talk = tmp_path / "talk.mp4"
    line = ["generate", "--system", toy_system, "--audio", sound, "--out", talk, "--json", "-q"]
    made = voxface(*line)
    assert made.code == 0, made.err
    (video,) = made.result["videos"]
    sidecar = json.loads(Path(video["sidecar"]).read_bytes())
    assert sidecar["inputs"]["bundle"] == published.result["digest"]
    assert sidecar["digital_source_type"].endswith("trainedAlgorithmicMedia")
    assert video["frames"] == sidecar["frames"] == round(25 * sidecar["seconds"])
    stamp = talk.stat().st_mtime_ns
    assert voxface(*line).code == 0
    assert talk.stat().st_mtime_ns == stamp

    assert voxface("inspect", talk).code == 0
    refused = voxface(*line[:-2], "--portrait", sound, "-q")
    assert refused.code == 2
    assert "NO_CONSENT" in refused.err
    talk.write_bytes(talk.read_bytes() + b"x")
    assert voxface("inspect", talk).code == 4
    weights = next(bundle.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert voxface(*line).code == 4
