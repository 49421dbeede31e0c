"""The bad-input matrix, a test a row: the reason is right, it costs little, and the other clips are untouched."""

from __future__ import annotations

import pytest
from hostile.bench import Bench, Row, rules
from hostile.matrix import ROWS


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_hostile(row: Row, bench: Bench) -> None:
    missing = set(row.needs) - rules()
    if missing:
        pytest.skip(f"the default selection has no rule for {', '.join(sorted(missing))}")
    outcome = bench.run(row)
    assert outcome.cases
    assert not outcome.faults, "\n".join(outcome.faults)


def test_every_row_stands_once() -> None:
    ids = [row.id for row in ROWS]
    assert ids == [f"B{number}" for number in range(1, 32)]
