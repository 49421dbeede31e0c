"""A file is there whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import Misuse, Transient
from contracts.files import (
    commit,
    commit_bytes,
    commit_folder,
    commit_written,
    lock,
    require_space,
    sha256_file,
    sha256_tree,
    sweep,
)


def test_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    with commit(target) as file:
        file.write(b"abc")
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    assert os.listdir(target.parent) == ["a.bin"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    commit_bytes(target, b"old")

    def half() -> None:
        with commit(target) as file:
            file.write(b"ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with commit_folder(tmp_path / "f") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / text).write_text(text)
    assert [path.name for path in (tmp_path / "f").rglob("*")] == ["sub", "two"]
    assert os.listdir(tmp_path) == ["f"]


def test_a_full_disk_is_transient_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Transient, match="NO_SPACE"):
        commit_bytes(tmp_path / "a.bin", b"abc")
    assert os.listdir(tmp_path) == []


def failing(times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes the first ``times`` calls of fsync fail; returns the handles of all calls."""
    calls: list[int] = []
    sync = os.fsync

    def faulty(handle: int) -> None:
        calls.append(handle)
        if len(calls) <= times:
            raise OSError(errno.EIO, "Input/output error")
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", faulty)
    return calls


def test_a_disk_that_fails_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(1, monkeypatch)
    commit_bytes(tmp_path / "a.bin", b"abc")
    assert (tmp_path / "a.bin").read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_disk_that_fails_twice_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(99, monkeypatch)
    with pytest.raises(Transient, match=r"a\.bin cannot be written: .*Input/output error"):
        commit_bytes(tmp_path / "a.bin", b"abc")
    assert len(calls) == 2
    assert os.listdir(tmp_path) == []


def test_bytes_that_the_disk_swallows_never_become_visible(tmp_path: Path) -> None:
    def torn(file: Any) -> None:
        file.write(b"abc")
        file._file.flush()
        file._file.truncate(2)
        file._file.seek(0, os.SEEK_END)

    with pytest.raises(Transient, match=r"a\.bin cannot be written: .*other bytes than were written"):
        commit_written(tmp_path / "a.bin", torn)
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(Transient, match="NO_SPACE"):
        require_space(tmp_path, 10**18)


def test_sweep_removes_what_killed_writers_left(tmp_path: Path) -> None:
    (tmp_path / ".tmp-a.bin.1-ff").write_bytes(b"x")
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / "kept").write_bytes(b"x")
    assert sweep(tmp_path) == 2
    assert os.listdir(tmp_path) == ["kept"]


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    hold = "import sys,time; from pathlib import Path; from contracts.files import lock\n"
    hold += "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Misuse, match=f"process {holder.pid}"), lock(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    with lock(tmp_path):
        assert time.monotonic() - started < 2


def test_a_tree_digest_depends_on_names_and_bytes() -> None:
    assert sha256_tree({"a": "1", "b": "2"}) == sha256_tree({"b": "2", "a": "1"})
    assert sha256_tree({"a": "1", "b": "2"}) != sha256_tree({"a": "2", "b": "1"})


def test_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea")
