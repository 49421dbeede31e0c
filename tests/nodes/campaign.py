"""``make nodes``: the same clips through one node and three, with workers and nodes killed: the same bytes each time.

    python tests/nodes/campaign.py [--quick]

Each case is ``voxface ingest --address HOST:PORT`` on a cluster that stands. The nodes are processes of this machine
that share its disk, which is also what real nodes must do (docs/operations.md).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.row import kill_marked
from faults.server import answering, start_server
from nodes import Nodes, nodes
from scoreboard import Scoreboard

CLIPS, SECONDS, ROWS_PER_SHARD = 12, 1.6, 2
LONGEST_S = 900.0  # of one case, on a machine that may be shared


@dataclass(frozen=True)
class Made:
    """What a case left behind."""

    digest: str
    seconds: float
    result: dict
    landed: bool = True
    nice: frozenset[int] = frozenset()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="fewer cases: one node with 1 and 2 workers, a lost node")
    quick = options.parse_args().quick
    board = Scoreboard("nodes")
    work, mark = Path(tempfile.mkdtemp(prefix="voxface-nodes-")), secrets.token_hex(8)
    try:
        os.environ["PREFECT_API_URL"] = start_server(work, mark)
        manifest = corpus(work)
        answering(os.environ["PREFECT_API_URL"])
        with nodes(1, cpus=4) as one:
            first = ingest(work, manifest, one.address, 1)
            told = f"{rows(first)}, digest {first.digest[:12]}, {first.seconds:.0f} s"
            board.check("N1", "one node, 1 worker", told, f"{CLIPS} rows kept", first.result["rows"]["kept"] == CLIPS)
            for workers in (2,) if quick else (2, 4):
                with case(board, f"N{workers}", f"one node, {workers} workers") as compare:
                    compare(first, ingest(work, manifest, one.address, workers))
            if not quick:
                with case(board, "N5", "one node, a worker killed", "worker") as compare:
                    made = disturbed(work, manifest, one, 2, 0, Nodes.kill_worker)
                    compare(first, made)
                    niceness(board, made)
        with nodes(3, cpus=1) as three:
            if not quick:
                with case(board, "N6", "three nodes") as compare:
                    compare(first, ingest(work, manifest, three.address, None))
                with case(board, "N7", "three nodes, a worker of one killed", "worker") as compare:
                    compare(first, disturbed(work, manifest, three, None, 1, Nodes.kill_worker))
            with case(board, "N8", "three nodes, one killed with its work", "node") as compare:
                compare(first, disturbed(work, manifest, three, None, 1, Nodes.lose))
    finally:
        kill_marked(mark)
        shutil.rmtree(work, ignore_errors=True)
    return board.close()


@contextmanager
def case(board: Scoreboard, id: str, says: str, lost: str = "") -> Iterator[Callable[[Made, Made], None]]:
    """Gives what compares a run with the first. A case that breaks is one missed; the others are still measured."""
    target = "same shard digests" + (", the kill landed on work, no row failed" if lost else "")

    def compare(first: Made, made: Made) -> None:
        same = made.digest == first.digest
        told = f"{rows(made)}, {'same' if same else 'OTHER'} digest {made.digest[:12]}, {made.seconds:.0f} s"
        held = same and made.result["rows"] == first.result["rows"]
        if lost:
            begun_again = made.result["shards_lost"].get(lost, 0)
            told += f", shards begun again: {made.result['shards_lost'] or 0}"
            held = held and made.landed and begun_again >= 1 and not made.result["rows"]["failed"]
        board.check(id, says, told, target, held)

    try:
        yield compare
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        board.check(id, says, f"{type(error).__name__}: {error}", target, False)


def corpus(work: Path) -> Path:
    """Demo clips, of which the manifest names ``CLIPS`` short spans."""
    folder = work / "demo"
    command(work, "demo-corpus", str(folder), "--speakers", "2")
    clips = sorted(path.relative_to(folder).as_posix() for path in (folder / "clips").glob("*.mp4"))
    manifest = folder / "spans.csv"
    with manifest.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["file", "id", "start_s", "end_s"])
        for number in range(CLIPS):
            start = round(0.1 * (number // len(clips)), 2)
            lines.writerow([clips[number % len(clips)], f"span-{number}", start, round(start + SECONDS, 2)])
    (work / "params.yaml").write_text(f"ingest: {{rows_per_shard: {ROWS_PER_SHARD}}}\n")
    return manifest


def start(work: Path, manifest: Path, address: str, workers: int | None) -> tuple[subprocess.Popen[str], Path]:
    """``voxface ingest`` into a new dataset."""
    dataset = Path(tempfile.mkdtemp(prefix="dataset-", dir=work))
    argv = ["ingest", "--manifest", str(manifest), "--out", str(dataset), "--address", address, "--json", "-q"]
    argv += ["--params", str(work / "params.yaml"), "--work", str(work / "work")]
    argv += [] if workers is None else ["--workers", str(workers)]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, dataset


def finish(process: subprocess.Popen[str], dataset: Path, began: float) -> Made:
    try:
        out, err = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
    if process.returncode != 0:
        raise RuntimeError(f"voxface ingest ended with {process.returncode}: {err[-2000:]}")
    return Made(digest(dataset), time.monotonic() - began, json.loads(out))


def ingest(work: Path, manifest: Path, address: str, workers: int | None) -> Made:
    began = time.monotonic()
    process, dataset = start(work, manifest, address, workers)
    return finish(process, dataset, began)


def disturbed(
    work: Path, manifest: Path, cluster: Nodes, workers: int | None, node: int, disturb: Callable[[Nodes, int], None]
) -> Made:
    """Ingest, and ``disturb`` the node while it has a shard in work."""
    began = time.monotonic()
    process, dataset = start(work, manifest, cluster.address, workers)
    landed = cluster.wait_for_work(node)
    time.sleep(1.0)  # into a row
    nice = frozenset(cluster.niceness(node))
    landed = landed and bool(cluster.working(node))
    disturb(cluster, node)
    made = finish(process, dataset, began)
    return Made(made.digest, made.seconds, made.result, landed, nice)


def niceness(board: Scoreboard, made: Made) -> None:
    own = os.nice(0)
    board.check(
        "N9", "niceness of workers", f"{sorted(made.nice)} under {own}", "that of the start", made.nice == {own}
    )


def rows(made: Made) -> str:
    counts = made.result["rows"]
    return f"{counts['read']} rows: {counts['kept']} kept"


def digest(dataset: Path) -> str:
    """Of all files of all shards; what killed writers left would be among them."""
    whole = hashlib.sha256()
    for path in sorted([*dataset.glob("shard-*"), *dataset.glob(".tmp-*")]):
        whole.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def command(work: Path, *arguments: str) -> None:
    argv = [sys.executable, "-m", "flows", *arguments, "-q", "--work", str(work / "work")]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
