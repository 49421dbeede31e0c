"""A manifest through the ledger: bad lines are answers, finished videos are left alone, nothing is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toys import talker
from typer.testing import CliRunner

from contracts.bundle import read_bundle
from contracts.errors import Misuse, Transient
from flows.batch import Batch, look, make, summary, write_report
from flows.console import silent
from serving.service import Service

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle of serving's toy system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(talker.PATH_VARIABLE, talker.systems_path())
        yield talker.make_bundle(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def renderer(bundle: Path) -> Any:
    from serving.loader import load_pipeline
    from serving.render import Renderer

    return Renderer(*load_pipeline(bundle))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "service", lease_s=2.0)
    yield service
    service.close()


@pytest.fixture
def working(service: Service, renderer: Any) -> Iterator[list[int]]:
    """A worker beside the test; how many videos were rendered."""
    from serving.worker import Worker

    rendered: list[int] = []

    def render(jobs: Any, progress: Any, watch: Any, streamed: Any) -> Any:
        outcomes = renderer.render(jobs, progress, watch)
        rendered.extend(1 for outcome in outcomes if outcome.state == "done" and not outcome.reused)
        return outcomes

    stop = threading.Event()
    worker = Worker(service.queue, renderer.bundle_digest, service.results, render)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    yield rendered
    stop.set()
    thread.join()


def sound(path: Path, samples: int = 16_000) -> Path:
    return talker.write_sound(path, samples)


def finder(bundle: Path) -> Callable[[str, str], Path]:
    digest = read_bundle(bundle).digest

    def find(system: str, model: str) -> Path:
        if system != "loudmouth" or not (model == "champion" or digest.startswith(model)):
            raise Misuse(f"no bundle of {system} is registered as {model}")
        return bundle

    return find


@pytest.fixture
def manifest(tmp_path: Path, bundle: Path) -> Path:
    """Seven good lines, two of them one video, and eight bad ones."""
    sound(tmp_path / "in" / "one.wav")
    sound(tmp_path / "in" / "two.wav", 8_000)
    (tmp_path / "in" / "noise.wav").write_bytes(b"no sound")
    (tmp_path / "in" / "face.png").write_bytes(b"no picture")
    digest = read_bundle(bundle).digest
    lines = [
        '{"audio": "in/one.wav"}',
        '{"id": "seeded", "audio": "in/one.wav", "seed": 7}',
        '{"id": "again", "audio": "in/one.wav", "seed": 7}',  # the same video under another name
        '{"id": "small", "audio": "in/two.wav", "size": 64, "system": "loudmouth"}',
        '{"id": "deep", "audio": "in/two.wav", "out": "a/b/deep.mp4"}',
        f'{{"id": "pinned", "audio": "in/two.wav", "seed": 9, "model": "{digest[:16]}"}}',
        "",
        "{",
        '{"audio": "in/one.wav", "sead": 1}',
        '{"id": "gone", "audio": "in/none.wav"}',
        '{"id": "noise", "audio": "in/noise.wav"}',
        '{"id": "face", "audio": "in/one.wav", "portrait": "in/face.png"}',
        '{"id": "seeded", "audio": "in/one.wav", "seed": 8}',  # that name is taken
        '{"id": "../x", "audio": "in/one.wav"}',
        '{"id": "nobody", "audio": "in/one.wav", "model": "challenger"}',
        '{"id": "last", "audio": "in/two.wav", "seed": 3}',
    ]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def looked(manifest: Path, out: Path, service: Service, bundle: Path) -> Batch:
    return look(manifest, out, service, ("loudmouth", "champion"), finder(bundle), silent)


def test_bad_lines_are_answers_and_the_rest_is_made(
    manifest: Path, tmp_path: Path, service: Service, bundle: Path, working: list[int]
) -> None:
    from serving.provenance import inspect

    out = tmp_path / "talks"
    batch = looked(manifest, out, service, bundle)
    assert (len(batch.lines), len(batch.missing), len(batch.models)) == (15, 8, 1)  # one bundle, by alias and by digest
    seen: list[tuple[int, int, str]] = []
    make(batch, "test", lambda: True, lambda *step: seen.append(step))
    lines = write_report(batch)
    assert [(line["line"], line["state"], line.get("code")) for line in lines] == [
        *[(number, "done", None) for number in range(1, 7)],
        (8, "rejected", "BAD_MANIFEST"),
        (9, "rejected", "BAD_MANIFEST"),
        (10, "rejected", "MISSING_FILE"),
        (11, "rejected", "BAD_CONTAINER"),
        (12, "rejected", "NO_CONSENT"),
        (13, "rejected", "DUPLICATE_ID"),
        (14, "rejected", "BAD_ID"),
        (15, "rejected", "BAD_MANIFEST"),
        (16, "done", None),
    ]
    assert sum(working) == 6  # two lines were one video
    assert (out / "seeded.mp4").read_bytes() == (out / "again.mp4").read_bytes()
    for line in lines:
        if line["state"] == "done":
            assert inspect(Path(line["video"])).state == "fits"
    assert (out / "a" / "b" / "deep.mp4").is_file()
    assert [json.loads(text) for text in (out / "report.jsonl").read_text().splitlines()] == lines
    counts = json.loads((out / "summary.json").read_text())
    assert counts == summary(lines)
    assert counts["read"] == sum(counts["states"].values()) == 15  # the law of accounting
    assert seen[-1][:2] == (15, 15)


def test_a_rerun_does_nothing_that_was_finished(
    manifest: Path, tmp_path: Path, service: Service, bundle: Path, working: list[int]
) -> None:
    out = tmp_path / "talks"
    make(looked(manifest, out, service, bundle), "test", lambda: True, silent)
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    count = sum(working)

    again = looked(manifest, out, service, bundle)
    # but for the sound that is none, which the ledger knows and answers at once
    assert [again.items[place].name for place in again.missing] == ["noise"]
    make(again, "test", lambda: True, silent)
    assert (sum(working), {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}) == (count, made)

    (out / "small.mp4").unlink()  # gone from its place, not from the results
    assert len(looked(manifest, out, service, bundle).missing) == 1
    assert (out / "small.mp4").is_file()
    assert sum(working) == count

    damaged = out / "last.mp4"  # a hard link: the stored result is damaged as well
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    mended = looked(manifest, out, service, bundle)
    assert {mended.items[place].name for place in mended.missing} == {"noise", "last"}
    make(mended, "test", lambda: True, silent)
    assert sum(working) == count + 1
    assert damaged.read_bytes()[:1] != b"x"


def test_a_run_that_ends_early_leaves_no_work_behind(
    manifest: Path, tmp_path: Path, service: Service, bundle: Path
) -> None:
    batch = looked(manifest, tmp_path / "talks", service, bundle)
    with pytest.raises(Transient):
        make(batch, "test", lambda: False, silent)
    assert service.queue.depth().get("queued", 0) == 0
    assert {line["state"] for line in write_report(batch)} == {"cancelled", "rejected"}


def run_cli(*arguments: str) -> tuple[int, dict]:
    from flows.__main__ import application

    answer = CliRunner().invoke(application(), list(arguments))
    return answer.exit_code, json.loads(answer.stdout) if answer.stdout.startswith("{") else {}


def test_dry_run_counts_and_makes_nothing(manifest: Path, tmp_path: Path, bundle: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "talks"
    options = ["--bundle", str(bundle), "--system", "loudmouth", "--work", str(work), "--json", "--dry-run"]
    code, told = run_cli("generate", "--manifest", str(manifest), "--out", str(out), *options)
    assert code == 0
    assert (told["read"], told["finished"], told["to_make"]) == (15, 0, 8)
    assert not out.exists()


def test_keys_are_made_listed_and_taken_back(tmp_path: Path) -> None:
    work = ["--work", str(tmp_path), "--json"]
    code, made = run_cli("keys", "create", "--name", "museum", "--scope", "read", *work)
    assert code == 0
    assert made["key"].startswith(f"vf_{made['id']}_")
    assert run_cli("keys", "list", *work)[1]["keys"][0]["scopes"] == "read"
    assert run_cli("keys", "revoke", made["id"], *work)[1]["keys"][0]["revoked"]
    secret = made["key"].split("_", 2)[2]
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert kept == []  # neither in the ledger nor in the record or the log of the run
