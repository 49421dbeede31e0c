"""A table as manifest: CSV, JSON lines or Parquet, read with limits, one bad line costing one row."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from contracts.errors import Misuse
from contracts.manifest import COLUMNS, Row, row_from
from preprocessing.corpora import BadLine

LONGEST_LINE = 1 << 20  # bytes; a manifest row has a few hundred
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
        rows.append(_row(number, values))
    if unknown:
        log.warning("%s: columns kept as extra: %s", path.name, ", ".join(unknown))
    return rows


def _row(number: int, values: dict[str, Any]) -> Row | BadLine:
    if not values.get("file"):
        return BadLine(number, f"line {number}: file: is empty")
    try:
        json.dumps(values, ensure_ascii=False, default=str).encode()  # lone surrogates: the name was not UTF-8
        return row_from(values)
    except UnicodeEncodeError:
        return BadLine(number, f"line {number}: not UTF-8")
    except ValidationError as error:
        faults = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors())
        return BadLine(number, f"line {number}: {'; '.join(faults)}")
    except (ValueError, TypeError, OverflowError) as error:
        return BadLine(number, f"line {number}: {error}")


def _csv(path: Path) -> Iterator[Line]:
    # surrogateescape: a line that is not UTF-8 is refused alone
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(_bounded(file), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        header = [name.strip() for name in next(reader, [])]
        if "file" not in header:
            raise Misuse(f"{path}: the first line must name the columns, and one of them must be 'file'")
        if len(set(header)) != len(header):
            raise Misuse(f"{path}: a column name stands twice in the first line")
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield number, BadLine(number, f"line {number}: {error}")
                continue
            if cells is None:
                return
            if cells and len(cells) != len(header):
                yield number, BadLine(number, f"line {number}: {len(cells)} cells, the header has {len(header)}")
            elif cells:
                yield number, dict(zip(header, cells))


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    """Lines cut at the limit: csv then sees a field that is too long and refuses that line alone."""
    for line in lines:
        yield line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "\n"


def _jsonl(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE)
                yield number, BadLine(number, f"line {number}: longer than {LONGEST_LINE} bytes")
                continue
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_no_constant)
            except (ValueError, RecursionError) as error:
                yield number, BadLine(number, f"line {number}: no JSON: {error}")
                continue
            if not isinstance(values, dict):
                yield number, BadLine(number, f"line {number}: not a JSON object")
            else:
                yield number, values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _parquet(path: Path) -> Iterator[Line]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise Misuse(f"{path}: not a readable Parquet table: {error}") from None
    if "file" not in table.column_names:
        raise Misuse(f"{path}: has no column 'file'")
    yield from enumerate(table.to_pylist(), start=1)
