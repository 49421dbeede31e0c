"""Pieces of a page that stands alone: no scripts, no network, styles inline, plots as SVG, pictures in base64."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

BINS = 24
POINTS = 121  # of a curve
STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #67708a; --line: #d9dde6; --paper: #fff; --bar: #3d6fb6;
  --bad: #c0563d; --rule: #d08a17 }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf1; --dim: #98a1b8; --line: #353c4b; --paper: #161a22;
  --bar: #6f9fe0; --bad: #e0785e; --rule: #e6b04a } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem } h1 { font-size: 1.6rem } h2 { margin-top: 2.4rem; font-size: 1.2rem }
p.dim, figcaption { color: var(--dim) } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right } td.text { overflow-wrap: anywhere; min-width: 3.5rem }
td.word { white-space: nowrap }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 1rem }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: .8rem }
figure { margin: 0 } figure img { width: 100%; border-radius: 4px; display: block }
figcaption { font-size: .72rem; overflow-wrap: anywhere } .refused img { outline: 2px solid var(--rule) }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif } .bar { fill: var(--bar) } .bad { fill: var(--bad) }
.curve { fill: none; stroke: var(--bar); stroke-width: 2 } .axis { stroke: var(--line) }
.rule { stroke: var(--rule); stroke-width: 2; stroke-dasharray: 4 3 }
"""


def document(title: str, body: str) -> bytes:
    """A whole HTML page; its content security policy forbids everything but inline styles and pictures."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>"
    )
    return page.encode("utf-8", "replace")


def bars(counts: Sequence[tuple[str, int, str]]) -> str:
    """Horizontal bars as SVG: name, number, and the class that colours it (``bar`` or ``bad``)."""
    most = max((number for _, number, _ in counts), default=0) or 1
    drawn = []
    for place, (name, number, kind) in enumerate(counts):
        y, width = 24 * place, 560 * number / most
        drawn.append(f'<text x="0" y="{y + 15}">{html.escape(name)}</text>')
        drawn.append(f'<rect class="{kind}" x="190" y="{y + 3}" width="{width:.1f}" height="16" rx="2"/>')
        drawn.append(f'<text x="{196 + width:.1f}" y="{y + 15}">{number}</text>')
    return f'<svg viewBox="0 0 800 {24 * len(counts)}" width="100%" role="img">{"".join(drawn)}</svg>'


def histogram(title: str, values: np.ndarray, thresholds: Sequence[float]) -> str:
    """``values`` [N] (finite, at least one) in bins as SVG, with a dashed line at each threshold."""
    low, high = (float(edge(np.append(values, thresholds))) for edge in (np.min, np.max))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(values, BINS, (low, high))
    most = max(1, int(counts.max()))
    drawn = "".join(
        f'<rect class="bar" x="{10 * place}" y="{100 - 90 * n / most:.1f}" width="9" height="{90 * n / most:.1f}"/>'
        for place, n in enumerate(counts)
    )
    for threshold in thresholds:
        x = 240 * (threshold - low) / (high - low)
        drawn += f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="100"/>'
    return (
        f'<svg viewBox="0 -16 240 134" width="100%" role="img"><text x="0" y="-4">{html.escape(title)}</text>{drawn}'
        f'<text x="0" y="114">{low:.3g}</text><text x="240" y="114" text-anchor="end">{high:.3g}</text></svg>'
    )


def survival(title: str, values: np.ndarray, keep: str, thresholds: Sequence[float]) -> str:
    """The share of ``values`` [N] (finite, at least one) that a threshold leaves, over that threshold, as SVG.

    ``keep`` says which side of it stays; a dashed line at each of ``thresholds``.
    """
    ordered = np.sort(values)
    low, high = (float(edge(np.append(values, thresholds))) for edge in (np.min, np.max))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    places = np.linspace(low, high, POINTS)
    below = np.searchsorted(ordered, places, side="left" if keep == "<" else "right") / len(ordered)
    left = below if keep == "<" else 1 - below
    points = " ".join(
        f"{240 * (x - low) / (high - low):.1f},{100 - 90 * share:.1f}" for x, share in zip(places, left, strict=True)
    )
    drawn = '<line class="axis" x1="0" x2="240" y1="10" y2="10"/><line class="axis" x1="0" x2="240" y1="100" y2="100"/>'
    corners = ['x="240" text-anchor="end"', 'x="0"']  # where the curve is not
    if keep == "<":
        corners.reverse()
    drawn += f'<polyline class="curve" points="{points}"/>'
    for threshold in thresholds:
        x = 240 * (threshold - low) / (high - low)
        drawn += f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="100"/>'
    return (
        f'<svg viewBox="0 -16 240 134" width="100%" role="img"><text x="0" y="-4">{html.escape(title)}</text>{drawn}'
        f'<text {corners[0]} y="8">all</text><text {corners[1]} y="97">none</text>'
        f'<text x="0" y="114">{low:.3g}</text><text x="240" y="114" text-anchor="end">{high:.3g}</text></svg>'
    )


def figure(jpeg: bytes, caption: str) -> str:
    """A picture with a caption (HTML, escaped by the caller)."""
    data = base64.b64encode(jpeg).decode()
    return f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table; numbers stand right, everything is escaped."""

    def cell(value: Any) -> str:
        number = isinstance(value, int | float)
        text = json.dumps(value) if number else str(value if value is not None else "")
        kind = "number" if number else "word" if len(text) <= 32 else "text"
        return f'<td class="{kind}">{html.escape(text)}</td>'

    lines = list(rows)
    numbers = [all(isinstance(line[place], int | float) for line in lines) for place in range(len(heading))]
    head = "".join(
        f'<th class="{"number" if number else "text"}">{html.escape(name)}</th>'
        for name, number in zip(heading, numbers)
    )
    body = "".join(f"<tr>{''.join(map(cell, line))}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
