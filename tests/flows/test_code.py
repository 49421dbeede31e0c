"""The code's version: the commit, and a digest that an edit changes at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.code import code_version


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    from dulwich import porcelain

    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "a.py").write_text("A = 1\n")
    (tmp_path / "notes.txt").write_text("x")
    porcelain.init(str(tmp_path))
    porcelain.add(str(tmp_path), [str(tmp_path / "systems" / "a.py")])
    porcelain.commit(str(tmp_path), message=b"a", author=b"a <a@b>", committer=b"a <a@b>")
    code_version.cache_clear()
    return tmp_path


def test_names_commit_and_sources(checkout: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}\+[0-9a-f]{12}", code_version(checkout))


def test_an_edit_shows_before_it_is_committed(checkout: Path) -> None:
    before = code_version(checkout)
    code_version.cache_clear()
    (checkout / "systems" / "a.py").write_text("A = 2\n")
    after = code_version(checkout)
    assert before.split("+")[0] == after.split("+")[0]
    assert before != after


def test_other_files_do_not_count(checkout: Path) -> None:
    before = code_version(checkout)
    code_version.cache_clear()
    (checkout / "notes.txt").write_text("y")
    (checkout / "systems" / "untracked.py").write_text("B = 1\n")
    assert code_version(checkout) == before


def test_without_a_checkout_the_files_count(tmp_path: Path) -> None:
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "a.py").write_text("A = 1\n")
    code_version.cache_clear()
    assert code_version(tmp_path).startswith("none+")
