"""Ingestion on Ray: same bytes whatever the workers, nothing done twice, crashes cost one row."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from contracts.errors import Corrupt, Misuse, Transient
from contracts.files import lock, sha256_file
from contracts.index import read_index
from contracts.manifest import row_from
from preprocessing import run
from preprocessing.build import IngestSettings
from preprocessing.plan import plan_dataset
from preprocessing.run import Observer, ingest, pending, verify
from preprocessing.shard import ShardTask

pytestmark = pytest.mark.cluster
SETTINGS = IngestSettings(rows_per_shard=2)
FILES = ("talk.mp4", "wall.mp4", "face.png", "gone.mp4", "speech.wav")


@pytest.fixture(scope="module", autouse=True)
def _ray():
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def _plan(dataset: Path, root: Path, files=FILES):
    return plan_dataset(dataset, [row_from({"file": name}) for name in files], root, rows_per_shard=2)


def _digests(dataset: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(dataset.glob("shard-*"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory, clip_folder):
    dataset = tmp_path_factory.mktemp("made") / "D"
    _plan(dataset, clip_folder)
    told = []
    report = ingest(dataset, clip_folder, workers=2, settings=SETTINGS, progress=lambda *now: told.append(now))
    return dataset, report, told


def test_every_row_is_accounted_for(made, clip_folder):
    dataset, report, told = made
    assert (report.read, report.kept, report.failed) == (5, 3, {})
    assert report.rejected == {"MISSING_FILE": 1, "NO_FACE": 1}
    assert (report.shards_made, report.shards_reused) == (3, 0)
    assert report.frames_decoded == 30 + 30 + 1
    assert told[-1][:2] == (5, 5)
    assert [now[0] for now in told] == sorted(now[0] for now in told)
    assert verify(dataset).kept == 3
    rows = [line for line in read_index(dataset).to_pylist() if line["level"] == "row"]
    assert [line["file"] for line in rows] == list(FILES)


def test_one_worker_makes_the_same_bytes(made, clip_folder, tmp_path):
    _plan(tmp_path / "D", clip_folder)
    ingest(tmp_path / "D", clip_folder, workers=1, settings=SETTINGS)
    assert _digests(tmp_path / "D") == _digests(made[0])


def test_a_second_run_does_nothing(made, clip_folder):
    dataset, first, _ = made
    before = {path: path.stat().st_mtime_ns for path in dataset.glob("shard-*")}
    assert pending(dataset, SETTINGS) == []
    report = ingest(dataset, clip_folder, workers=2, settings=SETTINGS)
    assert (report.frames_decoded, report.shards_made, report.shards_reused) == (0, 0, 3)
    assert (report.read, report.kept, report.rejected) == (first.read, first.kept, first.rejected)
    assert {path: path.stat().st_mtime_ns for path in dataset.glob("shard-*")} == before


def test_only_what_is_missing_is_made(made, clip_folder, tmp_path):
    dataset = tmp_path / "D"
    shutil.copytree(made[0], dataset)
    (dataset / "shard-000001.json").unlink()
    (dataset / ".tmp-shard-000001.tar.1-aa").write_bytes(b"left by a killed writer")
    assert pending(dataset, SETTINGS) == [1]
    report = ingest(dataset, clip_folder, workers=1, settings=SETTINGS)
    assert (report.shards_made, report.shards_reused) == (1, 2)
    assert _digests(dataset) == _digests(made[0])
    assert not list(dataset.glob(".tmp-*"))
    assert pending(dataset, IngestSettings(rows_per_shard=2, jpeg_quality=90)) == [0, 1, 2]


def test_new_rows_touch_only_new_shards(made, clip_folder, tmp_path):
    dataset = tmp_path / "D"
    shutil.copytree(made[0], dataset)
    _plan(dataset, clip_folder, (*FILES, "two.mp4"))
    assert pending(dataset, SETTINGS) == [3]
    assert ingest(dataset, clip_folder, workers=1, settings=SETTINGS).read == 6
    after = _digests(dataset)
    assert {name: after[name] for name in _digests(made[0])} == _digests(made[0])


def test_a_worker_that_dies_costs_one_row(clip_folder, tmp_path, monkeypatch):
    dataset = tmp_path / "D"
    _plan(dataset, clip_folder, ("face.png", "speech.wav"))
    monkeypatch.setattr(run, "make_shard", _dying(run.make_shard, "face.png"))
    monkeypatch.setattr(run, "build_alone", _dying_alone("face.png"))
    report = ingest(dataset, clip_folder, workers=1, settings=SETTINGS)
    assert (report.read, report.kept, report.failed) == (2, 1, {"CRASHED": 1})
    (line,) = [line for line in read_index(dataset).to_pylist() if line["state"] == "failed"]
    assert (line["file"], line["reason"]) == ("face.png", "CRASHED")


def test_workers_that_die_of_something_else_cost_no_row(clip_folder, tmp_path, monkeypatch):
    """Killed from outside three times and once more: the shard is made in the end, and no row is blamed."""
    dataset, deaths = tmp_path / "D", tmp_path / "deaths"
    deaths.mkdir()
    _plan(dataset, clip_folder, ("speech.wav", "face.png"))
    monkeypatch.setattr(run, "make_shard", _killed(run.make_shard, deaths, 4))
    heard = Heard()
    report = ingest(dataset, clip_folder, workers=1, settings=SETTINGS, observer=heard)
    assert (report.read, report.kept, report.failed) == (2, 2, {})
    assert heard.lost == ["worker"] * 4
    assert heard.rows == 2
    assert not list(dataset.glob(".tmp-*"))


def _killed(make, deaths, times):
    def make_shard(task):
        for number, told in enumerate(make(task)):
            yield told
            if number == 0 and len(list(deaths.iterdir())) < times:
                (deaths / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return make_shard


class Heard(Observer):
    def __init__(self):
        self.lost, self.rows = [], 0

    def committed(self, rows):
        self.rows += len(rows)

    def lost_shard(self, why):
        self.lost.append(why)


def test_a_node_that_is_lost_is_no_row_s_fault(clip_folder, tmp_path, monkeypatch):
    """The driver's own account: however often a node goes, nothing is searched for, until the cluster is given up."""
    from ray.exceptions import NodeDiedError

    lost = run._Run([ShardTask(tmp_path, clip_folder, 7, [], SETTINGS)], 1, Heard())
    monkeypatch.setattr(lost, "_culprit", None)
    for number in range(run.NODE_LOSSES):
        lost.waiting.clear()
        making = run._Making(7, f"stream {number}")
        lost.going[making.stream] = making
        lost._node_lost(making, NodeDiedError("gone"))
        assert (lost.waiting, lost.going) == ([7], {})
    lost.going["last"] = run._Making(7, "last")
    with pytest.raises(Transient, match="look after the cluster"):
        lost._node_lost(lost.going["last"], NodeDiedError("gone"))
    assert set(lost.observer.lost) == {"node"}
    assert not lost.deaths
    assert not lost.crashed


