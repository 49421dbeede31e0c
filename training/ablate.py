"""A paper's ablation table: every row trained, stages that rows share only once, and measured on the same items."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from contracts.errors import Misuse
from contracts.files import commit
from contracts.settings import canonical_digest
from systems import catalogue
from systems.base import Batch, System
from training.agenda import artifact_folder
from training.data import Reader
from training.metrics.bootstrap import interval
from training.prove import Proof, ensure, settled
from training.stages import Half, Place

if TYPE_CHECKING:
    from systems.common.tables import Networks, Row, Table

SPLITS: tuple[Literal["known", "new"], ...] = ("known", "new")


@dataclass(frozen=True)
class Cell:
    """A mean over items, each speaker counting once, with its 95 % interval."""

    value: float
    low: float
    high: float


Figures = dict[str, dict[tuple[str, str], Cell]]  # split -> (row, column) -> ours


def find(house: System, number: str) -> Table:
    """The table of that number. Raises ``Misuse`` naming those there are."""
    if number not in house.tables:
        raise Misuse(f"{house.name} declares no table {number!r}; it has {', '.join(house.tables) or 'none'}")
    table = house.tables[number]
    if not table.rows:
        raise Misuse(f"{table.title}: {table.notes[0]}")
    return table


def ablate(
    system: str,
    number: str,
    preset: str,
    half: Half,
    out: Path,
    *,
    seconds: float = 0.0,
    code: str = "ablate",
    progress: Callable[[int, int, str], None],
) -> Figures:
    """Train and measure all rows into ``out``; what stands from before is kept.

    ``seconds``: about so long a stage learns, as many steps in every row; 0: the preset's steps.
    """
    house = catalogue.get(system)
    table = find(house, number)
    made: dict[str, Path] = {}
    rows: list[Networks] = []
    for i, row in enumerate(table.rows):
        proof = Proof(
            replace(house, proof={}), preset, half, half, out / f"row-{i}", Place(), code, seconds, row.changes, out
        )
        for stage in table.stages:
            progress(len(rows), len(table.rows), f"{row.name}: {stage}")
            _share_or_learn(proof, stage, made)
        rows.append({name: house.stage(name).load(artifact_folder(proof.out, name)) for name in table.stages})
    figures: Figures = {}
    for split in SPLITS:
        reader = _reader(house, table, preset, half, split)
        if len(reader):
            figures[split] = {}
            for row, nets in zip(table.rows, rows, strict=True):
                figures[split] |= _measure(table, row, nets, rows[-1], reader)
    progress(len(table.rows), len(table.rows), "measured")
    return figures


def _share_or_learn(proof: Proof, name: str, made: dict[str, Path]) -> None:
    """The stage of this row; taken from a row before it where settings and parents are the same."""
    kind = proof.house.stage(name)
    stage = settled(proof, kind)
    lineage = proof.lineage(stage)
    recipe = canonical_digest([name, lineage.model_dump(mode="json")])
    here = artifact_folder(proof.out, name)
    if recipe in made and not here.exists():
        shutil.copytree(made[recipe], here)
    ensure(proof, stage)
    made.setdefault(recipe, here)


def _reader(house: System, table: Table, preset: str, half: Half, split: Literal["known", "new"]) -> Reader:
    stage = house.stage(table.stage).preset(preset)  # type: ignore[arg-type]
    view = stage.view
    fields = tuple(dict.fromkeys((*view.fields, *table.more)))
    view = replace(view, fields=fields, context=max(view.context, table.context))
    return Reader(half.dataset, half.selection, view, subset=split, seed=0, batch=stage.settings.batch)


def _measure(table: Table, row: Row, nets: Networks, full: Networks, reader: Reader) -> dict[tuple[str, str], Cell]:
    keys: list[str] = []

    def batches() -> Iterator[Batch]:
        for batch in reader.passes():
            keys.extend(batch["key"])
            yield batch

    with torch.no_grad():
        figures = table.figures(row, nets, full, batches())
    speakers = [reader.speaker_of[key] for key in keys]
    return {(row.name, column): Cell(*interval(values, speakers)) for column, values in figures.items()}


def markdown(table: Table, figures: Figures, preset: str) -> str:
    """The paper's layout, once per split: ours with its interval, and the paper's figure in brackets."""
    lines = [
        f"# {table.title}",
        "",
        f"Ours at `{preset}`, mean [95 % interval over speakers]; in brackets the paper's.",
    ]
    for split, cells in figures.items():
        called = {"known": "unseen seconds of known speakers", "new": "speakers never seen"}[split]
        lines += ["", f"## {called}", "", "| | " + " | ".join(table.columns) + " |"]
        lines.append("|" + " --- |" * (len(table.columns) + 1))
        for row in table.rows:
            texts = [_text(cells.get((row.name, column)), row.paper.get(column)) for column in table.columns]
            lines.append(f"| {row.name} | " + " | ".join(texts) + " |")
    lines += ["", *(f"- {note}." for note in table.notes), ""]
    return "\n".join(lines)


def _text(ours: Cell | None, paper: float | None) -> str:
    mine = "–" if ours is None else f"{ours.value:.3g} [{ours.low:.3g}, {ours.high:.3g}]"
    return mine + ("" if paper is None else f" ({paper:g})")


def plot(table: Table, figures: Figures, to: Path) -> None:
    """A panel per measured column: ours with intervals, per split; the paper's on a scale of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = [c for c in table.columns if any(c == column for cells in figures.values() for _, column in cells)]
    figure = Figure(figsize=(2.6 * max(len(measured), 1), 3.4), layout="constrained")
    figure.suptitle(table.title, fontsize=9)
    x = np.arange(len(table.rows))
    for column, axes in zip(measured, figure.subplots(1, len(measured), squeeze=False)[0], strict=True):
        for shift, (split, cells) in zip(_spread(len(figures)), figures.items(), strict=True):
            found = [cells[row.name, column] for row in table.rows]
            values = np.array([cell.value for cell in found])
            bars = np.abs(np.array([[cell.low, cell.high] for cell in found]).T - values)
            axes.errorbar(x + shift, values, bars, fmt="o", capsize=3, label=f"ours, {split}")
        paper = [row.paper.get(column, np.nan) for row in table.rows]
        if np.isfinite(paper).any():
            other = axes.twinx()
            other.plot(x, paper, "k_", markersize=14, label="paper (right scale)")
            other.tick_params(labelsize=6)
        axes.set_title(column, fontsize=8)
        axes.set_xticks(x, [row.name for row in table.rows], rotation=30, ha="right", fontsize=6)
        axes.tick_params(axis="y", labelsize=6)
    if measured:
        figure.axes[0].legend(fontsize=6, frameon=False)
    with commit(to) as file:
        FigureCanvasAgg(figure).print_png(file)


def _spread(count: int) -> Sequence[float]:
    return [0.16 * (i - (count - 1) / 2) for i in range(count)]
