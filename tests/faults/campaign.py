"""``make faults``: the fault matrix of the data, several rows at a time, a line per row as it ends.

Example: .venv/bin/python tests/faults/campaign.py --only F1,F8 --quick
"""

from __future__ import annotations

import argparse
import importlib
import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

# what imports much is imported where it is used: the writers that rows start read this module, too
from faults.row import Figure, Row, Skip, kill_marked, note_in, reached, short_folder  # noqa: E402
from scoreboard import Scoreboard, at_least_one  # noqa: E402

EVERY_S = 20.0  # a line of what is at work
NOTE = ".note"  # a file for each row at work: how far it is
# rows at a time: much of theirs is waiting. Each in a process of its own: rows patch what all of a process share
LANES = 3
SLOWEST_FIRST = ("F1-ingest", "F3-term", "F3-ctrlc", "F4-worker", "F16-crash", "F1-kill", "F5-ingest", "F11-ingest")


@dataclass(frozen=True)
class Told:
    """How a row ended: with a figure, or why there is none."""

    figure: Figure | None
    seconds: float
    error: str = ""
    skipped: str = ""


def main(name: str = "faults", matrix: str = "faults.rows", told: str | None = __doc__) -> int:
    """Measure rows of ``matrix``, a module with ``ROWS``; the exit code: 3 where a target was missed."""
    ROWS = importlib.import_module(matrix).ROWS
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="F1,F8", help="these rows: by number, or whole, as F1-ingest")
    parser.add_argument("--quick", action="store_true", help="the counts of the tests, not the full ones")
    parser.add_argument("--lanes", type=at_least_one, default=LANES, help="rows at a time")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore Ctrl-C
    only = {name for name in arguments.only.split(",") if name}
    unknown = only - {row.id for row in ROWS} - {row.id.partition("-")[0] for row in ROWS}
    if unknown:
        print(
            f"voxface: --only: no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.id for row in ROWS)}"
        )
        return 2
    chosen = [row for row in ROWS if not only or {row.id, row.id.partition("-")[0]} & only]
    folder = short_folder("vf-")
    try:
        return measure(name, matrix, chosen, folder, arguments.quick, arguments.lanes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(name: str, matrix: str, chosen: list[Row], folder: Path, quick: bool, lanes: int) -> int:
    """Measure the rows; the exit code: 3 where a target was missed."""
    board, mark = Scoreboard(name), secrets.token_hex(8)
    counts = {row.id: (row.few or 1) if quick else row.full for row in chosen}
    rank = {id: place for place, id in enumerate(SLOWEST_FIRST)}
    together = sorted((row for row in chosen if not row.alone), key=lambda row: rank.get(row.id, len(rank)))
    context, watch = multiprocessing.get_context("spawn"), Watch(folder, len(chosen))
    try:
        if any(row.commands for row in chosen):
            from faults.server import STANDING, start_server

            os.environ[STANDING] = start_server(folder, mark)
        for rows, width in ((together, lanes), ([row for row in chosen if row.alone], 1)):
            if not rows:
                continue
            with ProcessPoolExecutor(width, context, initializer=prepare, initargs=(folder,)) as pool:
                futures = {pool.submit(work, matrix, row.id, folder, counts[row.id]): row for row in rows}
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, EVERY_S, FIRST_COMPLETED)
                    for future in done:
                        row = futures[future]
                        tell(board, row, counts[row.id], ended(future))
                    watch.tell(len(done))
        return board.close()
    finally:
        kill_marked(mark)


class Watch:
    """Says now and then how far the rows are that take long."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows, self._ended = folder, rows, 0
        self._began = self._told = time.monotonic()

    def tell(self, ended: int) -> None:
        """So many more rows have ended; a line where none has for some time."""
        self._ended += ended
        now = time.monotonic()
        if ended or now - self._told < EVERY_S - 1:
            self._told = now
            return
        self._told = now
        going = [f"{note.stem} {note.read_text()}" for note in sorted(self._folder.glob(f"*{NOTE}"))]
        said = f"{self._ended} of {self._rows} rows after {now - self._began:.0f} s; at work: {', '.join(going)}"
        print(f"....  {said}", file=sys.stderr, flush=True)


def prepare(folder: Path) -> None:
    """Make this process one that measures rows: quiet, whatever is broken in it."""
    from flows import environment

    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment.prepare(folder)
    logging.disable(logging.CRITICAL)  # what is broken here on purpose would be told in many lines
    said = os.open(folder / "said.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)  # libraries, too, write about it


def work(matrix: str, id: str, folder: Path, count: int) -> Told:
    """Measure one row, in a process for it."""
    number, row = next(each for each in enumerate(importlib.import_module(matrix).ROWS) if each[1].id == id)
    place, began = folder / str(number), time.monotonic()  # a short path: sockets may lie below
    place.mkdir()
    note = folder / f"{id}{NOTE}"
    note_in(note)
    reached(0, count)
    try:
        return Told(row.measure(place, count), time.monotonic() - began)
    except Skip as why:
        return Told(None, time.monotonic() - began, skipped=str(why))
    except Exception as error:  # a row that breaks is a row missed; the others are still measured
        return Told(None, time.monotonic() - began, error=f"{type(error).__name__}: {error}")
    finally:
        note.unlink()
        shutil.rmtree(place, ignore_errors=True)


def ended(future: Future[Told]) -> Told:
    try:
        return future.result()
    except BrokenProcessPool as error:
        return Told(None, 0.0, error=f"the process that measured it died: {error}")


def tell(board: Scoreboard, row: Row, count: int, told: Told) -> None:
    """The line of one row."""
    target = row.target.format(count=count)
    if told.skipped:
        board.skip(row.id, row.says, told.skipped)
    elif told.figure is None:
        board.check(row.id, row.says, told.error, target, False)
    else:
        board.check(row.id, row.says, f"{told.figure.said}; {told.seconds:.0f} s", target, told.figure.held)


if __name__ == "__main__":
    sys.exit(main())
