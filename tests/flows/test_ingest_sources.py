"""``voxface ingest`` before any work: where rows come from, what a dry run tells, what is refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.plan import read_plan
from flows.ingest import covers
from preprocessing.corpora import read_manifest
from preprocessing.plan import plan_dataset

Voxface = Callable[..., Any]


def _avspeech(folder: Path, odd: int) -> Path:
    lines = [
        "aaaaaaaaaaa,0,1,0.5,0.5",
        "-aaaaaaaaaa,0,1,0.5,0.5",
        "bbbbbbbbbbb,0,1,0.5,0.5",
        *["#NAME?,0,1,0.5,0.5"] * odd,
    ]
    (folder / "avspeech_train.csv").write_text("\n".join(lines))
    (folder / "aaaaaaaaaaa.mp4").write_bytes(b"12345")
    (folder / "-aaaaaaaaaa.mp4").write_bytes(b"")
    return folder / "avspeech_train.csv"


def test_a_dry_run_counts_missing_and_empty_files_apart(voxface: Voxface, tmp_path: Path) -> None:
    said = voxface("ingest", "--corpus", "avspeech", "--annotations", _avspeech(tmp_path, 25), "--dry-run", "--json")
    assert said.code == 0
    counts = said.result
    assert (counts["rows"], counts["bad_lines"], counts["missing_files"], counts["empty_files"]) == (28, 25, 1, 1)
    assert (counts["source_files"], counts["source_bytes"], counts["rows_per_shard"]) == (1, 5, 64)
    assert [line["line"] for line in counts["odd_lines"]] == list(range(4, 29))
    assert {line["file"] for line in counts["odd_lines"]} == {"avspeech_train.csv"}
    assert not (tmp_path / "work" / "dataset").exists()


def test_odd_lines_are_few_on_the_terminal_and_whole_in_the_log(voxface: Voxface, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("ingest: {rows_per_shard: 16}\n")
    said = voxface("ingest", "--corpus", "avspeech", "--annotations", _avspeech(tmp_path, 25), "--dry-run")
    assert said.out.count("avspeech_train.csv line") == 20
    assert "rows_per_shard     16" in said.out
    assert "and 5 more odd lines" in said.err
    (record,) = [json.loads(path.read_bytes()) for path in (tmp_path / "work" / "runs").glob("*.json")]
    assert len(record["result"]["odd_lines"]) == 25
    assert Path(record["log"]).read_text().count("odd line: avspeech_train.csv line") == 25


def test_sources_that_cannot_be_are_misuse(voxface: Voxface, tmp_path: Path) -> None:
    manifest = _avspeech(tmp_path, 0)
    corpus = ("--corpus", "avspeech", "--annotations", manifest, "--dry-run")
    for arguments, told in [
        ((), "one of --manifest"),
        (("--manifest", manifest, *corpus), "one of --manifest"),
        (("--corpus", "avspeech"), "needs --annotations"),
        (("--manifest", manifest, "--layout", "clips"), "go with --corpus"),
        (("--corpus", "grid", "--annotations", manifest), "choose hdtf"),
        ((*corpus, "--layout", "pictures"), "choose videos or clips"),
        ((*corpus, "--media", "{nothing}.mp4"), "may name {end}"),
        ((*corpus, "--frame-size", "big"), "640x360"),
        ((*corpus, "--data-root", tmp_path / "gone"), "check --data-root"),
        ((*corpus, "--data-root", "memory://gone"), "holds nothing"),
        (("--folder", tmp_path, "--data-root", "s3://bucket/x"), "give --manifest"),
    ]:
        said = voxface("ingest", *arguments)
        assert said.code == 2, arguments
        assert told in said.err, arguments


def test_a_password_in_an_address_is_refused_and_kept_nowhere(voxface: Voxface, tmp_path: Path) -> None:
    said = voxface("ingest", "--manifest", _avspeech(tmp_path, 0), "--data-root", "s3://me:hush-7f3a@bucket/x")
    assert said.code == 2
    kept = said.out + said.err + "".join(path.read_text() for path in (tmp_path / "work").rglob("*") if path.is_file())
    assert "hush-7f3a" not in kept
    assert "s3://***@bucket/x" in kept


@pytest.mark.parametrize("text", ["file\na.mp4\nb.mp4,x\n", "file\na.mp4\na.mp4\n"])
def test_a_plan_covers_bad_lines_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    rows = read_manifest(tmp_path / "m.csv", tmp_path)
    assert not covers(tmp_path / "D", rows)
    plan_dataset(tmp_path / "D", rows, tmp_path)
    assert covers(tmp_path / "D", rows)
    assert len((read_plan(tmp_path / "D") or ([], 0))[0]) == 2
