"""Ablation tables: shared parents are trained once, rows are measured on the same items, the paper stands beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.errors import Misuse
from systems import catalogue
from systems.common.tables import Row, Table
from training.ablate import ablate, find, markdown, plot
from training.stages import Half

TOLD = ("l1 ↓", "FID ↓")


def _l1(nets, full, batches, loud=True):
    values = []
    for batch in batches:
        true = batch["frames"][:, 0]
        heard = batch["audio"][:, 640:1280].square().mean(1, keepdim=True).sqrt()
        made = nets["mean"]["mean"].image + loud * nets["mouth"]["mouth"](heard)
        values += (made - true).abs().mean((1, 2, 3)).tolist()
    return {"l1 ↓": values}


TABLE = Table(
    title="Table 1: a toy's mouth",
    columns=TOLD,
    rows=(
        Row("slow", {"mouth": {"steps": 2}}, paper={"l1 ↓": 0.5, "FID ↓": 30.0}),
        Row("silent", how={"loud": False}),
        Row("full", paper={"l1 ↓": 0.25}),
    ),
    stages=("coder", "mean", "mouth"),
    stage="mouth",
    measure=_l1,
    notes=("FID is not measured",),
)


@pytest.fixture
def with_table(toy_system, monkeypatch):
    none = replace(TABLE, rows=(), notes=("nobody has built it",))
    house = replace(catalogue.get(toy_system), tables={"1": TABLE, "2": none})
    monkeypatch.setattr(catalogue, "get", lambda name: house)
    return house


def test_a_table_is_trained_measured_and_told(with_table, small_dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    half = Half(small_dataset.dataset, small_dataset.selection)
    notes: list[str] = []
    run = {"preset": "tiny", "half": half, "out": tmp_path, "progress": lambda *told: notes.append(told[2])}
    figures = ablate(with_table.name, "1", **run)
    assert set(figures) == {"known", "new"}
    ours = {row: figures["new"][row, "l1 ↓"] for row in ("slow", "silent", "full")}
    assert len({cell.value for cell in ours.values()}) == 3
    assert all(cell.low <= cell.value <= cell.high for cell in ours.values())
    # trained once: the rows after the first took coder and mean, and the second's mouth is the third's
    trained = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("row-*/*/metrics.jsonl"))
    assert trained == ["row-0/coder", "row-0/mean", "row-0/mouth", "row-1/mouth"]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert ablate(with_table.name, "1", **run) == figures
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == stamps
    text = markdown(TABLE, figures, "tiny")
    assert "| | l1 ↓ | FID ↓ |" in text
    assert "| slow | " + f"{ours['slow'].value:.3g} [" in text
    assert "(0.5) | – (30) |" in text
    assert "- FID is not measured." in text
    plot(TABLE, figures, tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_every_row_learns_as_many_steps(with_table, small_dataset, tmp_path: Path) -> None:
    from contracts.bundle import read_artifact

    half = Half(small_dataset.dataset, small_dataset.selection)
    ablate(with_table.name, "1", "tiny", half, tmp_path, seconds=1.0, progress=lambda *_: None)
    steps = [read_artifact(tmp_path / f"row-{i}" / "mouth" / "artifact").lineage.settings["steps"] for i in range(3)]
    assert steps[0] == 2  # a row's own setting
    assert steps[1] == steps[2] > 5


def test_tables_that_are_not_there(with_table) -> None:
    with pytest.raises(Misuse, match=r"no table 'IX'; it has 1, 2"):
        find(with_table, "IX")
    with pytest.raises(Misuse, match="nobody has built it"):
        find(with_table, "2")
