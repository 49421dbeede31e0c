"""``make faults``: the fault matrix of the data, a line per row as it is measured.

Example: .venv/bin/python tests/faults/campaign.py --only F1,F8 --quick
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="F1,F8", help="these rows: by number, or whole, as F1-ingest")
    parser.add_argument("--quick", action="store_true", help="the counts of the tests, not the full ones")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore Ctrl-C

    from flows import environment

    # a short path: Ray's sockets may have 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="vf-", dir="/tmp" if Path("/tmp").is_dir() else None))
    environment.prepare(folder)
    logging.disable(logging.CRITICAL)  # what is broken here on purpose would be told in many lines
    terminal = os.dup(2)
    try:
        with (folder / "said.log").open("wb") as said:
            os.dup2(said.fileno(), 2)  # libraries, too, write about it
        return measure(folder, [name for name in arguments.only.split(",") if name], arguments.quick)
    finally:
        os.dup2(terminal, 2)
        shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, only: list[str], quick: bool) -> int:
    """Measure the rows; the exit code: 3 where a target was missed."""
    from faults.row import Skip
    from faults.rows import ROWS
    from scoreboard import Scoreboard

    unknown = set(only) - {row.id for row in ROWS} - {row.id.partition("-")[0] for row in ROWS}
    if unknown:
        print(f"--only: no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.id for row in ROWS)}")
        return 2
    board = Scoreboard("faults")
    for row in ROWS:
        count = row.few or 1 if quick else row.full
        if only and not {row.id, row.id.partition("-")[0]} & set(only):
            continue
        place, began = folder / row.id.replace("-", ""), time.monotonic()
        place.mkdir()
        if sys.stdout.isatty():
            print(f"      {row.id} is measured ...", end="\r", flush=True)
        try:
            with redirect_stdout(sys.stderr):  # Ray, too, tells of what was broken
                figure = row.measure(place, count)
        except Skip as why:
            board.skip(row.id, row.says, str(why))
        except Exception as error:  # a row that breaks is a row missed; the others are still measured
            board.check(row.id, row.says, f"{type(error).__name__}: {error}", row.target.format(count=count), False)
        else:
            said = f"{figure.said}; {time.monotonic() - began:.0f} s"
            board.check(row.id, row.says, said, row.target.format(count=count), figure.held)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return board.close()


if __name__ == "__main__":
    sys.exit(main())
