"""``make bench-scale``: is the cost of a clip the same among 5000 as among 50, and is memory?

    python benchmarks/scale.py [--counts 50,500,5000] [--lines 200000] [--workers 2] [--corpus DIR]

Two parts. Clips: ``voxface ingest`` on so many different spans of ``SPAN_S`` of the demo corpus, each count into a new
dataset; CPU seconds per clip are those of the steps, the hashing and the commits in all workers, told by the workers
themselves (starting Ray and loading detectors cost the same whatever the count, and stand apart); memory is the peak
of any worker, and of the driver. Ledger: planning, verifying, reading and selecting on a dataset of ``--lines`` ledger
lines whose samples are a few bytes each; nothing is decoded.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoreboard import Scoreboard

SPAN_S = 0.6  # 15 frames
STEP_S = 0.02  # between the starts of spans of one file: no two are equal
FIXED = {"loading detectors", "planning", "starting Ray", "report"}  # paid once, by a worker or by the run
FLAT_COST, FLAT_MEMORY = 1.15, 1.10  # targets: a count over the smallest


@dataclass(frozen=True)
class Measured:
    """One count of clips."""

    clips: int
    cpu_per_clip: float
    fixed_cpu: float
    seconds: float
    worker_mb: float
    driver_mb: float


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--counts", default="50,500,5000", help="numbers of clips; the first is compared with")
    options.add_argument("--lines", type=int, default=200_000, help="ledger lines of the second part; 0 leaves it out")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--corpus", type=Path, help="a demo corpus that stands; otherwise one is made")
    given = options.parse_args()
    board = Scoreboard("bench-scale")
    work = Path(tempfile.mkdtemp(prefix="voxface-scale-"))
    try:
        counts = [int(count) for count in given.counts.split(",") if count]
        if counts:
            corpus = given.corpus or demo(work)
            measured = [ingest(work, corpus, count, given.workers) for count in counts]
            tell_clips(board, measured)
        if given.lines:
            tell_ledger(board, work, given.lines)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return board.close()


def demo(work: Path) -> Path:
    voxface(work, "demo-corpus", str(work / "demo"))
    return work / "demo"


def ingest(work: Path, corpus: Path, count: int, workers: int) -> Measured:
    """Ingest ``count`` spans into a dataset of its own."""
    manifest, dataset = work / f"spans-{count}.csv", work / f"dataset-{count}"
    spans(corpus, count, manifest)
    began = time.monotonic()
    result = voxface(
        work, "ingest", "--manifest", str(manifest), "--data-root", str(corpus), "--out", str(dataset),
        "--workers", str(workers), "--json",
    )  # fmt: skip
    seconds = time.monotonic() - began
    kept = result["rows"]["kept"]
    if kept < 0.98 * count:
        raise RuntimeError(f"only {kept} of {count} spans became samples: {result['rows']}")
    spent = {line["on"]: line["cpu_s"] for line in result["spent"]}
    shutil.rmtree(dataset)
    return Measured(
        count,
        sum(cpu for name, cpu in spent.items() if name not in FIXED) / count,
        sum(cpu for name, cpu in spent.items() if name in FIXED),
        seconds,
        result["worker_peak_mb"],
        result["driver_peak_mb"],
    )


def spans(corpus: Path, count: int, manifest: Path) -> None:
    """A manifest of ``count`` different spans, the files taking turns, so that every count has the same mixture."""
    clips = sorted((corpus / "clips").glob("*.mp4"))
    with manifest.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["file", "id", "start_s", "end_s"])
        for number in range(count):
            # golden ratio: starts spread over the first two seconds however few they are, none twice
            start = round((number // len(clips) * 0.618034) % 1.0 * 2.0 / STEP_S) * STEP_S
            start += (number // len(clips)) * 1e-4
            name = clips[number % len(clips)].relative_to(corpus).as_posix()
            lines.writerow([name, f"{name}-{number}", f"{start:.4f}", f"{start + SPAN_S:.4f}"])


def tell_clips(board: Scoreboard, measured: list[Measured]) -> None:
    first = measured[0]
    for now in measured:
        name = f"{now.clips} clips"
        pace = f"{now.seconds:.0f} s in all, {now.clips / now.seconds:.2f} clips/s"
        board.tell(f"S{now.clips}", name, f"{pace}; once per run and worker: {now.fixed_cpu:.1f} CPU s")
        cost, memory = now.cpu_per_clip / first.cpu_per_clip, now.worker_mb / first.worker_mb
        driver = now.driver_mb / first.driver_mb
        said = f"{now.cpu_per_clip:.3f} CPU s a clip, {cost:.2f} of that at {first.clips}"
        board.check(f"S{now.clips}c", name, said, f"at most {FLAT_COST}", cost <= FLAT_COST)
        said = f"workers peak at {now.worker_mb:.0f} MB, {memory:.2f} of that at {first.clips}"
        board.check(f"S{now.clips}w", name, said, f"at most {FLAT_MEMORY}", memory <= FLAT_MEMORY)
        said = f"driver peaks at {now.driver_mb:.0f} MB, {driver:.2f} of that at {first.clips}"
        board.check(f"S{now.clips}d", name, said, f"at most {FLAT_MEMORY}", driver <= FLAT_MEMORY)


def tell_ledger(board: Scoreboard, work: Path, lines: int) -> None:
    """Each command on the synthetic dataset in a process of its own: seconds and peak memory."""
    dataset = work / "ledger"
    measure(["make", str(dataset), str(lines)])
    for what in ("plan", "pending", "verify", "index", "select"):
        seconds, peak = measure([what, str(dataset), str(lines)])
        board.tell(f"L-{what}", f"{what}, {lines} ledger lines", f"{seconds:.1f} s, {peak:.0f} MB")


def measure(arguments: list[str]) -> tuple[float, float]:
    argv = [sys.executable, str(Path(__file__).with_name("ledger.py")), *arguments]
    ran = subprocess.run(argv, check=True, capture_output=True, text=True)
    found = json.loads(ran.stdout)
    return found["seconds"], found["peak_mb"]


def voxface(work: Path, *arguments: str) -> Any:
    """A command in a process of its own; what it printed as JSON."""
    argv = [sys.executable, "-m", "flows", *arguments, "-q", "--work", str(work / "work")]
    ran = subprocess.run(argv, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if ran.returncode:
        raise RuntimeError(f"voxface {arguments[0]} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return json.loads(ran.stdout) if "--json" in arguments else None


if __name__ == "__main__":
    sys.exit(main())
