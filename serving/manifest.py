"""A manifest of videos to make, read line by line: a line that is wrong is an answer of its own, not the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from contracts.errors import Misuse, Reject
from contracts.reasons import Reason
from serving.jobs import LINE_LIMIT
from serving.rows import NAME, Row


class ManifestRow(Row):
    """A row whose files are paths relative to the manifest, and whose video may have a place of its own."""

    out: str | None = Field(default=None, min_length=1, max_length=512)  # under the folder of results; ends with .mp4


@dataclass(frozen=True)
class Line:
    """One line of a manifest: a row and where its video goes, or why it cannot be used."""

    number: int  # from 1, as an editor counts
    name: str
    row: ManifestRow | None = None
    out: PurePosixPath | None = None  # relative
    error: Reject | None = None


def read_lines(manifest: Path) -> list[Line]:
    """The lines of a JSON Lines ``manifest``, empty ones left out; wrong ones with their error.

    Raises ``Misuse`` where there is no such file, or nothing in it.
    """
    if not manifest.is_file():
        raise Misuse(f"{manifest} does not exist: give a file with one JSON object per line")
    lines: list[Line] = []
    with manifest.open(encoding="utf-8-sig", errors="replace") as file:
        number = 0
        while text := file.readline(LINE_LIMIT + 1):
            number += 1
            long = len(text) > LINE_LIMIT
            while long and text and not text.endswith("\n"):  # the rest of it, a piece at a time
                text = file.readline(LINE_LIMIT)
            if long:
                error = Reject(Reason.BAD_MANIFEST, f"longer than {LINE_LIMIT} characters")
                lines.append(Line(number, f"line-{number}", error=error))
            elif text.strip():
                lines.append(_read(text, number))
    if not lines:
        raise Misuse(f'{manifest} has no jobs: give one JSON object per line, at least {{"audio": "speech.wav"}}')
    return _placed(lines)


def _read(text: str, number: int) -> Line:
    name = f"line-{number}"
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return Line(number, name, error=Reject(Reason.BAD_MANIFEST, f"not JSON: {error}"))
    if not isinstance(values, dict):
        return Line(number, name, error=Reject(Reason.BAD_MANIFEST, "not a JSON object"))
    if isinstance(given := values.get("id"), str) and not NAME.fullmatch(given):
        return Line(number, name, error=Reject(Reason.BAD_ID, f"id: {given[:100]!r} must match {NAME.pattern}"))
    try:
        row = ManifestRow.read(values, "")
    except Misuse as error:
        return Line(number, name, error=Reject(Reason.BAD_MANIFEST, str(error).removeprefix(": ")))
    name = row.id or PurePosixPath(row.audio).stem or name
    out = PurePosixPath(row.out or f"{name}.mp4")
    if out.is_absolute() or ".." in out.parts or out.suffix != ".mp4" or not str(out).isprintable():
        told = f"out: {str(out)!r} must be a name under the folder of results that ends with .mp4"
        return Line(number, name, error=Reject(Reason.PATH_ESCAPE if ".." in out.parts else Reason.BAD_MANIFEST, told))
    return Line(number, name, row, out)


def _placed(lines: list[Line]) -> list[Line]:
    """Of lines that would write to one place the first has it, unless they are the same."""
    taken: dict[PurePosixPath, Line] = {}
    placed: list[Line] = []
    for line in lines:
        if line.out is not None:
            first = taken.setdefault(line.out, line)
            if first.row != line.row:
                detail = f"{line.out} is line {first.number}'s: give this line an id, or an out, of its own"
                line = Line(line.number, line.name, error=Reject(Reason.DUPLICATE_ID, detail))
        placed.append(line)
    return placed


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
