"""Versions are told apart, samples are followed to their source, and a person who is forgotten is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts.bundle import Lineage, seal_artifact, write_bundle
from contracts.consent import PeoplePolicy
from contracts.errors import Misuse
from contracts.manifest import row_from
from contracts.plan import read_plan, read_policy
from contracts.reasons import Reason
from contracts.sample import Meta, decode_meta, encode
from contracts.selection import read_selection
from contracts.shards import committed, dataset_digest, write_shard
from flows.__main__ import application
from flows.choice import choose
from flows.commands.dataset import select_samples
from flows.forgetting import find_person, forget, search
from flows.history import difference, trace
from flows.params import SelectionParams
from flows.witnesses import witnesses
from preprocessing.accounts import row_digest
from preprocessing.plan import plan_dataset
from preprocessing.run import verify

PEOPLE = ("ann", "bea", "ann", "carl", "carl", "ann")  # of the rows, two to a shard; the last is a duplicate of row 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.wav").write_bytes(f"source {number}".encode())
    (folder / "5.wav").write_bytes(b"source 0")
    return folder


def manifest() -> list[Any]:
    return [row_from({"file": f"{i}.wav", "speaker": name, "gender": "f"}) for i, name in enumerate(PEOPLE)]


def make(folder: Path, root: Path, rows: list[Any], text: str = "", policy: PeoplePolicy | None = None) -> Path:
    """A dataset of speech samples whose sound is not looked at."""
    plan = plan_dataset(folder, rows, root, rows_per_shard=2, **({"people": policy} if policy else {}))
    for number in sorted({row.shard for row in plan}):
        samples, lines = [], []
        mine = [row for row in plan if row.shard == number]
        for row in mine:
            facts = {"row": row.row, "file": row.values.file, "native_id": row.values.native_id, "kind": "speech"}
            facts |= {"source_sha256": row.sha256, "speaker": row.values.speaker, "gender": row.values.gender}
            ended = (
                {"state": "rejected", "reason": row.reason, "detail": row.detail} if row.reason else {"state": "kept"}
            )
            lines.append({"level": "row", "key": row.key} | facts | ended)
            if row.reason is None:
                key = f"{row.key}-s00"
                span = {
                    "level": "span",
                    "key": key,
                    "span": 0,
                    "frames": 0,
                    "start_s": 0.0,
                    "end_s": 1.0,
                    "state": "kept",
                }
                lines.append(facts | span)
                samples.append((key, encode(meta_of(key, row, text), {}, None, [])))
        write_shard(folder, number, samples, lines, steps="s", rows=[row_digest(row) for row in mine])
    return folder


def meta_of(key: str, row: Any, text: str) -> Meta:
    return Meta(
        key=key, kind="speech", frames=0, side=0, corpus="c", native_id=row.values.native_id, file=row.values.file,
        source_sha256=row.sha256, start_s=0.0, end_s=1.0, speaker=row.values.speaker, steps=text,
    )  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path, root: Path) -> Path:
    return make(tmp_path / "dataset", root, manifest())


def test_versions_differ_by_what_was_added_removed_and_changed(tmp_path: Path, root: Path, dataset: Path) -> None:
    rows = manifest()
    assert difference(dataset, make(tmp_path / "same", root, rows))["same"]
    rows[1] = row_from({"file": "1.wav", "speaker": "bea", "gender": "f", "consent": "withdrawn"})
    other = make(tmp_path / "other", root, rows[:-1], text="new steps")
    told = difference(dataset, other)
    assert told["before"]["digest"] == dataset_digest(dataset)
    assert told["counts"] == {
        "rows": {"added": 0, "removed": 1, "changed": 1},
        "samples": {"added": 0, "removed": 1, "changed": 4},
    }
    (changed,) = told["rows"]["changed"]
    assert (changed["before"], changed["after"]) == ("kept", "rejected NO_CONSENT")
    assert told["samples"]["changed"][0]["members"] == ["json"]


def test_a_sample_is_followed_to_its_source_and_back(tmp_path: Path, root: Path, dataset: Path) -> None:
    select_samples(dataset, tmp_path / "selection", SelectionParams(where="speaker != 'bea'"))
    by_file = trace(dataset, "1.wav", tmp_path / "selection")
    (entry,) = by_file
    plan, _ = read_plan(dataset)
    assert entry["key"] == f"{plan[1].key}-s00"
    assert entry["source"]["sha256"] == plan[1].sha256
    assert entry["manifest_row"]["speaker"] == "bea"
    assert entry["selection"] == "left out: NOT_SELECTED"
    shard = entry["shard"]
    start, size = shard["offset_bytes"]["json"]
    stored = (dataset / shard["file"]).read_bytes()[start : start + size]
    assert decode_meta(stored).key == entry["key"]
    assert trace(dataset, entry["key"], tmp_path / "selection") == by_file
    assert trace(dataset, str(root / "1.wav"), tmp_path / "selection") == by_file
    assert trace(dataset, plan[1].sha256, tmp_path / "selection") == by_file
    with pytest.raises(Misuse, match="nothing named"):
        trace(dataset, "9.wav")


def test_a_refused_row_is_followed_too(dataset: Path) -> None:
    (entry,) = trace(dataset, "5.wav")
    assert (entry["state"], entry["shard"]) == ("rejected DUPLICATE_CONTENT", None)


def test_a_forgotten_person_is_gone_and_the_others_stay_to_the_byte(tmp_path: Path, root: Path, dataset: Path) -> None:
    person = find_person(dataset, "ann")
    assert (len(person.rows), len(person.samples)) == (3, 2)
    assert search(dataset, person)["found"]  # it is found where it is
    out = tmp_path / "out"
    assert forget(dataset, person, out) == {"linked": 0, "rewritten": 3, "dropped": 0}
    left = search(out, person)
    assert left["found"] == []
    assert left["files"] == 10
    accounts = verify(out)
    assert (accounts.read, accounts.kept) == (3, 3)
    before = {key: shard.read(key) for shard in committed(dataset) for key in shard.record.keys}
    after = {key: shard.read(key) for shard in committed(out) for key in shard.record.keys}
    assert after == {key: members for key, members in before.items() if key not in person.samples}
    told = difference(dataset, out)
    assert set(told["rows"]["removed"]) == person.keys
    assert (told["rows"]["changed"], told["samples"]["changed"]) == ([], [])


def test_a_forgotten_person_does_not_come_back_with_the_manifest(tmp_path: Path, root: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    forget(dataset, find_person(dataset, "ann"), out)
    planned = plan_dataset(out, manifest(), root, rows_per_shard=2)
    refused = [row for row in planned if row.values.speaker == "ann"]
    assert [row.reason for row in refused] == [Reason.NO_CONSENT] * 3
    assert not any(row.sha256 for row in refused)
    assert [row.key for row in planned[:3]] == [row.key for row in read_plan(dataset)[0] if row.values.speaker != "ann"]
    assert "ann" not in read_policy(out).model_dump_json()


def test_shards_without_the_person_are_linked_and_empty_ones_dropped(tmp_path: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    assert forget(dataset, find_person(dataset, "bea"), out) == {"linked": 2, "rewritten": 1, "dropped": 0}
    assert (out / "shard-000001.tar").stat().st_ino == (dataset / "shard-000001.tar").stat().st_ino
    assert verify(out).read == 5
    with pytest.raises(Misuse, match="written once"):
        forget(dataset, find_person(dataset, "bea"), out)
    with pytest.raises(Misuse, match="ann, bea, carl"):
        find_person(dataset, "dora")


def test_all_that_saw_a_person_is_found_by_lineage(tmp_path: Path, dataset: Path) -> None:
    work = tmp_path / "work"
    select_samples(dataset, work / "selection", SelectionParams())
    select_samples(dataset, work / "without", SelectionParams(where="speaker == 'carl'"))
    saw, clean = (read_selection(work / name).digest for name in ("selection", "without"))

    def artifact(name: str, selection: str, parents: dict[str, str]) -> Any:
        folder = work / "training" / name / "artifact"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        lineage = Lineage(dataset="d", selection=selection, parents=parents, code="c", settings={})
        return seal_artifact(folder, "toy", name, lineage, {})

    first = artifact("first", saw, {})
    artifact("child", clean, {"first": first.digest})
    artifact("clean", clean, {})
    artifact("lost", "a selection that is gone", {})
    bundle = write_bundle(work / "bundles" / "b", "toy", "tiny", {"first": work / "training" / "first" / "artifact"})
    sidecar = {
        "stages": {"first": {"artifact": first.digest, "selection": saw}}, "inputs": {"bundle": bundle.digest}
    }  # fmt: skip
    (work / "talk.mp4.json").write_text(json.dumps(sidecar))
    found = witnesses(work, set(find_person(dataset, "ann").samples))
    assert [Path(line["path"]).name for line in found["selections"]] == ["selection"]
    assert [line["stage"] for line in found["artifacts"]] == ["child", "first"]
    assert [line["digest"] for line in found["bundles"]] == [bundle.digest]
    assert [line["path"] for line in found["videos"]] == [str(work / "talk.mp4")]
    assert [line["stage"] for line in found["cannot_tell"]] == ["lost"]
    assert found["mlflow_filters"] == [f"tags.`voxface.selection` = '{saw}'"]


def test_the_commands_say_it_in_json(tmp_path: Path, dataset: Path) -> None:
    def told(*line: str) -> Any:
        ended = CliRunner().invoke(application(), ["dataset", *line, "--json", "-q", "--work", str(tmp_path / "w")])
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout.strip().splitlines()[-1])

    out = str(tmp_path / "out")
    assert told("forget", str(dataset), "--speaker", "bea", "--out", out, "--dry-run")["would_write"] == out
    assert not Path(out).exists()
    done = told("forget", str(dataset), "--speaker", "bea", "--out", out)
    assert (done["absence"]["found"], done["still_holding"]) == ([], [str(dataset)])
    assert told("diff", str(dataset), out)["counts"]["rows"] == {"added": 0, "removed": 1, "changed": 0}
    assert told("trace", out, "0.wav")["found"][0]["manifest_row"]["speaker"] == "ann"
    assert told("verify", out)["digest"] == done["after"]["digest"]
    assert choose(Path(out), SelectionParams())[0].dataset == done["after"]["digest"]


PIPELINE = """stages:
  copy:
    cmd: cp source.txt copy.txt
    deps: [source.txt]
    outs: [copy.txt]
  train:
    foreach: [toy]
    do:
      cmd: test -s copy.txt && cp copy.txt ${item}.txt
      deps: [copy.txt]
      outs: [{"${item}.txt": {persist: true}}]
  publish:
    cmd: cp toy.txt served.txt
    deps: [toy.txt]
    outs: [served.txt]
"""


def test_dvc_says_what_changed_runs_only_that_and_sends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    from flows import versions

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    root, targets = tmp_path / "project", ["train@toy"]
    root.mkdir()
    with pytest.raises(Misuse, match="DVC says"):
        versions.status(root)
    Repo.init(str(root), no_scm=True).close()
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "source.txt").write_text("one")
    assert versions.status(root, targets).keys() == {"copy", "train@toy"}
    assert versions.reproduce(root, targets) == ["copy", "train@toy"]
    assert versions.status(root, targets) == {}
    assert versions.status(root).keys() >= {"publish"}  # nobody asked for it
    assert not (root / "served.txt").exists()
    assert versions.push(root, targets) is None  # there is nowhere to
    with Repo(str(root)) as repository, repository.config.edit() as config:
        config["remote"]["store"] = {"url": str(tmp_path / "store")}
        config["core"]["remote"] = "store"
    assert versions.push(root, targets) == 1  # both files hold the same bytes
    assert versions.push(root, targets) == 0
    (root / "source.txt").write_text("")
    with pytest.raises(Misuse, match="train@toy"):
        versions.reproduce(root, targets)
    assert (root / "toy.txt").read_text() == "one"
