"""The fault matrix of the data, each row with a few faults; ``make faults`` injects them all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import workers
from faults.row import Row, Skip, short_folder
from faults.rows import ROWS

RAY = ("F4-worker", "F16-crash")


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path."""
    made = short_folder("vf-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One local Ray for the rows that kill its workers."""
    made = short_folder("vr-")
    with workers.ray(made):
        yield
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.id, marks=[pytest.mark.cluster] if row.id in RAY or "ingest" in row.says else [])
        for row in ROWS
        if row.few
    ],
)
def test_fault(row: Row, folder: Path, request: pytest.FixtureRequest) -> None:
    if row.id in RAY:
        request.getfixturevalue("ray")
    try:
        figure = row.measure(folder, row.few)
    except Skip as why:
        pytest.skip(str(why))
    assert figure.held, f"{figure.said} (target: {row.target.format(count=row.few)})"
