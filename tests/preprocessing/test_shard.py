"""One shard, made in this process: what stands is carried over, what changed is built, bytes are the same."""

import json
import shutil
from pathlib import Path

import pytest

from contracts.errors import Corrupt, Misuse
from contracts.files import sha256_file
from contracts.manifest import row_from
from contracts.shards import open_shard, read_shard
from preprocessing import shard, steps
from preprocessing.accounts import done, pending, planned_shards
from preprocessing.build import IngestSettings
from preprocessing.plan import plan_dataset
from preprocessing.shard import RUN_FILE, ShardTask, make_shard

SETTINGS = IngestSettings(rows_per_shard=4)
MIXED = ("talk.mp4", "face.png", "gone.mp4", "speech.wav")


def _task(dataset: Path, root: Path, number: int = 0, **other) -> ShardTask:
    return ShardTask(dataset, root, number, planned_shards(dataset)[number], SETTINGS, **other)


def _built(dataset: Path, root: Path, number: int = 0, **other) -> list[str]:
    """Make the shard; the files of the rows that were built for it."""
    task = _task(dataset, root, number, **other)
    told = [each for each in make_shard(task) if each.key]
    assert [each.key for each in told] == [row.key for row in task.rows]
    return [row.values.file for row, each in zip(task.rows, told) if not each.carried]


def _digests(dataset: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(dataset.glob("shard-*"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory, clip_folder):
    """A shard of all kinds, and one of speech alone."""
    dataset = tmp_path_factory.mktemp("shard") / "D"
    rows = [row_from({"file": name, "mood": "calm"}) for name in MIXED] + [row_from({"file": "speech.wav", "end_s": 1})]
    plan_dataset(dataset, rows, clip_folder, rows_per_shard=4)
    assert _built(dataset, clip_folder) == list(MIXED)
    assert _built(dataset, clip_folder, 1) == ["speech.wav"]
    assert pending(dataset, SETTINGS) == []
    return dataset


@pytest.fixture
def dataset(made, tmp_path):
    shutil.copytree(made, tmp_path / "D")
    return tmp_path / "D"


def test_what_stands_is_carried_over_to_the_byte(made, dataset, clip_folder):
    assert _built(dataset, clip_folder) == ["gone.mp4"]  # refused in planning: there is nothing to carry
    assert _digests(dataset) == _digests(made)


def test_a_changed_step_makes_rows_of_its_kinds_anew_and_no_others(made, dataset, clip_folder, monkeypatch):
    monkeypatch.setattr(steps.Look, "version", steps.Look.version + 1)
    assert pending(dataset, SETTINGS) == [0]
    before = open_shard(made, 0)
    assert _built(dataset, clip_folder) == ["face.png", "gone.mp4"]
    assert pending(dataset, SETTINGS) == []
    after = open_shard(dataset, 0)
    for key in before.record.keys:
        same = before.read(key) == after.read(key)
        assert same == ("-face-" not in key)  # a still's own record names the steps that made it
    shutil.rmtree(dataset)
    dataset.mkdir()
    shutil.copy(made / "plan.parquet", dataset)
    assert _built(dataset, clip_folder) == list(MIXED)
    assert open_shard(dataset, 0).record == after.record  # from nothing or from what stood: the same bytes


def test_a_setting_makes_anew_what_reads_it(dataset):
    fewer = IngestSettings.model_validate({"rows_per_shard": 4, "limits": {"still_pixels": 10_000_000}})
    assert pending(dataset, fewer) == [0]
    assert pending(dataset, IngestSettings(rows_per_shard=4, jpeg_quality=90)) == [0, 1]


def test_chosen_rows_are_built_again(made, dataset, clip_folder):
    key = next(row.key for row in planned_shards(dataset)[0] if row.values.file == "talk.mp4")
    assert _built(dataset, clip_folder, again=frozenset({key})) == ["talk.mp4", "gone.mp4"]
    assert _digests(dataset) == _digests(made)


def test_a_row_set_aside_is_not_touched(dataset, clip_folder):
    key = planned_shards(dataset)[0][0].key
    told = list(make_shard(_task(dataset, clip_folder, crashed=frozenset({key}))))
    assert (told[0].key, told[0].state, told[0].ended) == (key, "failed", "CRASHED")
    assert open_shard(dataset, 0).record.failed == {"CRASHED": 1}


def test_nothing_is_carried_out_of_a_damaged_shard(made, dataset, clip_folder):
    tar = dataset / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 1
    tar.write_bytes(data)
    assert _built(dataset, clip_folder) == list(MIXED)
    assert _digests(dataset) == _digests(made)


def test_a_record_of_the_first_schema_is_named_and_its_shard_made_anew(made, dataset, clip_folder):
    path = dataset / "shard-000000.json"
    record = json.loads(path.read_bytes()) | {"schema_version": 1, "steps": "a" * 64, "rows": "b" * 64}
    path.write_text(json.dumps(record))
    with pytest.raises(Corrupt, match=r"another version.*voxface ingest"):
        read_shard(dataset, 0)
    assert not done(dataset, 0, planned_shards(dataset)[0], SETTINGS)
    assert _built(dataset, clip_folder) == list(MIXED)
    assert _digests(dataset) == _digests(made)


def test_a_worker_that_sees_another_folder_says_so(dataset, clip_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shard, "SEEN_WITHIN_S", 0.3)
    before = _digests(dataset)
    with pytest.raises(Misuse, match=r"not the folder that this run writes to.*shared file system"):
        next(make_shard(_task(dataset, clip_folder, mark="of this run")))
    (dataset / RUN_FILE).write_text("of this run")
    with pytest.raises(Misuse, match="elsewhere is not a folder on"):
        next(make_shard(_task(dataset, tmp_path / "elsewhere", mark="of this run")))
    assert _digests(dataset) == before
    assert next(make_shard(_task(dataset, clip_folder, mark="of this run"))).key
