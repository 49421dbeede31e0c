"""What ingestion costs beside the least it could: processor time of every part, on the same files in the same run.

    make bench
    VOXFACE_CORPUS=DIR make bench
    PYTHONPATH=.:tests python benchmarks/ingest.py --files 6 --repeat 3

Files are the clips of ``VOXFACE_CORPUS``, or of the demo corpus. Per file, one after the other and ``--repeat`` times:
**ours** is everything that a row costs (planning, hashing, probing, the decode, faces, mesh, crops, encoding, features,
a shard of its own); the **limit** is one decode to 25 RGB pictures a second (by ffmpeg's pipe or PyAV, whichever is
cheaper), one pass of the same mesh over each of these pictures as it comes, one encode of the stored frames at the same
side and quality, and nothing else. The **strict** limit, told beside it, lets the mesh see small crops of the stored
frames only, prepared for nothing (``limit.py``). All are user and system time of this process and its children; of
repeats the least counts, for each. Loading detectors and mesh, once per worker, is told apart.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
from scoreboard import Scoreboard

from benchmarks.limit import Limit, LimitBench
from benchmarks.meter import Meter, cpu_seconds
from contracts.manifest import Row
from contracts.plan import PlannedRow
from contracts.shards import Shard, open_shard
from preprocessing.build import IngestSettings
from preprocessing.corpora import read_manifest
from preprocessing.plan import plan_dataset
from preprocessing.shard import ShardTask, make_shard

TARGET_RATIO = 1.4
TARGET_RATE = 42.0  # source frames per CPU-second: twice what separate tools reach for the same outputs
SETTINGS = IngestSettings()


@dataclass
class Cost:
    """One file: the least that it cost us and the limit, processor seconds by part, and how many frames it has."""

    planned: PlannedRow
    ours: float = float("inf")
    limit: Limit | None = None
    parts: Counter[str] = field(default_factory=Counter)
    source_frames: int = 0
    stored_frames: int = 0
    pixels: int = 0  # of a picture


def main() -> int:
    """Measure, print, and return the exit code."""
    options = arguments()
    cv2.setNumThreads(1)
    if options.worker:
        return worker(Path(options.worker[0]), Path(options.worker[1]))
    root, rows, name = source(options)
    profile, board = cProfile.Profile() if options.profile else None, Scoreboard("bench")
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        dataset, meter = Path(made), Meter()
        plan_dataset(dataset / "first", rows[:1], root)  # imports what planning needs
        with meter.on():
            planned = [row for row in plan_dataset(dataset, rows, root, rows_per_shard=1) if row.reason is None]
        costs = [Cost(row) for row in planned]
        bench = LimitBench()
        ingest(dataset, root, planned[0])  # loads detectors and mesh
        for repeat in range(options.repeat):
            for number, cost in enumerate(costs):
                say(f"{repeat * len(costs) + number + 1}/{options.repeat * len(costs)}  {cost.planned.values.file}")
                measure(cost, bench, dataset, root, profile)
        heaviest = max(costs, key=lambda cost: cost.pixels * cost.source_frames)
        started = start_up(heaviest, root)
    say("")
    for cost in costs:  # planning read every file once, too
        share = 1 / len(costs)
        cost.ours += meter.total * share
        cost.parts.update({part: seconds * share for part, seconds in meter.seconds.items()})
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    if options.each:
        for cost in sorted(costs, key=lambda cost: cost.ours / cost.limit.seconds if cost.limit else 0.0):
            assert cost.limit is not None
            most = ", ".join(f"{part} {seconds:.2f}" for part, seconds in cost.parts.most_common(5))
            ratio = f"{cost.ours:6.2f} s {cost.limit.seconds:6.2f} s {cost.ours / cost.limit.seconds:6.2f}"
            print(f"{ratio}  {cost.planned.values.file} ({most})")
    return tell(board, name, costs, options.repeat, started)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, metavar="N", help="only N of the clips, evenly chosen")
    parser.add_argument("--only", metavar="TEXT", help="only the clips that have TEXT in their names")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="measure every file N times (default: 1)")
    parser.add_argument("--each", action="store_true", help="also a line per file")
    parser.add_argument("--profile", action="store_true", help="also list Python's functions by their own time")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def source(options: argparse.Namespace) -> tuple[Path, list[Row], str]:
    """Folder and rows to measure on, and what they are called."""
    real = os.environ.get("VOXFACE_CORPUS")
    root = Path(real) if real else made_demo()
    rows = [row for row in read_manifest(root / ("corpus.csv" if real else "manifest.csv"), root)]
    clips = [row for row in rows if isinstance(row, Row) and row.kind == "clip"]
    clips = [row for row in clips if row.extra["group" if real else "expected"] == ("clips" if real else "kept")]
    clips = [row for row in clips if (options.only or "") in row.file]
    if options.files and options.files < len(clips):
        clips = [clips[i * len(clips) // options.files] for i in range(options.files)]
    if not clips:
        sys.exit(f"{root}: no clip has {options.only!r} in its name")
    return root, clips, f"{len(clips)} clips of {'VOXFACE_CORPUS' if real else 'the demo corpus'}"


def made_demo() -> Path:
    """The demo corpus in the work folder, made where it is missing."""
    from preprocessing.demo.corpus import make_demo_corpus

    return make_demo_corpus(Path(os.environ.get("VOXFACE_WORK", "work")) / "demo").parent


def ingest(dataset: Path, root: Path, row: PlannedRow) -> Shard:
    """Build the row's shard as a worker of ingestion does."""
    task = ShardTask(dataset, root, row.shard, [row], SETTINGS, again=frozenset({row.key}))
    for _ in make_shard(task):
        pass
    shard = open_shard(dataset, row.shard)
    assert shard is not None
    return shard


