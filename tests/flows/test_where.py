"""``--where`` over manifest rows, before anything is planned."""

from __future__ import annotations

import pytest

from contracts.errors import Misuse
from contracts.manifest import Row
from flows.ingest import where

ROWS = [
    Row(file="a.mp4", speaker="ann", gender="f", age=30, extra={"group": "clips"}),
    Row(file="b.mp4", gender="m", face_x=0.5, extra={"group": "awkward", "note": "x"}),
    Row(file="c.wav", kind="speech"),
]


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("", ["a.mp4", "b.mp4", "c.wav"]),
        ("group in ('clips', 'awkward')", ["a.mp4", "b.mp4"]),
        ("kind == 'speech'", ["c.wav"]),
        ("age >= 18", ["a.mp4"]),
        ("speaker is null and face_x > 0.1", ["b.mp4"]),
        ("note is not null", ["b.mp4"]),
        ("gender == 'x'", []),
    ],
)
def test_keeps_the_rows_for_which_it_holds(text: str, files: list[str]) -> None:
    assert [row.file for row in where(list(ROWS), text)] == files


def test_a_line_that_could_not_be_read_matches_nothing() -> None:
    from preprocessing.corpora import BadLine

    bad = BadLine(line=3, detail="x")
    assert where([*ROWS, bad], "") == [*ROWS, bad]
    assert where([*ROWS, bad], "file != ''") == ROWS


def test_an_unknown_column_is_misuse() -> None:
    with pytest.raises(Misuse, match="there is no column 'grup'"):
        where(list(ROWS), "grup == 'clips'")
