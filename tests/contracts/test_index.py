"""Accounts add up or are refused; the index is the shards' ledgers in row order."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Corrupt
from contracts.index import SCHEMA, Account, account, ledger, read_index, samples
from contracts.reasons import Reason, first
from contracts.shards import write_shard


def row(number: int, state: str, reason: str | None = None) -> dict[str, object]:
    return {"level": "row", "key": f"k{number}", "row": number, "state": state, "reason": reason}


def test_counts_by_how_rows_ended() -> None:
    table = ledger(
        [row(0, "kept"), row(1, "rejected", "NO_FACE"), row(2, "rejected", "NO_FACE"), row(3, "failed", "INTERNAL")]
    )
    count = account(table)
    count.check()
    assert count == Account(4, 1, {Reason.NO_FACE: 2}, {"INTERNAL": 1})


def test_what_does_not_add_up_is_an_error() -> None:
    with pytest.raises(ValueError, match="add up"):
        Account(2, 1, {}, {}).check()


def test_a_reason_outside_the_list_is_an_error() -> None:
    with pytest.raises(ValueError, match="BORING"):
        account(ledger([row(0, "rejected", "BORING")]))


def test_the_index_is_in_row_order_and_keeps_extra_columns(tmp_path: Path) -> None:
    write_shard(tmp_path, 1, [], [row(2, "kept") | {"extra.a": "x"}], steps="s", rows="r")
    write_shard(tmp_path, 0, [], [row(1, "kept"), row(0, "rejected", "NO_FACE")], steps="s", rows="r")
    index = read_index(tmp_path)
    assert index["row"].to_pylist() == [0, 1, 2]
    assert index["extra.a"].to_pylist() == [None, None, "x"]
    assert samples(index).num_rows == 0


def test_an_empty_dataset_has_an_empty_index(tmp_path: Path) -> None:
    assert read_index(tmp_path).schema == SCHEMA


def test_an_edited_ledger_is_corrupt(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [], [row(0, "kept")], steps="s", rows="r")
    write_shard(tmp_path / "x", 0, [], [row(0, "rejected", "NO_FACE")], steps="s", rows="r")
    (tmp_path / "shard-000000.parquet").write_bytes((tmp_path / "x" / "shard-000000.parquet").read_bytes())
    with pytest.raises(Corrupt, match="parquet"):
        read_index(tmp_path)


def test_the_first_reason_wins() -> None:
    assert first({Reason.NO_FACE, Reason.MISSING_FILE, Reason.TOO_SHORT}) is Reason.MISSING_FILE
