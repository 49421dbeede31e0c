"""A sidecar says what made a video, and shows when either of them was changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.bundle import read_bundle
from contracts.errors import Misuse
from contracts.files import sha256_file
from serving.jobs import Consent, Inputs
from serving.provenance import Sidecar, comment, describe, inspect, portrait_path, sidecar_path
from serving.publish import draft, publish

INPUTS = Inputs(
    bundle="b" * 64, audio="a" * 64, portrait="c" * 64, consent=Consent(who="Zoe Quist", purpose="a birthday"), seed=7
)


@pytest.fixture
def video(tmp_path: Path, bundle: Path, movie: Callable[[bytes], bytes]) -> Path:
    """A published file (without pictures: provenance never looks at them) with portrait and sidecar."""
    manifest = read_bundle(bundle)
    out = tmp_path / "talk.mp4"
    with draft(out) as path:
        path.write_bytes(movie(b"frames"))
        publish(
            path,
            out,
            np.full((8, 8, 3), 90, np.uint8),
            lambda digest, picture: describe(manifest, INPUTS, frames=30, seconds=1.2, video=digest, portrait=picture),
        )
    return out


def test_round_trip(video: Path, bundle: Path) -> None:
    manifest = read_bundle(bundle)
    found = inspect(video)
    assert found.state == "fits"
    assert found.sidecar is not None
    assert found.sidecar.digital_source_type.endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert "synthetic" in found.sidecar.disclosure
    assert found.sidecar.inputs == INPUTS
    assert found.sidecar.stages["mouth"].artifact == manifest.stages["mouth"].digest
    assert found.sidecar.stages["mouth"].dataset == "d" * 64
    values = json.loads(sidecar_path(video).read_text())
    assert Sidecar.model_validate(values) == found.sidecar
    assert json.loads(comment(INPUTS))["bundle"] == found.sidecar.inputs.bundle


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(name: str, value: object) -> Callable[[Path], None]:
    def change(video: Path) -> None:
        values = json.loads(sidecar_path(video).read_text())
        values[name] = value
        sidecar_path(video).write_text(json.dumps(values))

    return change


@pytest.mark.parametrize(
    ("damage", "state", "says"),
    [
        (lambda video: flip(video), "broken", "talk.mp4 is not what"),
        (lambda video: video.write_bytes(b""), "broken", "talk.mp4 is not what"),
        (lambda video: flip(portrait_path(video)), "broken", "portrait.png"),
        (lambda video: portrait_path(video).unlink(), "broken", "no file"),
        (lambda video: sidecar_path(video).unlink(), "missing", "does not exist"),
        (lambda video: sidecar_path(video).write_text("{"), "broken", "not a readable sidecar"),
        (lambda video: sidecar_path(video).write_text("[" * 200_000), "broken", "not a readable sidecar"),
        (lambda video: sidecar_path(video).write_text(" " * 2_000_000), "broken", "not a readable sidecar"),
        (edit("job", "0" * 64), "broken", "does not follow"),
        (edit("inputs", INPUTS.model_copy(update={"seed": 8}).model_dump(mode="json")), "broken", "does not follow"),
        (edit("digital_source_type", "digitalCapture"), "broken", "not a readable sidecar"),
        (edit("note", "added"), "broken", "not a readable sidecar"),
    ],
)
def test_damage_is_seen(video: Path, damage: Callable[[Path], None], state: str, says: str) -> None:
    damage(video)
    found = inspect(video)
    assert found.state == state
    assert says in found.detail


def test_both_digests_are_told(video: Path) -> None:
    found = inspect(video)
    assert found.sidecar is not None
    flip(video)
    assert f"expected {found.sidecar.video}, found " in inspect(video).detail


def test_no_video(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="does not exist"):
        inspect(tmp_path / "none.mp4")


def test_an_edited_sidecar_contradicts_what_was_signed(video: Path) -> None:
    """The sidecar alone is not signed: made consistent in itself, it still is not what the video says."""
    other = INPUTS.model_copy(update={"seed": 8})
    edit("inputs", other.model_dump(mode="json"))(video)
    edit("job", other.job)(video)
    found = inspect(video)
    assert found.state == "broken"
    assert "contradicts the signed content credentials" in found.detail


def test_a_video_without_credentials_is_not_what_we_publish(video: Path, movie: Callable[[bytes], bytes]) -> None:
    """As older versions published it, or as a re-upload leaves it: sidecar and bytes agree, nothing is signed."""
    video.write_bytes(movie(b"frames"))
    edit("video", sha256_file(video))(video)
    found = inspect(video)
    assert (found.state, found.credentials.state) == ("missing", "missing")


def test_nobody_is_named_in_the_file(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    consent = INPUTS.consent
    assert consent is not None
    assert INPUTS.bundle.encode() in data
    for private in (
        INPUTS.job,
        consent.who,
        consent.purpose,
        "consent",
        video.name,
        os.uname().nodename,
        str(tmp_path),
    ):
        assert private.encode() not in data, private
