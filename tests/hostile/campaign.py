"""``make hostile``: every row of the bad-input matrix with all its cases, on two seeds, a line a row.

``python tests/hostile/campaign.py --only B10 --seeds 1`` tries a row alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
import traceback
from functools import cache
from pathlib import Path

from hostile.bench import MEGABYTES, SECONDS, Bench, Outcome, rules
from hostile.matrix import ROWS
from scoreboard import Scoreboard

WORKERS = 2
SLOWEST_FIRST = ("B10", "B25", "B31", "B27", "B11", "B28", "B20")
TOLD = 5  # faults of a row that are printed


@cache
def _bench(folder: str) -> Bench:
    return Bench(Path(folder) / multiprocessing.current_process().name)


def work(job: tuple[str, int, str]) -> tuple[str, int, Outcome]:
    """One row on one seed, in a worker process."""
    id, seed, folder = job
    row = next(row for row in ROWS if row.id == id)
    try:
        return id, seed, _bench(folder).run(row, seed=seed, full=True)
    except Exception:  # a row that breaks is a row missed, with its traceback; the others are still measured
        return id, seed, Outcome(str(row), faults=[f"the campaign itself: {traceback.format_exc()}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="rows, as B10,B12")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    asked = parser.parse_args()
    only = {name for name in (asked.only or "").split(",") if name}
    if unknown := only - {row.id for row in ROWS}:
        print(f"voxface: --only: no such row: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [row for row in ROWS if not only or row.id in only]
    tried = [row for row in chosen if not set(row.needs) - rules()]
    order = sorted(tried, key=lambda row: (row.id not in SLOWEST_FIRST, row.id))
    board = Scoreboard("hostile")
    found: dict[str, list[Outcome]] = {}
    began, printed = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        jobs = [(row.id, seed, folder) for row in order for seed in range(asked.seeds)]
        with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
            for done, (id, _, outcome) in enumerate(pool.imap_unordered(work, jobs), start=1):
                found.setdefault(id, []).append(outcome)
                spent = time.monotonic() - began
                left = spent / done * (len(jobs) - done)
                print(f"\r{done} of {len(jobs)}, about {left:.0f} s left   ", end="", file=sys.stderr, flush=True)
                while printed < len(chosen) and (
                    chosen[printed] not in tried or len(found.get(chosen[printed].id, [])) == asked.seeds
                ):
                    _tell(board, chosen[printed], found.get(chosen[printed].id, []))
                    printed += 1
    print(file=sys.stderr)
    _total(board, [outcome for outcomes in found.values() for outcome in outcomes])
    return board.close()


def _tell(board: Scoreboard, row: object, outcomes: list[Outcome]) -> None:
    from hostile.bench import Row

    assert isinstance(row, Row)
    print("\r", end="", file=sys.stderr)
    if not outcomes:
        board.skip(row.id, row.says, f"no rule of the default selection gives {', '.join(row.needs)}")
        return
    right, cases = sum(one.right for one in outcomes), sum(one.cases for one in outcomes)
    faults = [fault for one in outcomes for fault in one.faults]
    ends: dict[str, int] = {}
    for one in outcomes:
        for name, count in one.ends.items():
            ends[name] = ends.get(name, 0) + count
    told = ", ".join(f"{name} {count}" for name, count in sorted(ends.items()))
    wall, memory = max(one.wall_s for one in outcomes), max(one.memory_mb for one in outcomes)
    processor = max(one.cpu_s for one in outcomes)
    figure = f"{right}/{cases} right ({told}); worst {wall:.2f} s ({processor:.2f} s of processor), {memory:.0f} MB"
    cost = row.target or f"<= {SECONDS:g} s of processor, <= {MEGABYTES:g} MB"
    target = f"{cases}/{cases}, others' bytes the same, {cost}"
    board.check(row.id, row.says, figure, target, not faults and cases > 0)
    for fault in faults[:TOLD]:
        print(f"              {fault}")


def _total(board: Scoreboard, outcomes: list[Outcome]) -> None:
    if not outcomes:
        return
    right, cases = sum(one.right for one in outcomes), sum(one.cases for one in outcomes)
    wall, memory = max(one.wall_s for one in outcomes), max(one.memory_mb for one in outcomes)
    processor = max(one.cpu_s for one in outcomes)
    figure = f"{right}/{cases} right; worst {wall:.2f} s ({processor:.2f} s of processor), {memory:.0f} MB"
    held = 0 < right == cases and processor <= SECONDS and memory <= MEGABYTES
    board.check("all", "every bad file", figure, f"all; <= {SECONDS:g} s of processor, <= {MEGABYTES:g} MB", held)


if __name__ == "__main__":
    sys.exit(main())
