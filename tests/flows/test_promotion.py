"""The rule of promotion over tables of figures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flows.promotion import PromotionParams, decide


def line(low: float | None, high: float | None, better: str = "lower", **more: Any) -> dict[str, Any]:
    """A champion of 1.0 and a challenger that differs from it by something within [low, high]."""
    middle = None if low is None or high is None else 1 + (low + high) / 2
    told = {"stage": "s", "measure": f"m{low}", "split": "new", "better": better, "champion": 1.0, "lost": 0}
    return told | {"challenger": middle, "low": low, "high": high} | more


CLEARLY_BETTER, CLEARLY_WORSE, UNCLEAR = line(-0.3, -0.1), line(0.1, 0.3), line(-0.2, 0.1)
HIGHER_BETTER, HIGHER_WORSE = line(0.1, 0.3, "higher"), line(-0.3, -0.1, "higher")


@pytest.mark.parametrize(
    ("lines", "rule", "promote", "why"),
    [
        ([CLEARLY_BETTER], {}, True, "clearly better"),
        ([HIGHER_BETTER], {}, True, "clearly better"),
        ([CLEARLY_BETTER, UNCLEAR], {}, True, "clearly better"),
        ([CLEARLY_WORSE], {}, False, "clearly worse"),
        ([HIGHER_WORSE], {}, False, "clearly worse"),
        ([CLEARLY_BETTER, CLEARLY_WORSE], {}, False, "clearly worse"),
        ([CLEARLY_BETTER, CLEARLY_WORSE], {"worse_in": 1}, True, "clearly better"),
        ([UNCLEAR], {}, False, "1 needed"),
        ([UNCLEAR], {"better_in": 0}, True, "none needed"),
        ([CLEARLY_BETTER, UNCLEAR], {"better_in": 2}, False, "2 needed"),
        ([CLEARLY_BETTER], {"margin": 0.2}, False, "1 needed"),
        ([line(-0.3, -0.25)], {"margin": 0.2}, True, "clearly better"),
        ([line(0.0, 0.0)], {}, False, "1 needed"),  # the same model again
        ([line(None, None)], {}, False, "cannot be told"),
        ([CLEARLY_BETTER, line(None, None)], {}, False, "cannot be told"),
        ([CLEARLY_BETTER, line(-0.3, math.nan)], {"better_in": 0}, False, "cannot be told"),
        ([CLEARLY_BETTER | {"challenger": math.nan}], {}, False, "cannot be told"),
        ([CLEARLY_BETTER | {"lost": 1}], {}, False, "cannot be told"),
        ([], {"better_in": 0}, False, "no measure"),
    ],
)
def test_rule(lines: list[dict[str, Any]], rule: dict[str, Any], promote: bool, why: str) -> None:
    found = decide(lines, PromotionParams.read(rule, "promotion"))
    assert found.promote is promote
    assert why in found.why
    assert len(found.lines) == len(lines)
