"""``voxface ablate``: a paper's ablation table, ours beside the paper's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from contracts.files import commit_bytes
from contracts.settings import canonical_json
from flows.commands.options import Chosen, Dataset, System, command
from flows.running import Run


@command("ablate")
def ablate(
    run: Run,
    system: System,
    table: Annotated[str, typer.Option(help="Number of the paper's table, as X.")],
    preset: Annotated[str, typer.Option(help="paper, small or tiny.")] = "tiny",
    seconds: Annotated[
        float,
        typer.Option(min=0, help="About so long each stage learns, all rows alike [default: the preset's steps]."),
    ] = 0.0,
    dataset: Dataset = None,
    selection: Chosen = None,
) -> None:
    """Train the variants that a table of the paper compares, measure them, and set them beside its figures.

    Example: voxface ablate see_the_speaker --table X --preset tiny
    """
    from contracts.selection import read_selection
    from flows.code import code_version
    from systems import catalogue
    from training import ablate as ablation
    from training.agenda import sources
    from training.data import verify
    from training.stages import Half

    declared = ablation.find(catalogue.get(system), table)
    half = Half(dataset or run.places.dataset, read_selection(selection or run.places.selection))
    verify(half.dataset, half.selection)
    out = run.places.ablation(system, table)
    with run.progress(f"ablate {system}, {declared.title}") as progress:
        code = sources(code_version())
        figures = ablation.ablate(system, table, preset, half, out, seconds=seconds, code=code, progress=progress)
    text = ablation.markdown(declared, figures, preset)
    commit_bytes(out / "table.md", text.encode())
    ablation.plot(declared, figures, out / "table.png")
    told = [
        {"split": split, "row": row, "column": column, **asdict(cell)}
        for split, cells in figures.items()
        for (row, column), cell in cells.items()
    ]
    commit_bytes(out / "table.json", canonical_json(told).encode())
    run.finish({"table": text, "plot": str(out / "table.png"), "figures": told} if run.json else {"table": text})
