"""The rule by which a challenger takes the champion's place: a pure function of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from contracts.settings import Settings

BETTER, WORSE, UNCLEAR, MISSING = "better", "worse", "unclear", "missing"
NUMBERS = ("champion", "challenger", "low", "high")


class MeasureParams(Settings):
    """One measure that counts, as ``{stage: conre, measure: lpips, split: new, better: lower}``."""

    stage: str
    measure: str
    split: Literal["known", "new"] = "new"
    better: Literal["lower", "higher"]


class PromotionParams(Settings):
    """``promotion``: when a challenger becomes the champion."""

    measures: list[MeasureParams] = Field(default_factory=list)  # none named: the bar of every stage
    better_in: int = Field(default=1, ge=0)  # so many measures must be clearly better; 0: none clearly worse is enough
    margin: float = Field(default=0.0, ge=0)  # share of the champion's value by which clearly better must be better
    worse_in: int = Field(default=0, ge=0)  # so many may be clearly worse


@dataclass(frozen=True)
class Decision:
    """Whether to promote, why in one sentence, and each line with its ``verdict``."""

    promote: bool
    why: str
    lines: list[dict[str, Any]]


def decide(lines: Sequence[Mapping[str, Any]], rule: PromotionParams) -> Decision:
    """Apply ``rule`` to the lines of :func:`training.challenge.challenge`.

    What cannot be told (a measure that is missing, a value that is not finite, items that the challenger has no value
    for) is never taken for good: the challenger is not promoted.
    """
    judged = [dict(line) | {"verdict": verdict(line, rule.margin)} for line in lines]
    by = {
        kind: [f"{line['stage']} {line['measure']}" for line in judged if line["verdict"] == kind]
        for kind in (BETTER, WORSE, UNCLEAR, MISSING)
    }
    if not judged:
        return Decision(False, "not promoted: there is no measure to compare by", judged)
    if by[MISSING]:
        return Decision(False, f"not promoted: cannot be told: {', '.join(by[MISSING])}", judged)
    if len(by[WORSE]) > rule.worse_in:
        return Decision(False, f"not promoted: clearly worse: {', '.join(by[WORSE])}", judged)
    if len(by[BETTER]) < rule.better_in:
        better = ", ".join(by[BETTER]) or "nowhere"
        return Decision(False, f"not promoted: clearly better {better}, {rule.better_in} needed", judged)
    return Decision(True, f"promoted: clearly better: {', '.join(by[BETTER]) or 'nowhere, and none needed'}", judged)


def verdict(line: Mapping[str, Any], margin: float) -> str:
    """``better`` or ``worse`` where the whole interval of challenger - champion says so; ``unclear``; ``missing``."""
    numbers = [line.get(name) for name in NUMBERS]
    if line.get("lost") or any(number is None or not math.isfinite(number) for number in numbers):
        return MISSING
    low, high = (line["low"], line["high"]) if line["better"] == "higher" else (-line["high"], -line["low"])
    if low > margin * abs(line["champion"]):
        return BETTER
    return WORSE if high < 0 else UNCLEAR
