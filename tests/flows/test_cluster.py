"""A local Ray: signals while it starts, and what is left of one whose run was killed."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import Misuse
from contracts.files import lock
from flows import cluster as room
from flows.cluster import FOLDER, cluster
from flows.running import Terminated


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where local clusters have their folders; nothing is really started."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr(room, "_keep_private", lambda token: None)
    monkeypatch.setattr(room, "LONGEST_BYTES", 1000)  # no sockets will lie there
    return tmp_path


def test_a_folder_too_deep_for_sockets_is_refused_by_name(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LONGEST_BYTES", len(str(folders)) + 12)
    with pytest.raises(Misuse, match=f"{folders}.* is 4 bytes too long: set RAY_TMPDIR"), cluster():
        pass
    assert not list(folders.iterdir())


def _ends_as_terminated(folders: Path) -> None:
    """A cluster is begun and ended, with a handler of SIGTERM that raises: its exception comes out, no folder stays."""

    def terminate(number: int, frame: Any) -> None:
        raise Terminated("SIGTERM")

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated), cluster():
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(folders.iterdir())


def test_a_signal_while_ray_goes_is_ours(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shutdown() -> None:
        ctypes.CDLL(None).signal(int(signal.SIGTERM), None)  # what Ray's library does: Python does not hear of it
        node.kill_all_processes()

    node = SimpleNamespace(kill_all_processes=lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("ray._private.worker._global_node", node)
    monkeypatch.setattr("ray.shutdown", shutdown)
    _ends_as_terminated(folders)


def test_a_signal_while_ray_starts_is_ours(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise SystemExit(signal.SIGTERM)  # what Ray's own handler does

    monkeypatch.setattr("ray.init", init)
    _ends_as_terminated(folders)


def test_folders_of_killed_runs_are_removed_and_no_others(folders: Path) -> None:
    killed, living, young = (folders / f"{FOLDER}{name}" for name in ("killed", "living", "young"))
    with lock(killed):
        (killed / "session").mkdir()
    young.mkdir()
    (folders / "other").mkdir()
    with lock(living), cluster():
        assert not killed.exists()
        assert {path.name for path in folders.iterdir()} > {living.name, young.name, "other"}
    assert {path.name for path in folders.iterdir()} == {living.name, young.name, "other"}
