"""A table as manifest: CSV, JSON lines or Parquet, read with limits, one bad line costing one row."""

from __future__ import annotations

import csv
import json
import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import Misuse
from contracts.manifest import COLUMNS, Row
from preprocessing.corpora import BadLine
from preprocessing.corpora.lines import LONGEST_LINE, bad, row_or_bad, text_lines

MOST_LINES_OF_A_CELL = 16
ALIASES = frozenset({"license"})

log = logging.getLogger(__name__)
Line = tuple[int, dict[str, Any] | BadLine]


def read(path: Path) -> list[Row | BadLine]:
    """The rows of the table at ``path``, in order; columns we do not know are kept as ``extra``, with one warning.

    Raises ``Misuse`` for another file type, an unreadable table, or one without a ``file`` column.
    """
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise Misuse(f"{path}: a manifest ends in {', '.join(readers)}, or is a folder")
    rows: list[Row | BadLine] = []
    unknown: dict[str, None] = {}
    for number, values in reader(path):
        if isinstance(values, BadLine):
            rows.append(values)
            continue
        unknown |= dict.fromkeys(str(name) for name in values if name not in COLUMNS and name not in ALIASES)
        rows.append(row_or_bad("", number, values))
    if unknown:
        log.warning("%s: columns kept as extra: %s", path.name, ", ".join(unknown))
    return rows


def _csv(path: Path) -> Iterator[Line]:
    # surrogateescape: a line that is not UTF-8 is refused alone
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        lines = _cells(file, delimiter)
        header: list[str] = []
        for number, cells in lines:
            if isinstance(cells, BadLine):
                if not header:
                    break
                yield number, cells
            elif not header:
                header = [name.strip() for name in cells]
                if "file" not in header:
                    break
                if len(set(header)) != len(header):
                    raise Misuse(f"{path}: a column name stands twice in the first line")
            elif len(cells) != len(header):
                yield number, bad("", number, f"{len(cells)} cells, the header has {len(header)}")
            else:
                yield number, dict(zip(header, cells))
        if "file" not in header:
            raise Misuse(f"{path}: the first line must name the columns, and one of them must be 'file'")


def _cells(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str] | BadLine]]:
    """The cells of each line, by the number that it begins at.

    A cell in quotes may run over some lines. One that never ends costs the line it begins on, and no other.
    """
    ahead: deque[str] = deque()  # read to find the end of a quoted cell, and not used for it
    number = 0
    while line := (ahead.popleft() if ahead else _bounded(file)):
        number += 1
        if len(line) > LONGEST_LINE:
            yield number, bad("", number, f"longer than {LONGEST_LINE} characters")
            continue
        taken = [line]
        while True:
            try:
                cells = next(csv.reader(taken, delimiter=delimiter, strict=True), [])
            except csv.Error as error:
                fault = str(error)
                if not fault.startswith("unexpected end of data") or len(taken) > MOST_LINES_OF_A_CELL:
                    cells = []
                elif more := (ahead.popleft() if ahead else _bounded(file)):
                    taken.append(more)
                    continue
                ahead.extendleft(reversed(taken[1:]))
                yield number, bad("", number, fault)
            else:
                if cells:
                    yield number, cells
                number += len(taken) - 1
            break


def _bounded(file: TextIO) -> str:
    """The next line; one that is too long is read on to its end, and only its beginning kept."""
    line = file.readline(LONGEST_LINE + 1)
    rest = line
    while len(rest) > LONGEST_LINE and not rest.endswith("\n"):
        rest = file.readline(LONGEST_LINE + 1)
    return line


def _jsonl(path: Path) -> Iterator[Line]:
    for line in text_lines(path, ""):
        if isinstance(line, BadLine):
            yield line.line, line
            continue
        number, text = line
        try:
            values = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            yield number, bad("", number, f"no JSON: {error}")
            continue
        yield number, values if isinstance(values, dict) else bad("", number, "not a JSON object")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _parquet(path: Path) -> Iterator[Line]:
    try:
        table = pq.read_table(path)
        table.validate(full=True)  # text that is none is found now, and not where it is used
    except (pa.ArrowException, OSError) as error:
        raise Misuse(f"{path}: not a readable Parquet table: {error}") from None
    if "file" not in table.column_names:
        raise Misuse(f"{path}: has no column 'file'")
    yield from enumerate(table.to_pylist(), start=1)