def measure(cost: Cost, bench: LimitBench, dataset: Path, root: Path, profile: cProfile.Profile | None) -> None:
    """Ours, then the limit, on the file of ``cost``."""
    meter = Meter()
    before = cpu_seconds()
    with meter.on():
        if profile is not None:
            profile.enable()
        shard = ingest(dataset, root, cost.planned)
        if profile is not None:
            profile.disable()
    spent = cpu_seconds() - before
    if spent < cost.ours:
        cost.ours, cost.parts = spent, meter.seconds
    lines = shard.ledger().to_pylist()
    row = next(line for line in lines if line["level"] == "row")
    cost.source_frames, cost.pixels = (
        row["source_frames"] or 0,
        (row["source_width"] or 0) * (row["source_height"] or 0),
    )
    cost.stored_frames = sum(line["frames"] for line in lines if line["level"] == "span" and line["state"] == "kept")
    frames = [shard.read(key)["frames"] for key in shard.record.keys]
    limit = bench.measure(root / cost.planned.values.file, frames, SETTINGS.jpeg_quality)
    cost.limit = limit if cost.limit is None else limit.least(cost.limit)


def start_up(heaviest: Cost, root: Path) -> dict[str, float]:
    """Processor seconds a worker spends before its first row, and its peak memory (MB) before and with one file."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(heaviest.planned.model_dump_json())
        file.flush()
        argv = [sys.executable, __file__, "--worker", file.name, str(root)]
        found: dict[str, float] = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
    return found


def worker(row: Path, root: Path) -> int:
    """A worker process of its own with one row."""
    from preprocessing.shard import _tools

    planned = PlannedRow.model_validate_json(row.read_bytes())
    tools = _tools()
    tools.mesh  # noqa: B018 (loads it)
    tools.finder._hog  # noqa: B018
    found = {"seconds": cpu_seconds(), "loaded_mb": peak_mb()}
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        ingest(Path(made), root, planned)
    sys.stdout.write(json.dumps(found | {"peak_mb": peak_mb()}))
    return 0


def peak_mb() -> float:
    """Of this process. ``getrusage`` would count what its parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def tell(board: Scoreboard, name: str, costs: list[Cost], repeat: int, started: dict[str, float]) -> int:
    """Print the table of parts and the lines with their targets; return the exit code."""
    stored, frames = sum(cost.stored_frames for cost in costs), sum(cost.source_frames for cost in costs)
    ours = sum(cost.ours for cost in costs)
    limits = [cost.limit for cost in costs if cost.limit is not None]
    limit, strict = sum(each.seconds for each in limits), sum(each.strict for each in limits)
    parts: Counter[str] = Counter()
    for cost in costs:
        parts.update(cost.parts)
    print(f"{name}, {frames} source frames, {stored} stored; least of {repeat}; ms per stored frame")
    print(f"{'part':<10}{'ours':>8}{'limit':>8}{'strict':>8}")
    least = {part: sum(getattr(each, part) for each in limits) for part in ("decode", "mesh", "small", "encode")}
    for part, seconds in parts.most_common():
        others = (least[part], least["small" if part == "mesh" else part]) if part in least else ()
        beside = "".join(f"{1000 * seconds / stored:8.2f}" for seconds in others)
        print(f"{part:<10}{1000 * seconds / stored:8.2f}{beside}")
    print(f"{'sum':<10}" + "".join(f"{1000 * seconds / stored:8.2f}" for seconds in (ours, limit, strict)))
    board.check(
        "ratio",
        f"{name}: ours over one decode, one mesh pass over each frame, one encode",
        f"{ours / limit:.2f} ({ours:.1f} s over {limit:.1f} s of processor time)",
        f"at most {TARGET_RATIO}",
        ours <= TARGET_RATIO * limit,
    )
    board.tell(
        "strict",
        "ours over the strict limit: the mesh over prepared crops of stored frames only",
        f"{ours / strict:.2f} ({ours:.1f} s over {strict:.1f} s)",
    )
    board.check(
        "rate",
        "source frames per CPU-second",
        f"{frames / ours:.1f}",
        f"above {TARGET_RATE:g}",
        frames > TARGET_RATE * ours,
    )
    cheaper = sum(each.bound < each.piped for each in limits)
    board.tell(
        "decode", "the limit's decode", f"PyAV cheaper for {cheaper} of {len(limits)} files, ffmpeg for the rest"
    )
    worst = max(costs, key=lambda cost: cost.ours / cost.limit.seconds if cost.limit else 0.0)
    assert worst.limit is not None
    board.tell(
        "worst", "largest ratio of one file", f"{worst.ours / worst.limit.seconds:.2f}, {worst.planned.values.file}"
    )
    board.tell("start", "once per worker, not counted above", f"{started['seconds']:.1f} s of processor time")
    board.tell(
        "memory",
        "peak of a worker on the largest file",
        f"{started['peak_mb']:.0f} MB ({started['loaded_mb']:.0f} MB once loaded)",
    )
    return board.close()


def say(text: str) -> None:
    """One line of progress, written over the last."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")


if __name__ == "__main__":
    sys.exit(main())
