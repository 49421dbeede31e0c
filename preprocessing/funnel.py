"""What is left after each gate, and what each threshold costs, as plots."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.files import commit_bytes
from contracts.index import COLUMNS
from preprocessing.page import bars, document, survival, table

COMPARED = r"\b{name}\s*([<>]=?)\s*(-?\d+(?:\.\d+)?)"
HOLDS: dict[str, Callable[..., np.ndarray]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def write_funnel(
    out: Path, title: str, gates: Sequence[Mapping[str, Any]], kept: pa.Table, rules: Iterable[str]
) -> None:
    """Write a page: the ``gates`` (``gate``, ``took``, ``left``, ``minutes``) and the survival curves of ``kept``."""
    rows = [
        [gate["gate"], gate["took"], gate["left"], "" if gate["minutes"] is None else f"{gate['minutes']:.1f}"]
        for gate in gates
    ]
    steps = [(gate["gate"], gate["left"], "bad" if gate["took"] else "bar") for gate in gates]
    body = f"<h1>{html.escape(title)}</h1><h2>Left after each gate</h2>{bars(steps)}"
    body += table(["gate", "took", "left", "minutes"], rows) + costs(kept, list(rules))
    commit_bytes(out, document(title, body))


def costs(kept: pa.Table, rules: Sequence[str]) -> str:
    """HTML: a curve per score that ``rules`` compare with a number; samples without the score break no rule."""
    by_name = {column.name: column for column in COLUMNS}
    plots = []
    for name in by_name:
        found = comparisons(name, rules)
        if not found or name not in kept.column_names:
            continue
        values = np.array([value for value in kept[name].to_pylist() if isinstance(value, int | float)], dtype=float)
        values = values[np.isfinite(values)]
        for keep, sign in ((">", "above"), ("<", "below")):
            marks = [(how, number) for how, number in found if how[0] == keep]
            if not len(values) or not marks:
                continue
            left = [int(HOLDS[how](values, number).sum()) for how, number in marks]
            said = "; ".join(
                f"{name} {how} {number:g} takes {len(values) - n} of {len(values)} ({1 - n / len(values):.1%})"
                for (how, number), n in zip(marks, left, strict=True)
            )
            unit = by_name[name].unit
            title = f"{sign} {name}{f' ({unit})' if unit else ''}"
            plot = survival(title, values, keep, [number for _, number in marks])
            plots.append(f"<figure>{plot}<figcaption>{html.escape(said)}</figcaption></figure>")
    if not plots:
        return "<h2>What each threshold costs</h2><p>No rule compares a score with a number.</p>"
    says = (
        "Samples left, of those that have the score, if the threshold stood there; dashed: where it stands. "
        "Each comparison by itself: a rule with 'or' refuses fewer; what the rules refuse together stands above."
    )
    return f'<h2>What each threshold costs</h2><p class="dim">{says}</p><div class="plots">{"".join(plots)}</div>'


def comparisons(name: str, rules: Iterable[str]) -> list[tuple[str, float]]:
    """What ``rules`` compare the column ``name`` with: the sign, and the threshold; each once.

    >>> comparisons("static", ["static < 0.9 and silence < 0.5"])
    [('<', 0.9)]
    """
    pattern = COMPARED.format(name=re.escape(name))
    found = {(sign, float(number)) for rule in rules for sign, number in re.findall(pattern, rule)}
    return sorted(found, key=lambda pair: (pair[1], pair[0]))
