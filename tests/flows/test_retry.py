"""Rows tried again: the right ones, and nothing else changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import Misuse
from contracts.manifest import row_from
from contracts.shards import open_shard
from flows.retry import choose, outcome, stale_shards
from preprocessing.accounts import planned_shards
from preprocessing.build import IngestSettings
from preprocessing.plan import plan_dataset
from preprocessing.shard import ShardTask, make_shard

SETTINGS = IngestSettings(rows_per_shard=4)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Speech of two kinds, a file that is none, and a place where a file is missing."""
    import numpy as np

    from contracts.sample import encode_wav

    folder = tmp_path / "sources"
    folder.mkdir()
    t = np.arange(16000) / 16000
    for number, pitch in enumerate((180, 220)):
        (folder / f"{number}.wav").write_bytes(encode_wav((8000 * np.sin(2 * np.pi * pitch * t)).astype(np.int16)))
    (folder / "torn.wav").write_bytes(b"RIFF")
    return folder


@pytest.fixture
def dataset(tmp_path: Path, sources: Path) -> Path:
    """Four rows in one shard: kept, failed(CRASHED), BAD_CONTAINER, MISSING_FILE."""
    dataset = tmp_path / "D"
    rows = [row_from({"file": name, "kind": "speech"}) for name in ("0.wav", "1.wav", "torn.wav", "gone.wav")]
    planned = plan_dataset(dataset, rows, sources, rows_per_shard=4)
    make(dataset, sources, crashed=frozenset({planned[1].key}))
    return dataset


def make(dataset: Path, sources: Path, **how: frozenset[str]) -> list[str]:
    """Make the shard in this process; the keys of the rows that were not carried over."""
    task = ShardTask(dataset, sources, 0, planned_shards(dataset)[0], SETTINGS, **how)
    return [told.key for told in make_shard(task) if told.key and not told.carried]


def test_each_word_chooses_its_rows(dataset: Path) -> None:
    ends = {"failed": ["CRASHED"], "rejected:MISSING_FILE": ["MISSING_FILE"], "rejected:NO_FACE": []}
    for which, expected in ends.items():
        assert list(choose(dataset, which).before.values()) == expected
    everything = choose(dataset, "all-rejected")
    assert len(everything.before) == 2
    assert [row.file for row in everything.planned_anew] == ["gone.wav"]


@pytest.mark.parametrize("which", ["rejected", "rejected:", "rejected:NONSENSE", "kept", "all", ""])
def test_other_words_are_misuse_that_says_the_right_ones(dataset: Path, which: str) -> None:
    with pytest.raises(Misuse, match="failed, rejected:REASON or all-rejected"):
        choose(dataset, which)


def test_without_a_dataset_there_is_nothing_to_try_again(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="voxface ingest first"):
        choose(tmp_path, "failed")


def test_a_failed_row_is_redone_and_its_neighbours_keep_their_bytes(dataset: Path, sources: Path) -> None:
    retry = choose(dataset, "failed")
    before = open_shard(dataset, 0)
    assert before is not None
    (kept,) = before.record.keys
    sample = before.read(kept)
    built = make(dataset, sources, again=retry.keys)
    assert set(built) & {row.key for row in planned_shards(dataset)[0] if row.reason is None} == retry.keys
    assert outcome(dataset, retry) == {
        "rows": 1,
        "changed": 1,
        "moves": [{"before": "CRASHED", "now": "kept", "rows": 1}],
    }
    after = open_shard(dataset, 0)
    assert after is not None
    assert after.read(kept) == sample
    assert len(after.record.keys) == 2


def test_shards_of_other_steps_are_told_of(dataset: Path) -> None:
    keys = choose(dataset, "failed").keys
    assert stale_shards(dataset, SETTINGS, keys) == 0
    assert stale_shards(dataset, IngestSettings(rows_per_shard=4, jpeg_quality=90), keys) == 1
    assert stale_shards(dataset, IngestSettings(rows_per_shard=4, jpeg_quality=90), frozenset()) == 0


def test_a_file_that_has_come_is_planned_and_made(dataset: Path, sources: Path) -> None:
    retry = choose(dataset, "rejected:MISSING_FILE")
    shutil.copy(sources / "0.wav", sources / "gone.wav")
    with (sources / "gone.wav").open("ab") as file:  # other bytes, or it would be a duplicate
        file.write(b"\0\0")
    plan_dataset(dataset, list(retry.planned_anew), sources, rows_per_shard=4)
    assert make(dataset, sources, again=retry.keys) == list(retry.keys)
    told = outcome(dataset, retry)
    assert (told["rows"], told["changed"]) == (1, 1)
    assert open_shard(dataset, 0).record.failed == {"CRASHED": 1}  # type: ignore[union-attr]


def test_the_command_says_what_it_would_try(dataset: Path, sources: Path, voxface: Callable) -> None:
    again = ("ingest", "--out", dataset, "--data-root", sources)
    said = voxface(*again, "--retry", "all-rejected", "--dry-run", "--json")
    assert said.code == 0
    assert said.result["would_try_again"]["rows"] == 2
    said = voxface(*again, "--retry", "rejected:NO_FACE", "--json")
    assert said.code == 0
    assert "nothing to do" in said.err
    assert voxface(*again, "--retry", "nonsense").code == 2
    assert "--data-root" in voxface("ingest", "--out", dataset, "--retry", "failed").err
