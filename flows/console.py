"""What a person sees: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

log = logging.getLogger(__name__)
PLAIN_EVERY_S = 5.0  # between two lines of progress where standard error is not a terminal


class Progress(Protocol):
    """What long functions call: done, total (0: unknown), note."""

    def __call__(self, done: int, total: int, note: str) -> None: ...


def silent(done: int, total: int, note: str) -> None:
    """Progress that nobody wants to see."""


@contextmanager
def progress_bar(title: str, quiet: bool = False) -> Iterator[Progress]:
    """A bar on a terminal, a line every few seconds elsewhere, nothing where ``quiet``."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bar(title) as update:
            yield update
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, note="")

        def update(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total or None, note=note)

        yield update


def _lines(title: str) -> Progress:
    last = -PLAIN_EVERY_S

    def update(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PLAIN_EVERY_S or (total and done >= total):
            last = now
            note_error(f"{title}: {done}/{total or '?'} {note}".rstrip())

    return update


def note_error(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


def show(result: Mapping[str, Any], as_json: bool, out: TextIO | None = None) -> None:
    """The result of a command: one JSON object, or a line per entry; nested tables are indented."""
    said = [json.dumps(result, ensure_ascii=False, default=str)] if as_json else lines(result)
    for line in said:
        print(line, file=out or sys.stdout, flush=True)


class Overheard:
    """Stands in for standard output while packages work that print to it: what they say goes to the log."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, whole):
            log.info("printed: %s", line)
        return len(text)

    def flush(self) -> None:
        """Lines are logged as they end."""

    def isatty(self) -> bool:
        return False


def lines(result: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """``result`` as aligned text, a line per entry.

    >>> list(lines({"read": 3, "rejected": {"NO_FACE": 1}}))
    ['read      3', 'rejected', '  NO_FACE  1']
    """
    width = max((len(name) for name in result), default=0)
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}" + ("  none" if not value else "")
            yield from lines(value, indent + "  ")
        elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            yield f"{indent}{name}"
            yield from table(value, indent + "  ")
        elif isinstance(value, list | tuple):
            yield f"{indent}{name:<{width}}  {', '.join(map(str, value)) or 'none'}"
        else:
            yield f"{indent}{name:<{width}}  {_plain(value)}"


def table(rows: Sequence[Mapping[str, Any]], indent: str = "") -> Iterator[str]:
    """Rows of equal keys as aligned columns under a heading."""
    names = list(rows[0])
    cells = [names] + [[_plain(row.get(name)) for name in names] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    for row in cells:
        yield indent + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip()


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
