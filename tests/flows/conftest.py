"""The command line in this process: arguments in, exit code and both outputs out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Said(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def voxface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs ``voxface ARGUMENTS`` with a work folder of its own."""
    from flows.__main__ import _run

    monkeypatch.setenv("VOXFACE_WORK", str(tmp_path / "work"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["voxface", *map(str, arguments)])
        capsys.readouterr()
        code = _run()
        return Said(int(code), *capsys.readouterr())

    return run
