"""The fault matrix of training, some rows with a few faults; ``make faults-train`` injects them all."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.row import Row
from faults_train.rows import ROWS


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS if row.few])
def test_fault(row: Row, tmp_path: Path) -> None:
    figure = row.measure(tmp_path, row.few)
    assert figure.held, f"{figure.said} (target: {row.target.format(count=row.few)})"
