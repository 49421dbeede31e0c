"""What training costs beside the least it could: the loader beside bare decoding, our step beside a bare loop.

    make bench-train
    VOXFACE_CORPUS=DIR make bench-train
    PYTHONPATH=.:tests python benchmarks/train.py --clips 12 --repeat 5

**Loader** (benchmarks/loading.py): items of one process on clips of ``VOXFACE_CORPUS`` or of the demo corpus, ingested
for this; beside it the **limit**: the JPEGs of the very same frames read from the tar and decoded by the same decoder,
nothing else; and a **plain** ``Dataset`` that opens the clip's video for each item. **Step** (benchmarks/stepping.py):
``training.loop.train`` and a bare loop of the same model, one step of each in turn on the same batch. Both are user and
system time of this process, so that other work on the machine weighs little; of repeats the least counts.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import cv2
import torch
from scoreboard import Scoreboard, at_least_one, ended

from benchmarks.ingest import source
from benchmarks.loading import LEAST_OF_LIMIT, TIMES_PLAIN, VIEWS, Clips, Loading, measure_loading
from benchmarks.stepping import MOST_OVERHEAD, Stepping, measure_stages


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clips", type=at_least_one, default=8, metavar="N", help="of the corpus, evenly chosen (default: 8)"
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="DIR", help="one that stands, all its clips (default: ingest some)"
    )
    parser.add_argument("--items", type=at_least_one, default=96, metavar="N", help="per repeat (default: 96)")
    parser.add_argument("--repeat", type=at_least_one, default=3, metavar="N", help="measure N times (default: 3)")
    parser.add_argument("--steps", type=at_least_one, default=40, metavar="N", help="of each stage (default: 40)")
    parser.add_argument("--only", choices=("loader", "step"), help="only one of the two")
    parser.add_argument("--preset", default="tiny", help="of the stages whose steps are measured (default: tiny)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    board = Scoreboard("bench-train")
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        clips = chosen(options.dataset, Path(made), options.clips)
        board.tell("clips", "measured on", f"{clips.name}, crops of {clips.sides} px")
        for name, view in VIEWS.items() if options.only != "step" else ():
            tell_loading(board, name, measure_loading(clips, view, options.items, options.repeat))
        for stage in measure_stages(clips, options.preset, options.steps) if options.only != "loader" else ():
            tell_stepping(board, stage)
    return board.close()


def chosen(dataset: Path | None, folder: Path, count: int) -> Clips:
    """The clips to measure on."""
    if dataset is None:
        return Clips.ingested(folder, count)
    root, _, name = source(argparse.Namespace(files=None, only=None))
    return Clips.standing(dataset, root, f"a dataset of {name}")


def tell_loading(board: Scoreboard, name: str, found: Loading) -> None:
    """Two lines with their targets, one without."""
    board.check(
        f"L-{name}",
        f"loader, {found.says}: of the limit",
        f"{found.limit / found.ours:.2f} ({1 / found.ours:.0f} of {1 / found.limit:.0f} samples per CPU-second)",
        f"at least {LEAST_OF_LIMIT}",
        found.limit >= LEAST_OF_LIMIT * found.ours,
    )
    board.check(
        f"P-{name}",
        f"loader, {found.says}: beside a plain Dataset",
        f"{found.plain / found.numbers:.1f} times ({1 / found.numbers:.0f} of pictures as float32 against "
        f"{1 / found.plain:.1f} samples per CPU-second; they differ by {found.apart:.1f} of 255 on average)",
        f"at least {TIMES_PLAIN} times",
        found.plain >= TIMES_PLAIN * found.numbers,
    )


def tell_stepping(board: Scoreboard, found: Stepping) -> None:
    board.check(
        f"S-{found.stage}",
        f"step of {found.stage} ({found.preset}, batch {found.batch}), over a bare loop",
        f"{100 * found.overhead:+.1f} % ({1000 * found.ours:.1f} ms, bare {1000 * found.bare:.1f} ms; "
        f"a checkpoint {1000 * found.checkpoint:.0f} ms)",
        f"at most {100 * MOST_OVERHEAD:.0f} %",
        found.overhead <= MOST_OVERHEAD,
    )


if __name__ == "__main__":
    sys.exit(ended(main))
