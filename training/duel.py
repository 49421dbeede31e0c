"""One self-contained page about a comparison: what was decided and why, figures, and both models' pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.files import commit_bytes
from training.report import STYLE

COLUMNS = ("stage", "as", "split", "better", "champion", "challenger", "difference", "unit", "items", "verdict")
HEADS = {"as": "measure", "difference": "difference, 95 %", "unit": "drawn"}
SIDES = ("champion", "challenger")


def write_page(told: dict[str, Any], page: Path) -> None:
    """Write ``page`` about a decision: ``told`` as ``flows.retrain`` keeps it."""
    title = f"{html.escape(told['system'])}: retraining of {told['time']}"
    champion = told["champion"][:12] if told["champion"] else "none"
    mark = "better" if told["promoted"] else "quiet"
    body = [
        f"<h1>{title}</h1>",
        f"<p><b class={mark}>{html.escape(told['why'])}</b></p>",
        f"<p>champion <code>{champion}</code> · challenger <code>{told['challenger'][:12]}</code></p>",
        "<p>Made again: " + (html.escape(", ".join(told.get("reproduced", []))) or "nothing") + "</p>",
        *(f"<p class=warn>{html.escape(note)}</p>" for note in told["notes"]),
        *_table(told["lines"]),
        *_pictures(Path(told["pictures"]), told["lines"]),
    ]
    text = (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>"
    )
    commit_bytes(page, text.encode())


def _table(lines: list[dict[str, Any]]) -> Iterator[str]:
    if not lines:
        return
    yield "<h2>The same frozen items</h2><div class=wide><table><tr>"
    yield "".join(f"<th>{HEADS.get(name, name)}" for name in COLUMNS) + "</tr>"
    for line in lines:
        difference = f"[{_number(line['low'])}, {_number(line['high'])}]"
        cells = [_number({**line, "difference": difference}[name]) for name in COLUMNS]
        yield f"<tr class={line['verdict']}>" + "".join(f"<td>{html.escape(cell)}" for cell in cells) + "</tr>"
    yield "</table></div><p class=quiet>Difference: challenger - champion, in 95 % of draws with replacement.</p>"


def _pictures(folder: Path, lines: list[dict[str, Any]]) -> Iterator[str]:
    for stage in dict.fromkeys(line["stage"] for line in lines):
        shown = [(side, folder / f"{stage}-{side}.png") for side in SIDES]
        if not any(path.is_file() for _, path in shown):
            continue
        yield f"<h2>{html.escape(stage)}</h2><div class=pictures>"
        for side, path in shown:
            if path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                yield f"<figure><img alt='{html.escape(stage)}, {side}' src='data:image/png;base64,{data}'>"
                yield f"<figcaption>{side}</figcaption></figure>"
        yield "</div>"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
