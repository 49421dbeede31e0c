"""A paper's ablation table, declared: rows that differ by settings, columns that are measured, the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from systems.base import Batch

Networks = Mapping[str, nn.ModuleDict]  # of all stages of a row, by stage


@dataclass(frozen=True)
class Row:
    """A variant, named as the paper names it."""

    name: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stage -> settings
    how: Mapping[str, Any] = field(default_factory=dict)  # what ``Table.measure`` is told
    paper: Mapping[str, float] = field(default_factory=dict)  # the paper's figures by column


@dataclass(frozen=True)
class Table:
    """Rows, the last of which is the full model, and columns in the paper's order.

    ``measure(row, full, batches, **how)`` gives values by column, one per item in the order of the batches;
    ``full`` are the networks of the last row, for measures that need one pair of eyes for all rows. A column that it
    does not give stays empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    stages: tuple[str, ...]  # to be trained, in order of need
    stage: str  # whose view the measured items have
    measure: Callable[..., Mapping[str, Sequence[float]]]
    more: tuple[str, ...] = ()  # fields that measuring needs beside those of the view
    context: int = 0  # frames of sound round a frame, where that is more than the view's
    notes: tuple[str, ...] = ()  # what is not as in the paper, or not there; of a table without rows, why

    def figures(
        self, row: Row, networks: Networks, full: Networks, batches: Iterable[Batch]
    ) -> Mapping[str, Sequence[float]]:
        """``measure`` for one row."""
        return self.measure(networks, full, batches, **row.how)
