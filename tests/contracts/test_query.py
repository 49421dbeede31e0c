"""The grammar of --where: what it holds for, what it refuses, and that null never matches."""

from __future__ import annotations

import contextlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import Misuse
from contracts.query import DEEPEST, LONGEST, matching, parse

TABLE = pa.table(
    {
        "gender": ["f", "m", None],
        "age": [20.0, None, 30.0],
        "frames": [1, 2, None],
        "extra.group": ["clips", "awkward", None],
        "extra.score": ["1", "2.5", None],
    }
)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [0, 1, 2]),
        ("gender == 'f'", [0]),
        ("not gender == 'f'", [1]),
        ("gender != 'f'", [1]),
        ("gender in ('f', 'x')", [0]),
        ("gender not in ('f',)", [1]),
        ("not gender in ['f']", [1]),
        ("age is null", [1]),
        ("age is not null and not age > 25", [0]),
        ("age is None or gender is null", [1, 2]),
        ("18 <= age < 30", [0]),
        ("age > -5", [0, 2]),
        ('frames >= 2 or gender == "f"', [0, 1]),
        ("group == 'awkward'", [1]),
        ("extra.group == 'clips'", [0]),
        ("score > 1", [1]),
        ("score in (1, 2.5)", [0, 1]),
        ("'f' == gender", [0]),
        ("  gender ==\n'f'", [0]),
    ],
)
def test_holds_for(text: str, lines: list[int]) -> None:
    table = TABLE.append_column("line", pa.array([0, 1, 2]))
    assert matching(table, text)["line"].to_pylist() == lines


@pytest.mark.parametrize(
    ("text", "problem", "caret"),
    [
        ("gender = 'f'", "==", 7),
        ("gendre == 'f'", "there is no column 'gendre'", 0),
        ("age > 3 and gendre == 'f'", "there is no column 'gendre'", 12),
        ("gender == 'ü' and gendre == 1", "there is no column 'gendre'", 18),
        ("gender > 3", "compares text with number", 9),
        ("age == 'old'", "compares number with text", 7),
        ("age", "expected a comparison", 0),
        ("age is 3", "for null alone", 7),
        ("age in 5", "expected a list", 7),
        ("age in ()", "expected a list", 7),
        ("1 == 1", "name a column", 0),
        ("__import__('os').system('true')", "expected a comparison", 0),
        ("age > len(gender)", "expected a column", 6),
        ("age > 1e999", "too large", 6),
        ("gender.upper == 'F'", "expected a column", 0),
    ],
)
def test_refuses_with_a_caret_under_the_fault(text: str, problem: str, caret: int) -> None:
    with pytest.raises(Misuse) as refused:
        matching(TABLE, text)
    said, shown, marked = str(refused.value).split("\n")
    assert problem in said
    assert shown.strip() == text
    assert marked.index("^") - 2 == caret


def test_text_that_is_no_number_is_told() -> None:
    with pytest.raises(Misuse, match="group"):
        matching(TABLE, "group > 3")


@pytest.mark.parametrize(
    "text", ["(" * 500 + "age", "not " * (DEEPEST + 2) + "age > 1", "a" * (LONGEST + 1), "age\0 > 1"]
)
def test_hostile_text_is_misuse(text: str) -> None:
    with pytest.raises(Misuse):
        parse(text, TABLE.column_names)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_query_or_misuse(text: str) -> None:
    with contextlib.suppress(Misuse):
        matching(TABLE, text)


VALUES = st.one_of(st.none(), st.integers(-3, 3).map(float))
ATOMS = st.builds(
    lambda name, op, number: (f"{name} {op} {number}", name, op, number),
    st.sampled_from(["age", "side"]),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    st.integers(-3, 3),
)


def _combine(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        children.map(lambda child: (f"not ({child[0]})", "not", child)),
        st.tuples(children, st.sampled_from(["and", "or"]), children).map(
            lambda x: (f"({x[0][0]}) {x[1]} ({x[2][0]})", x[1], x[0], x[2])
        ),
    )


def _truth(node: Any, line: dict[str, float | None]) -> bool | None:
    """Three-valued logic, written out: the reference."""
    if node[1] == "not":
        inner = _truth(node[2], line)
        return None if inner is None else not inner
    if node[1] in ("and", "or"):
        left, right = _truth(node[2], line), _truth(node[3], line)
        decisive = node[1] == "or"
        if decisive in (left, right):
            return decisive
        return None if None in (left, right) else not decisive
    value = line[node[1]]
    if value is None:
        return None
    compare = {"==": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
    return bool(getattr(value, compare[node[2]])(float(node[3])))


@given(st.recursive(ATOMS, _combine, max_leaves=6), st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_agrees_with_three_valued_logic(query: Any, values: list[tuple[float | None, float | None]]) -> None:
    lines = [{"age": age, "side": side} for age, side in values]
    table = pa.table(
        {
            "age": pa.array([line["age"] for line in lines], pa.float64()),
            "side": pa.array([line["side"] for line in lines], pa.float64()),
            "line": pa.array(range(len(lines))),
        }
    )
    expected = [place for place, line in enumerate(lines) if _truth(query, line) is True]
    assert matching(table, query[0])["line"].to_pylist() == expected
