"""Under its final name a video is whole and marked, or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contracts.bundle import read_bundle
from serving.jobs import Inputs
from serving.provenance import Sidecar, describe, inspect, portrait_path, sidecar_path
from serving.publish import deliver, draft, encode_png, publish, published

INPUTS = Inputs(bundle="b" * 64, audio="a" * 64, seed=7)
PICTURE = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def put(out: Path, bundle: Path, content: bytes, picture: np.ndarray | None = PICTURE) -> Sidecar:
    manifest = read_bundle(bundle)
    with draft(out) as path:
        path.write_bytes(content)
        return publish(
            path,
            out,
            picture,
            lambda digest, beside: describe(manifest, INPUTS, frames=1, seconds=0.04, video=digest, portrait=beside),
        )


def test_published_is_found_by_its_job_alone(tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "talk.mp4"
    assert published(out, INPUTS.job) is None
    sidecar = put(out, bundle, b"one")
    assert published(out, INPUTS.job) == sidecar
    assert published(out, INPUTS.model_copy(update={"seed": 8}).job) is None
    out.write_bytes(b"two")
    assert published(out, INPUTS.job) is None


def test_replacing_leaves_nothing_of_the_older(tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "talk.mp4"
    put(out, bundle, b"one")
    put(out, bundle, b"two", None)
    assert out.read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.mp4", "talk.mp4.json"]
    assert inspect(out).state == "fits"


def test_failing_description_leaves_no_video(tmp_path: Path) -> None:
    out = tmp_path / "talk.mp4"

    def fail(video: str, picture: str | None) -> Sidecar:
        raise RuntimeError("no sidecar to be had")

    with pytest.raises(RuntimeError), draft(out) as path:  # noqa: PT012  (leaving the draft is what is tested)
        path.write_bytes(b"unmarked")
        publish(path, out, None, fail)
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["portrait.png", "mp4.json"])
def test_full_disk_leaves_no_video(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    import serving.publish

    def full(path: Path, data: bytes) -> None:
        if path.name.endswith(failing):
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(serving.publish, "commit_bytes", full)
    out = tmp_path / "talk.mp4"
    with pytest.raises(OSError, match="No space"):
        put(out, bundle, b"unmarked")
    assert not out.exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_draft_sweeps_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = tmp_path / f".tmp-talk.{int(ended.stdout)}-0123abcd.mp4"
    living = tmp_path / f".tmp-talk.{os.getpid()}-0123abcd.mp4"
    other = tmp_path / f".tmp-walk.{int(ended.stdout)}-0123abcd.mp4"
    pictures = tmp_path / f".tmp-{dead.name}.pictures.mp4"
    for path in (dead, living, other, pictures):
        path.touch()
    with draft(tmp_path / "talk.mp4") as mine:
        assert mine.parent == tmp_path
        assert mine.suffix == ".mp4"
    assert not dead.exists()
    assert not pictures.exists()
    assert living.exists()
    assert other.exists()


CRASH = """
import os, signal, sys
from pathlib import Path
import contracts.files, serving.publish
from serving.jobs import Inputs
from serving.provenance import Sidecar
import numpy as np

out, step = Path(sys.argv[1]), int(sys.argv[2])
count = 0

def failpoint(function):
    def wrapped(*args, **kwargs):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

for name in ("replace", "unlink"):
    setattr(Path, name, failpoint(getattr(Path, name)))
serving.publish.sync_folder = contracts.files.sync_folder = failpoint(contracts.files.sync_folder)
inputs = Inputs(bundle="b" * 64, audio="a" * 64, seed=9)
with serving.publish.draft(out) as path:
    path.write_bytes(b"new")
    serving.publish.publish(path, out, np.zeros((8, 8, 3), np.uint8), lambda video, picture: Sidecar(
        voxface="0", system="s", preset="tiny", stages={}, inputs=inputs, job=inputs.job, frames=1, seconds=0.04,
        video=video, portrait=picture))
print(count)
"""


def test_killed_at_every_step_no_video_stands_unmarked(tmp_path: Path, bundle: Path) -> None:
    whole = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path / "whole.mp4"), "0"], capture_output=True, check=True
    )
    steps = int(whole.stdout)
    assert steps >= 6
    for step in range(1, steps + 1):
        out = tmp_path / str(step) / "talk.mp4"
        put(out, bundle, b"old")
        ended = subprocess.run([sys.executable, "-c", CRASH, str(out), str(step)], capture_output=True)
        assert ended.returncode == -signal.SIGKILL
        assert not out.exists() or inspect(out).state == "fits", f"killed at step {step}"
        put(out, bundle, b"again")
        names = {path.name for path in out.parent.iterdir()}
        assert names == {out.name, sidecar_path(out).name, portrait_path(out).name}, f"killed at step {step}"


def test_png_is_deterministic_and_exact() -> None:
    from io import BytesIO

    from PIL import Image

    assert encode_png(PICTURE) == encode_png(PICTURE.copy())
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(encode_png(PICTURE)))), PICTURE)


@pytest.mark.parametrize("linked", [True, False])
def test_a_stored_video_is_put_in_a_place_marked(
    tmp_path: Path, bundle: Path, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, out = tmp_path / "results" / "x.mp4", tmp_path / "talks" / "talk.mp4"
    put(stored, bundle, b"one")
    if not linked:

        def refuse(*_: object) -> None:
            raise OSError("another file system")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    put(out, bundle, b"older")
    for _ in range(2):  # once more changes nothing
        deliver(stored, out)
        assert published(out, INPUTS.job) is not None
        assert out.read_bytes() == b"one"
        assert out.samefile(stored) is linked
    names = sorted(path.name for path in out.parent.iterdir())
    assert names == ["talk.mp4", "talk.mp4.json", "talk.portrait.png"]
