"""One self-contained page about a training run: measures beside baselines, curves, pictures, lineage."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.bundle import read_artifact
from contracts.errors import Corrupt, Misuse
from contracts.files import commit_bytes
from training.agenda import artifact_folder
from training.record import STAGE_FILE, read_record

Curves = dict[str, list[tuple[int, float]]]  # (step, value) by name
STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; --good: #1a7f37; --bad: #c0392b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right } th.n { text-align: right }
.wide { overflow-x: auto } img { max-width: 100%; height: auto } figure { margin: 1rem 0 }
figcaption, .quiet { color: #777 } code { background: var(--soft); padding: 0 .25em; border-radius: .2em }
.warn { color: var(--bad) } .better { color: var(--good) } .worse { color: var(--bad) }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } .pictures img { image-rendering: auto; max-height: 26rem }
"""


def write_training_report(out: Path, page: Path) -> None:
    """Write ``page``, one HTML file, about every stage under ``out``. Raises ``Misuse`` where there is none."""
    stages = [(file.parent, json.loads(file.read_bytes())) for file in out.glob(f"*/{STAGE_FILE}")]
    if not stages:
        raise Misuse(f"{out} holds no training: voxface train")
    stages.sort(key=lambda found: _began(found[0]))
    system = stages[0][1]["system"]
    preset = stages[0][1]["lineage"]["settings"]["preset"]
    body = "\n".join(
        [
            f"<h1>{_text(system)}, trained</h1>",
            f"<p class=quiet>preset {_text(preset)} · {len(stages)} stages · dataset "
            f"<code>{stages[0][1]['lineage']['dataset'][:12]}</code> · selection "
            f"<code>{stages[0][1]['lineage']['selection'][:12]}</code></p>",
            "<h2>Measures beside their trivial baselines</h2>",
            "<div class=wide>" + _measures(system, stages) + "</div>",
            *(part for folder, told in stages for part in _stage(out, folder, told)),
        ]
    )
    title = f"{_text(system)}: training report"
    text = (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style></head><body>{body}</body></html>"
    )
    commit_bytes(page, text.encode())


def _measures(system: str, stages: list[tuple[Path, dict[str, Any]]]) -> str:
    heads = ("stage", "steps", "measure", "split", "ours", "baseline", "its value", "ratio")
    numbers = ("steps", "ours", "its value", "ratio")
    rows = ["<tr>" + "".join(f"<th{' class=n' * (head in numbers)}>{head}" for head in heads) + "</tr>"]
    for folder, told in stages:
        lines = read_record(folder)
        steps = max((line["step"] for line in lines), default=0)
        lead = f"<td><a href='#{told['stage']}'>{_text(told['stage'])}</a><td class=n>{steps}"
        bar = _bar(system, told["stage"])
        values: dict[str, float] = next((line["values"] for line in reversed(lines) if line["kind"] == "end"), {})
        found = False
        for split in ("known", "new"):
            ours = values.get(f"{split}/{bar.measure}") if bar else None
            if bar is None or ours is None:
                continue
            found = True
            named = isinstance(bar.baseline, str)
            other = values.get(f"{split}/{bar.baseline}") if named else float(bar.baseline)
            ratio = ours / other if other and other > 0 else math.nan  # of correlations around 0 it would say nothing
            better = other is not None and (ours < other if bar.better == "lower" else ours > other)
            mark = f"<td class='n {'better' if better else 'worse'}'>" + ("-" if math.isnan(ratio) else f"{ratio:.3f}")
            counts = " (the bar)" if bar.speakers == split else ""
            rows.append(
                f"<tr>{lead}<td>{_text(bar.measure)} ({bar.better} is better)<td>{split}{counts}"
                f"<td class=n>{ours:.4g}<td>{_text(str(bar.baseline)) if named else 'constant'}"
                f"<td class=n>{'-' if other is None else f'{other:.4g}'}{mark}</tr>"
            )
        if not found:
            rows.append(f"<tr>{lead}<td colspan=6 class=quiet>no bar</tr>")
    return f"<table>{''.join(rows)}</table><p class=quiet>Means over items; voxface evaluate adds intervals.</p>"


def _bar(system: str, stage: str) -> Any:
    from systems import catalogue

    return catalogue.get(system).stage(stage).bar


