"""The service's fault matrix, with few faults each; ``make faults-serve`` injects them all."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.row import Row
from outages.rows import ROWS


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS if row.few])
def test_outage(row: Row, tmp_path: Path) -> None:
    figure = row.measure(tmp_path, row.few)
    assert figure.held, f"{figure.said} (target: {row.target.format(count=row.few)})"
