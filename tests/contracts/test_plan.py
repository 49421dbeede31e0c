"""A plan is read back as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Corrupt
from contracts.manifest import Row
from contracts.plan import PLAN_FILE, PlannedRow, read_plan, shard_of, write_plan
from contracts.reasons import Reason


def test_is_read_back_as_written(tmp_path: Path) -> None:
    one, two = Row(file="a.mp4", speaker="ann", extra={"group": "x"}), Row(file="b.mp4", box=(0, 0, 0.5, 1))
    rows = [
        PlannedRow(row=0, shard=0, key=one.key, sha256="aa", bytes=3, values=one),
        PlannedRow(row=1, shard=0, key=two.key, reason=Reason.MISSING_FILE, detail="no such file", values=two),
    ]
    write_plan(tmp_path, rows, 64)
    assert read_plan(tmp_path) == (rows, 64)


def test_none_there(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all"])
def test_a_damaged_plan_is_corrupt(tmp_path: Path, data: bytes) -> None:
    (tmp_path / PLAN_FILE).write_bytes(data)
    with pytest.raises(Corrupt, match=PLAN_FILE):
        read_plan(tmp_path)


def test_rows_do_not_move() -> None:
    assert [shard_of(row, 2) for row in range(5)] == [0, 0, 1, 1, 2]


def test_a_plan_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    values = Row(file="a.mp4")
    rows = [PlannedRow(row=0, shard=0, key=values.key, values=values)]
    write_plan(tmp_path, rows, 8)
    first = read_plan(tmp_path)
    assert first is not None
    first[0].clear()  # a reader's own list
    assert read_plan(tmp_path) == (rows, 8)
    write_plan(tmp_path, rows, 9)
    assert read_plan(tmp_path) == (rows, 9)
    (tmp_path / PLAN_FILE).write_bytes(b"no plan")
    with pytest.raises(Corrupt):
        read_plan(tmp_path)
