"""Rows, the keys made for them, and the names that are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.errors import Reject
from contracts.manifest import KEY, Row, row_from, slug
from contracts.reasons import Reason


@given(st.text(min_size=1, max_size=300), st.text(max_size=40))
def test_any_name_gives_a_plain_key(name: str, corpus: str) -> None:
    key = Row(file=name, corpus=corpus).key
    assert KEY.fullmatch(key)
    assert KEY.fullmatch(f"{key}-s99")
    assert "." not in key


def test_a_key_depends_on_what_the_row_shows() -> None:
    row = Row(file="a.mp4", corpus="c")
    same = row.model_copy(update={"speaker": "ann"})
    others = [
        row.model_copy(update=change)
        for change in ({"corpus": "d"}, {"id": "b"}, {"start_s": 1.0}, {"face_x": 0.5}, {"box": (0.0, 0.0, 1.0, 1.0)})
    ]
    assert same.key == row.key
    assert len({row.key, *(other.key for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    "name", ["../a.mp4", "a/../../b", "/etc/passwd", "C:\\a.mp4", "a\nb", "a\x00b", "a\u202eb", "x" * 600]
)
def test_names_that_are_not_plain_are_refused(name: str) -> None:
    with pytest.raises(Reject) as refused:
        Row(file=name).check_id()
    assert refused.value.reason is Reason.BAD_ID


@pytest.mark.parametrize("name", ["a.mp4", "-i.mp4", "a b/c d.mp4", "Ünïcode.mp4", "a..b.mp4", "WDA/John-Lewis.1.mp4"])
def test_awkward_but_plain_names_are_let_in(name: str) -> None:
    Row(file=name).check_id()


def test_a_table_line_becomes_a_row() -> None:
    row = row_from(
        {"file": "a.wav", "license": "MIT", "age": 30, "box": "0 0 0.5 1", "group": "x", "note": None, "split": ""}
    )
    assert (row.licence, row.age, row.kind, row.box, row.split) == ("MIT", 30, "speech", (0, 0, 0.5, 1), None)
    assert row.extra == {"group": "x"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"file": "a", "start_s": -1},
        {"file": "a", "box": "1 0 0 1"},
        {"file": "a", "gender": "x"},
        {"file": "a", "face_x": 2},
    ],
)
def test_values_that_do_not_fit_are_errors(values: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        row_from({"file": "a"} | values if values else values)


def test_slug_is_never_empty() -> None:
    assert slug("…", 10) == "x"
    assert slug("--A--", 10) == "a"
