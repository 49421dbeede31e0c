"""Under its final name a video is whole and marked, or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import read_bundle
from contracts.errors import Misuse, Transient
from serving.credentials import Signer
from serving.jobs import Inputs
from serving.provenance import Sidecar, describe, inspect, portrait_path, sidecar_path
from serving.publish import deliver, draft, encode_png, own_signer, publish, published

INPUTS = Inputs(bundle="b" * 64, audio="a" * 64, seed=7)
# the smallest head of a file that can carry credentials: an mp4 with one box, of the bytes that follow
HEAD = b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41"
PICTURE = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def movie(content: bytes) -> bytes:
    return HEAD + (len(content) + 8).to_bytes(4, "big") + b"mdat" + content


def put(out: Path, bundle: Path, content: bytes, picture: np.ndarray | None = PICTURE) -> Sidecar:
    manifest = read_bundle(bundle)
    with draft(out) as path:
        path.write_bytes(movie(content))
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
    assert out.read_bytes().endswith(b"mdattwo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.mp4", "talk.mp4.json"]
    assert inspect(out).state == "fits"


def test_failing_description_leaves_no_video(tmp_path: Path) -> None:
    out = tmp_path / "talk.mp4"

    def fail(video: str, picture: str | None) -> Sidecar:
        raise RuntimeError("no sidecar to be had")

    with pytest.raises(RuntimeError), draft(out) as path:  # noqa: PT012  (leaving the draft is what is tested)
        path.write_bytes(movie(b"unmarked"))
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
    path.write_bytes(bytes.fromhex(sys.argv[3]))
    serving.publish.publish(path, out, np.zeros((8, 8, 3), np.uint8), lambda video, picture: Sidecar(
        voxface="0", system="s", preset="tiny", stages={}, inputs=inputs, job=inputs.job, frames=1, seconds=0.04,
        video=video, portrait=picture))
print(count)
"""


def test_killed_at_every_step_no_video_stands_unmarked(tmp_path: Path, bundle: Path) -> None:
    command, new = [sys.executable, "-c", CRASH], movie(b"new").hex()
    whole = subprocess.run(
        [*command, str(tmp_path / "whole.mp4"), "0", new],
        capture_output=True,
        check=True,
    )
    steps = int(whole.stdout)
    assert steps >= 6
    for step in range(1, steps + 1):
        out = tmp_path / str(step) / "talk.mp4"
        put(out, bundle, b"old")
        ended = subprocess.run([*command, str(out), str(step), new], capture_output=True)
        assert ended.returncode == -signal.SIGKILL
        assert not out.exists() or inspect(out).state == "fits", f"killed at step {step}"
        put(out, bundle, b"again")
        names = {path.name for path in out.parent.iterdir()}
        assert names == {out.name, sidecar_path(out).name, portrait_path(out).name}, f"killed at step {step}"


class Failing:
    """A signer that raises, or writes something else than it should, each time in another way."""

    def __init__(self, real: Signer) -> None:
        self.real, self.calls = real, 0

    def sign(self, source: Path, target: Path, *said: Any) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            raise Transient("SIGNER: away")
        target.write_bytes(source.read_bytes())
        if self.calls % 3 == 1:
            raise OSError(28, "No space left on device")
        raise KeyboardInterrupt


def test_a_failing_signer_leaves_nothing_visible(tmp_path: Path, bundle: Path) -> None:
    """F33, in small: 30 tries, none of them published."""
    manifest, signer = read_bundle(bundle), Failing(own_signer())
    for number in range(30):
        out = tmp_path / f"{number}.mp4"
        with pytest.raises((Transient, OSError, KeyboardInterrupt)), draft(out) as path:  # noqa: PT012
            path.write_bytes(movie(b"unmarked"))
            publish(
                path,
                out,
                PICTURE,
                lambda v, p: describe(manifest, INPUTS, frames=1, seconds=0.04, video=v, portrait=p),
                signer,  # type: ignore[arg-type]
            )
    assert signer.calls == 30
    assert list(tmp_path.iterdir()) == []


def test_what_was_published_stays_where_the_next_cannot_be_signed(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "talk.mp4"
    sidecar = put(out, bundle, b"one")
    monkeypatch.setenv("VOXFACE_KEY", str(tmp_path / "gone.pem"))
    monkeypatch.setenv("VOXFACE_CERTIFICATE", str(tmp_path / "gone.pem"))
    with pytest.raises(Misuse, match=r"gone\.pem cannot be read"):
        put(out, bundle, b"two")
    assert published(out, INPUTS.job) == sidecar
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.mp4", "talk.mp4.json", "talk.portrait.png"]


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
        assert out.read_bytes() == stored.read_bytes()
        assert out.samefile(stored) is linked
    names = sorted(path.name for path in out.parent.iterdir())
    assert names == ["talk.mp4", "talk.mp4.json", "talk.portrait.png"]
