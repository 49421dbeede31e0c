"""Fixtures that every room shares: a small dataset of drawn faces, and a toy system."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys.drawn import Small, draw_dataset


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start clusters or servers come first: the many short ones then fill up what time two workers have."""
    slow = {item.path for item in items if item.get_closest_marker("cluster")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests share their cores: more threads than cores cost more than they give."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """16 clips and 16 faces of 8 drawn speakers, 4 women and 4 men, in 4 shards; read only."""
    root = tmp_path_factory.mktemp("small")
    return draw_dataset(root / "dataset", root / "selection")


@pytest.fixture(scope="session")
def toy_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a toy system that stands in a temporary folder, found by ``VOXFACE_SYSTEMS_PATH``."""
    folder = tmp_path_factory.mktemp("systems") / "tones"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "toys" / "tones.py", folder / "__init__.py")
    with pytest.MonkeyPatch.context() as patch:
        older = os.environ.get("VOXFACE_SYSTEMS_PATH", "")  # another room's toys may stand there
        patch.setenv("VOXFACE_SYSTEMS_PATH", os.pathsep.join(filter(None, [str(folder.parent), older])))
        yield "tones"
