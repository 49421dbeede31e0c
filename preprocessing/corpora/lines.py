"""Lines of annotation files: numbered, bounded, one bad line costing one row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts.manifest import Row, row_from
from preprocessing.corpora import BadLine

LONGEST_LINE = 1 << 20  # bytes; a row has a few hundred
LONGEST_FAULT = 400  # characters; what a broken cell held may be a megabyte
MOST_COLUMNS = 256  # of one row; each is a column of the ledger
YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


def bad(label: str, number: int, what: str) -> BadLine:
    """Line ``number`` of the file ``label`` is no row, because of ``what``; no label: the manifest itself."""
    told = what[:LONGEST_FAULT].encode("utf-8", "backslashreplace").decode()
    return BadLine(number, f"{label} line {number}: {told}" if label else f"line {number}: {told}", label)


def text_lines(path: Path, label: str) -> Iterator[tuple[int, str] | BadLine]:
    """The lines of ``path`` that are not blank, counted from 1, without their ends; a byte order mark is passed over.

    A line that is not UTF-8, or longer than ``LONGEST_LINE``, is a ``BadLine``; never more than that is held.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE)
                yield bad(label, number, f"longer than {LONGEST_LINE} bytes")
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield bad(label, number, "not UTF-8")
                continue
            if text:
                yield number, text


def row_or_bad(label: str, number: int, values: dict[str, Any]) -> Row | BadLine:
    """The row that ``values`` make, or the line they stand on with every fault named."""
    if not values.get("file"):
        return bad(label, number, "file: is empty")
    if len(values) > MOST_COLUMNS:
        return bad(label, number, f"{len(values)} columns, {MOST_COLUMNS} are allowed")
    try:
        json.dumps(values, ensure_ascii=False, default=str).encode()  # lone surrogates: the name was not UTF-8
        return row_from(values)
    except UnicodeEncodeError:
        return bad(label, number, "not UTF-8")
    except ValidationError as error:
        faults = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors())
        return bad(label, number, "; ".join(faults))
    except (ValueError, TypeError, OverflowError) as error:
        return bad(label, number, str(error))


def real(text: str, name: str) -> float:
    """A finite number. Raises ``ValueError`` that says which one is none."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}: {text!r} is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"{name}: {text!r} is no finite number")
    return value


def whole(text: str, name: str) -> int:
    """A whole number from 0. Raises ``ValueError`` that says which one is none."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError(f"{name}: {text!r} is no whole number")
    return int(text)


def span(start_s: float, end_s: float) -> tuple[float, float]:
    """The span itself, seconds. Raises ``ValueError`` where it does not run forward from 0 or later."""
    if not 0 <= start_s < end_s:
        raise ValueError(f"the span {start_s:g} to {end_s:g} s does not run forward")
    return start_s, end_s


def fractions(x0: float, y0: float, x1: float, y1: float, width: float, height: float) -> tuple[float, ...]:
    """A box in pixels as fractions of a ``width`` x ``height`` frame. Raises ``ValueError`` where it does not fit."""
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"the box {x0:g} {y0:g} {x1:g} {y1:g} does not fit into {width:g} x {height:g}")
    return x0 / width, y0 / height, x1 / width, y1 / height