def _dying(make, name):
    """``make_shard``, killing its process on the row of ``name`` unless that row is set aside."""

    def make_shard(task):
        if any(row.values.file == name and row.key not in task.crashed for row in task.rows):
            os.abort()
        yield from make(task)

    return make_shard


def _dying_alone(name):
    def build_alone(row, *_):
        if row.values.file == name:
            os.abort()

    return build_alone


def test_misuse_and_corruption(made, clip_folder, tmp_path):
    with pytest.raises(Misuse, match="plan"):
        ingest(tmp_path / "E", clip_folder, workers=1, settings=SETTINGS)
    dataset = tmp_path / "D"
    shutil.copytree(made[0], dataset)
    with lock(dataset), pytest.raises(Misuse, match="locked by process"):
        ingest(dataset, clip_folder, workers=1, settings=SETTINGS)
    tar = dataset / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 1
    tar.write_bytes(data)
    with pytest.raises(Corrupt, match=r"shard-000000.tar.*expected.*found"):
        verify(dataset)
    (dataset / "shard-000001.json").unlink()
    shutil.copy(made[0] / "shard-000000.tar", tar)
    with pytest.raises(Misuse, match="not finished"):
        verify(dataset)


def test_an_interruption_that_comes_as_ray_answers_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), run._interruptible():
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()
    with pytest.raises(SystemError), run._interruptible():
        raise SystemError("something else")
