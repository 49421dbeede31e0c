"""A selection is read back as it was written, and damage to it is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from contracts.errors import Corrupt, Misuse
from contracts.selection import (
    RECORD_FILE,
    REFUSED_SCHEMA,
    TABLE_FILE,
    Chosen,
    Selection,
    read_record,
    read_selection,
    write_selection,
)


def selection(split: str = "train") -> Selection:
    one = Chosen(key="a-s00", shard=0, kind="clip", frames=50, speaker="ann", gender="f", split="train")
    two = Chosen(key="b-s00", shard=1, kind="face", frames=1, speaker="bob", gender="m", split=split)
    return Selection(dataset="d", samples=(one, two), refused={"SILENT": 1}, rules={"SILENT": "loudness_dbfs > -60"})


def test_is_read_back_as_written(tmp_path: Path) -> None:
    refused = pa.Table.from_pylist([{"key": "c-s00", "reason": "SILENT", "detail": "x"}], schema=REFUSED_SCHEMA)
    write_selection(tmp_path, selection("val"), refused)
    assert read_selection(tmp_path) == selection("val")
    record = read_record(tmp_path)
    assert record is not None
    assert record.counts == {"train_samples": 1, "train_speakers": 1, "val_samples": 1, "val_speakers": 1}


def test_same_choice_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_selection(tmp_path / name, selection())
    for file in (TABLE_FILE, RECORD_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_digest_follows_the_choice_and_not_the_rules() -> None:
    assert selection().digest != selection("val").digest
    assert selection().digest == selection().model_copy(update={"rules": {}, "refused": {}}).digest


def test_none_there_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="voxface dataset select"):
        read_selection(tmp_path)


def test_a_changed_table_is_corrupt(tmp_path: Path) -> None:
    write_selection(tmp_path, selection())
    write_selection(tmp_path / "other", selection("val"))
    (tmp_path / TABLE_FILE).write_bytes((tmp_path / "other" / TABLE_FILE).read_bytes())
    with pytest.raises(Corrupt, match=TABLE_FILE):
        read_selection(tmp_path)


@pytest.mark.parametrize("text", ["", "[", "{}", "[" * 100_000])
def test_an_unreadable_record_is_corrupt(tmp_path: Path, text: str) -> None:
    write_selection(tmp_path, selection())
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(Corrupt, match=RECORD_FILE):
        read_selection(tmp_path)