def _stage(out: Path, folder: Path, told: dict[str, Any]) -> Iterator[str]:
    lines = read_record(folder)
    yield f"<h2 id='{told['stage']}'>{_text(told['stage'])}</h2>"
    train = [line for line in lines if line["kind"] == "train"]
    ended = any(line["kind"] == "end" for line in lines)
    resumed = sum(line["kind"] == "start" for line in lines) - 1
    skipped = sum(line["kind"] == "skipped" for line in lines)
    facts = [f"{max((line['step'] for line in lines), default=0)} steps"]
    if train:
        seconds = sorted(line["values"].get("seconds/step", 0.0) for line in train)
        facts.append(f"{seconds[len(seconds) // 2]:.3g} s per step")
    facts += [f"resumed {resumed} times"] * (resumed > 0)
    facts += ["not finished"] * (not ended)
    yield f"<p>{' · '.join(facts)}</p>"
    if skipped:
        yield f"<p class=warn>{skipped} steps were skipped because a value was not finite.</p>"
    gone = [key for line in lines if line["kind"] == "skipped" for key in line.get("out", ())]
    if gone:
        names = ", ".join(f"<code>{_text(key)}</code>" for key in gone)
        yield f"<p class=warn>Drawn no more, being in too many of them: {names} (quarantine.json).</p>"
    for note in dict.fromkeys(line["text"] for line in lines if line["kind"] == "note"):
        yield f"<p class=warn>{_text(note)}</p>"
    if train and any(key.endswith("/total") for key in train[-1]["values"]):
        yield f"<figure><img alt='Curves of {told['stage']}' src='{_curves(lines)}'></figure>"
    pictures = sorted((folder / "pictures").glob("*.png"))
    if pictures:
        shown = [pictures[0], pictures[-1]] if len(pictures) > 1 else pictures
        figures = (
            f"<figure><img alt='{path.stem}' src='{_inline(path.read_bytes(), 'png')}'>"
            f"<figcaption>step {int(path.stem.removeprefix('step-'))}</figcaption></figure>"
            for path in shown
        )
        yield f"<div class=pictures>{''.join(figures)}</div>"
    yield _lineage(out, told)


def _lineage(out: Path, told: dict[str, Any]) -> str:
    lineage = told["lineage"]
    try:
        digest = read_artifact(artifact_folder(out, told["stage"]), verify=False).digest[:12]
    except (Misuse, Corrupt):
        digest = "none yet"
    parents = ", ".join(f"{name} <code>{d[:12]}</code>" for name, d in lineage["parents"].items()) or "none"
    rows = [
        ("artifact", f"<code>{digest}</code>"),
        ("parents", parents),
        ("code", f"<code>{_text(lineage['code'])}</code>"),
    ]
    if lineage["unnamed"]:
        rows.append(("stand-ins", _text(", ".join(lineage["unnamed"]))))
    settings = " ".join(f"<code>{_text(f'{k}={v}')}</code>" for k, v in lineage["settings"].items())
    rows.append(("settings", settings))
    cells = "".join(f"<tr><th>{name}<td>{value}</tr>" for name, value in rows)
    return f"<details><summary>Where it comes from</summary><table>{cells}</table></details>"


def _curves(lines: list[dict[str, Any]]) -> str:
    """Losses, then validation measures, then the gradient norm, over steps, as an inline PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups: list[tuple[str, dict[str, list[tuple[int, float]]]]] = [
        ("loss", {}),
        ("validation", {}),
        ("gradient norm", {}),
    ]
    for line in lines:
        for key, value in line["values"].items() if line["kind"] in ("train", "validation") else ():
            if line["kind"] == "validation":
                group = 1
            elif key.startswith("grad_norm/"):
                group = 2
            elif key.startswith(("lr/", "seconds/")) or key == "skipped":
                continue
            else:
                group = 0
            groups[group][1].setdefault(key, []).append((line["step"], value))
    # a single validation is in the table; as a curve it says nothing
    drawn = [(title, curves) for title, curves in groups if max(map(len, curves.values()), default=0) > 1] or groups[:1]
    figure = Figure(figsize=(4.6 * len(drawn), 3.4), layout="constrained")
    for place, (title, curves) in enumerate(drawn, start=1):
        axes = figure.add_subplot(1, len(drawn), place)
        for key, points in curves.items():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=key, linewidth=1.4, marker="o" if len(steps) < 3 else None, markersize=4)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7, loc="best")
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data, metadata={"Software": None})
    return _inline(data.getvalue(), "png")


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _began(folder: Path) -> float:
    return next((float(line["time"]) for line in read_record(folder)), math.inf)


def _text(value: str) -> str:
    return html.escape(str(value))
