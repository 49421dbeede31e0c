"""Uploads lie under the digest of their bytes; keys lead to files of one folder and nowhere else."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from contracts.errors import Reject
from serving.intake import ORPHANED_S, Intake


def test_equal_bytes_are_one_file(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    digest = intake.keep(io.BytesIO(b"speech"))
    assert digest == hashlib.sha256(b"speech").hexdigest() == intake.keep(io.BytesIO(b"speech"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [intake.place(digest)]
    assert intake.place(digest).read_bytes() == b"speech"
    intake.remove([digest, "0" * 64])
    assert not intake.place(digest).exists()


def test_only_old_uploads_that_nobody_has_are_swept(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    old, used, young = (intake.keep(io.BytesIO(name)) for name in (b"old", b"used", b"young"))
    for digest in (old, used):
        moment = intake.place(digest).stat().st_mtime - ORPHANED_S - 1
        os.utime(intake.place(digest), (moment, moment))
    assert intake.sweep(lambda digests: [digest for digest in digests if digest != used]) == 1
    assert [intake.place(digest).exists() for digest in (old, used, young)] == [False, True, True]


@pytest.mark.parametrize(
    "key",
    [
        "store:../x",
        "store:/etc/passwd",
        "store:",
        "store:a/../b",
        "store:a//b",
        "store:.hidden",
        "store:a\x00b",
        "store:link.wav",
        "store:folder/x.wav",
        "store:" + "a/" * 20 + "b",
        "store:a\nb",
    ],
)
def test_b40_keys_that_lead_elsewhere(tmp_path: Path, key: str) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    for folder in (allowed, outside):
        folder.mkdir()
        (folder / "x.wav").write_bytes(b"x")
    (allowed / "link.wav").symlink_to(outside / "x.wav")
    (allowed / "folder").symlink_to(outside)
    intake = Intake(tmp_path / "inputs", allowed)
    assert intake.find("store:x.wav") == allowed / "x.wav"
    with pytest.raises(Reject) as caught:
        intake.find(key)
    assert caught.value.reason == "PATH_ESCAPE"
    assert str(tmp_path) not in caught.value.detail


def test_without_an_allowed_folder_there_are_no_keys(tmp_path: Path) -> None:
    with pytest.raises(Reject):
        Intake(tmp_path).find("store:x.wav")
