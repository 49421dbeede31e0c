"""``make faults-serve``: the fault matrix of the service, a line per row as it is measured.

Example: .venv/bin/python tests/outages/campaign.py --only F31,F33 --quick
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

from faults.row import short_folder  # noqa: E402
from scoreboard import Scoreboard  # noqa: E402


def main() -> int:
    from outages.rows import ROWS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="F31,F33", help="these rows: by number, or whole, as F31-service")
    parser.add_argument("--quick", action="store_true", help="the counts of the tests, not the full ones")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore Ctrl-C
    only = {name for name in arguments.only.split(",") if name}
    unknown = only - {row.id for row in ROWS} - {row.id.partition("-")[0] for row in ROWS}
    if unknown:
        print(
            f"voxface: --only: no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.id for row in ROWS)}"
        )
        return 2
    from flows import environment

    folder, board = short_folder("vo-"), Scoreboard("faults-serve")
    environment.prepare(folder)
    logging.disable(logging.CRITICAL)  # what is broken here on purpose would be told in many lines
    terminal = os.dup(2)
    try:
        with (folder / "said.log").open("wb") as said:
            os.dup2(said.fileno(), 2)  # libraries, too, write about it
        for number, row in enumerate(ROWS):
            if only and not {row.id, row.id.partition("-")[0]} & only:
                continue
            count, began = (row.few or 1) if arguments.quick else row.full, time.monotonic()
            place, target = folder / str(number), row.target.format(count=count)
            place.mkdir()  # a short name: Ray's sockets stand under it
            try:
                with redirect_stdout(sys.stderr):
                    figure = row.measure(place, count)
            except Exception as error:  # a row that breaks is a row missed; the others are still measured
                board.check(row.id, row.says, f"{type(error).__name__}: {error}", target, False)
            else:
                board.check(row.id, row.says, f"{figure.said}; {time.monotonic() - began:.0f} s", target, figure.held)
            finally:
                shutil.rmtree(place, ignore_errors=True)
        return board.close()
    finally:
        os.dup2(terminal, 2)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
