"""``make faults``: the fault matrix of the data, two rows at a time, a line per row in the order of the matrix.

Example: .venv/bin/python tests/faults/campaign.py --only F1,F8 --quick
"""

from __future__ import annotations

import argparse
import importlib
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

# what imports much is imported where it is used: the writers that rows start read this module, too
from faults.row import Figure, Row, Skip, short_folder  # noqa: E402
from scoreboard import Scoreboard  # noqa: E402

LANES = 2  # rows at a time, each in a process of its own: rows patch what all of a process share
SLOWEST_FIRST = ("F3-signal", "F1-ingest", "F4-worker", "F16-crash", "F1-kill", "F5-ingest", "F11-ingest")


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
    parser.add_argument("--lanes", type=int, default=LANES, help="rows at a time")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore Ctrl-C
    only = {name for name in arguments.only.split(",") if name}
    unknown = only - {row.id for row in ROWS} - {row.id.partition("-")[0] for row in ROWS}
    if unknown:
        print(f"--only: no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.id for row in ROWS)}")
        return 2
    chosen = [row for row in ROWS if not only or {row.id, row.id.partition("-")[0]} & only]
    folder = short_folder("vf-")
    try:
        return measure(name, matrix, chosen, folder, arguments.quick, arguments.lanes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(name: str, matrix: str, chosen: list[Row], folder: Path, quick: bool, lanes: int) -> int:
    """Measure the rows; the exit code: 3 where a target was missed."""
    board, told = Scoreboard(name), dict[str, Told]()
    counts = {row.id: (row.few or 1) if quick else row.full for row in chosen}
    rank = {id: place for place, id in enumerate(SLOWEST_FIRST)}
    together = sorted((row for row in chosen if not row.alone), key=lambda row: rank.get(row.id, len(rank)))
    printed = 0
    for rows, width in ((together, lanes), ([row for row in chosen if row.alone], 1)):
        if not rows:
            continue
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(width, context, initializer=prepare, initargs=(folder,)) as pool:
            futures = {pool.submit(work, matrix, row.id, folder, counts[row.id]): row.id for row in rows}
            for future in as_completed(futures):
                told[futures[future]] = ended(future)
                while printed < len(chosen) and chosen[printed].id in told:
                    tell(board, chosen[printed], counts[chosen[printed].id], told[chosen[printed].id])
                    printed += 1
                if sys.stderr.isatty():
                    print(f"\r{len(told)} of {len(chosen)} rows measured   ", end="\r", file=sys.stderr, flush=True)
    return board.close()


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
    row = next(row for row in importlib.import_module(matrix).ROWS if row.id == id)
    place, began = folder / id.replace("-", ""), time.monotonic()
    place.mkdir()
    try:
        return Told(row.measure(place, count), time.monotonic() - began)
    except Skip as why:
        return Told(None, time.monotonic() - began, skipped=str(why))
    except Exception as error:  # a row that breaks is a row missed; the others are still measured
        return Told(None, time.monotonic() - began, error=f"{type(error).__name__}: {error}")
    finally:
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
