"""F1, F3, F5, F11 again, through the command: ``voxface ingest`` on real clips, Prefect and Ray included."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from unittest import mock

import forks
from faults.commanded import Command
from faults.disks import fill, small_disk, whole_and_accounted
from faults.material import digests, leftovers, record_clips, until
from faults.row import MARK, WORK, Figure, kill_marked, marked, reached
from faults.server import STANDING, answering, start_server
from faults.sources import make_pending

from preprocessing.corpora import read_manifest
from preprocessing.plan import plan_dataset

CLIPS = 5
CHAIN = 5  # interruptions of one dataset before a run is let go to its end
LONGEST_S = 600.0  # of one run


class Ingest:
    """A folder of clips, what becomes of them in an unbroken run, and the command that makes it."""

    def __init__(self, folder: Path, context: Any, mark: str) -> None:
        self.folder, self._context, self.mark = folder, context, mark
        self._started = 0
        self.manifest = record_clips(folder / "clips", CLIPS)
        (folder / "params.yaml").write_text("ingest:\n  rows_per_shard: 1\n")
        plan_dataset(folder / "whole", read_manifest(self.manifest, self.root), self.root, rows_per_shard=1)
        make_pending(folder / "whole", self.root)
        self.whole = digests(folder / "whole")

    @property
    def root(self) -> Path:
        return self.manifest.parent

    def start(self, dataset: Path) -> Command:
        """Start the command."""
        options = {"manifest": self.manifest, "out": dataset, "work": self.folder / "work", "workers": 2}
        options["params"] = self.folder / "params.yaml"
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._started += 1
        return Command(self._context, ["ingest", *words], self.folder / f"said-{self._started}")

    def run(self, dataset: Path) -> int | None:
        """Run the command to its end: its exit code."""
        running = self.start(dataset)
        try:
            return running.wait(LONGEST_S)
        finally:
            self.kill()

    def left(self) -> set[int]:
        """Processes of the command that live: its own, Ray's, decoders."""
        return marked(self.mark) - {forks.server_process()}

    def kill(self) -> None:
        """SIGKILL to all of them, until none is left."""
        kill_marked(self.mark, forks.server_process())

    def right(self, dataset: Path) -> bool:
        """Whether the dataset is what an unbroken run makes, and nothing else."""
        return digests(dataset) == self.whole and not leftovers(dataset)

    def moment(self, dataset: Path, process: Command, rng: random.Random) -> None:
        """Wait for some moment of the run: mostly one while shards are written."""
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0.2, 6.0))
            return
        before = len(digests(dataset)) if dataset.exists() else 0
        until(lambda: process.poll() is not None or len(list(dataset.glob("shard-*"))) > before, LONGEST_S)
        time.sleep(rng.uniform(0.0, 1.0))


@contextmanager
def ingesting(folder: Path) -> Iterator[Ingest]:
    """Clips and the command, with a standing Prefect server. No process is left afterwards."""
    mark = secrets.token_hex(8)
    (folder / "r").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VOXFACE_"))}
    own = {MARK: mark, "RAY_TMPDIR": str(folder / "r"), WORK: str(folder / "work")}
    resource_tracker.ensure_running()  # of this process: it is not to end with the commands
    try:
        own["PREFECT_API_URL"] = os.environ.get(STANDING) or start_server(folder, f"{mark}-server")
        with mock.patch.dict(os.environ, inherited | own, clear=True), forks.forking("faults.loaded") as context:
            ingest = Ingest(folder, context, mark)
            answering(own["PREFECT_API_URL"])
            yield ingest
    finally:
        kill_marked(mark)
        kill_marked(f"{mark}-server")


def interrupted(ingest: Ingest, count: int, act: Callable[[Command, Path], bool]) -> tuple[int, int, int]:
    """Interrupt runs by ``act`` (which says whether it landed) until ``count`` have; let every fifth run end.

    Gives landed interruptions, datasets completed, and how many of these are right.
    """
    landed = completed = right = attempts = 0
    while landed < count and attempts < 5 * count + 5:
        dataset, here = ingest.folder / f"d{completed}", 0
        while here < CHAIN and landed < count:
            attempts += 1
            process = ingest.start(dataset)
            if not act(process, dataset):
                break  # the run ended first: the dataset is complete
            landed, here = landed + 1, here + 1
            reached(landed, count)
        code = ingest.run(dataset)
        completed += 1
        right += code == 0 and ingest.right(dataset)
    return landed, completed, right


def kill_ingest(folder: Path, count: int) -> Figure:
    """F1: the command's whole tree of processes gets SIGKILL at some moment; then the same command again."""
    rng, cut = random.Random(11), 0
    with ingesting(folder) as ingest:

        def kill(process: Command, dataset: Path) -> bool:
            nonlocal cut
            ingest.moment(dataset, process, rng)
            alive = process.poll() is None
            ingest.kill()
            cut += leftovers(dataset)
            return alive and process.wait(LONGEST_S) == -signal.SIGKILL

        landed, completed, right = interrupted(ingest, count, kill)
    said = f"{landed} kills landed ({cut} files cut); identical after them {right}/{completed} datasets"
    return Figure(said, landed == count and completed == right > 0)


def terminate_ingest(folder: Path, count: int) -> Figure:
    """F3: SIGTERM to the command."""
    return stop_ingest(folder, count, signal.SIGTERM, os.kill)


def break_ingest(folder: Path, count: int) -> Figure:
    """F3: Ctrl-C, which is SIGINT to all of the command's process group."""
    return stop_ingest(folder, count, signal.SIGINT, os.killpg)


def stop_ingest(folder: Path, count: int, number: int, send: Callable[[int, int], None]) -> Figure:
    """The command gets signal ``number`` by ``send`` at some moment; then the same command again."""
    rng, codes, recorded, kept, orphans = random.Random(number), 0, 0, 0, 0
    seconds: list[float] = []
    with ingesting(folder) as ingest:

        def stop(process: Command, dataset: Path) -> bool:
            nonlocal codes, recorded, kept, orphans
            ingest.moment(dataset, process, rng)
            if process.poll() is not None:
                return False
            began = time.monotonic()
            send(process.pid, number)
            ended = process.wait(60) or 0  # none: it hangs
            taken = time.monotonic() - began
            record = ingest.folder / "work" / "runs"
            told = [json.loads(path.read_bytes()) for path in record.glob(f"*-{process.pid}.json")]
            if [each["exit_code"] for each in told] == [0]:
                return False  # its work had ended
            seconds.append(taken)
            begun = any(record.glob(f"*-{process.pid}.log"))  # else it was not listening yet
            codes += ended == 128 + number or (ended == -number and not begun)
            orphans += not until(lambda: not ingest.left(), 3)
            ingest.kill()
            recorded += not begun or [each["exit_code"] for each in told] == [128 + number]
            there = digests(dataset) if dataset.exists() else {}
            kept += there.items() <= ingest.whole.items()
            return True

        landed, completed, right = interrupted(ingest, count, stop)
    said = f"exit code {128 + number} {codes}/{landed}, slowest exit {max(seconds, default=0):.1f} s, "
    said += f"record kept {recorded}/{landed}, "
    said += f"what stood is whole {kept}/{landed}, orphans {orphans}, resumed identical {right}/{completed}"
    held = landed == codes == recorded == kept == count and completed == right > 0 and not orphans
    return Figure(said, held and max(seconds) < 5)


def full_ingest(folder: Path, count: int) -> Figure:
    """F5: the dataset's disk fills up after the first shard."""
    told = whole = right = 0
    with ingesting(folder) as ingest:
        for trial in range(count):
            with small_disk(folder / f"disk-{trial}", 96 << 20) as disk:
                dataset = disk / "d"
                process = ingest.start(dataset)
                until(lambda: process.poll() is not None or any(dataset.glob("shard-*.json")), LONGEST_S)  # noqa: B023
                filler = fill(disk, 0)
                code, said = process.wait(LONGEST_S), process.said()
                told += code == 75 and "NO_SPACE" in said and str(dataset) in said
                whole += whole_and_accounted(dataset) and digests(dataset).items() < ingest.whole.items()
                filler.unlink()
                right += ingest.run(dataset) == 0 and ingest.right(dataset)
    said = f"exit 75 and NO_SPACE {told}/{count}, nothing partial visible {whole}/{count}, "
    said += f"resumed identical {right}/{count}"
    return Figure(said, told == whole == right == count)


def second_ingest(folder: Path, count: int) -> Figure:
    """F11: the same command a second time while the first is at work."""
    refused = right = 0
    with ingesting(folder) as ingest:
        for trial in range(count):
            dataset = folder / f"d{trial}"
            first = ingest.start(dataset)
            until(lambda: first.poll() is not None or any(dataset.glob("shard-*.tar")), LONGEST_S)  # noqa: B023
            second = ingest.start(dataset)
            code, said = second.wait(LONGEST_S), second.said()
            refused += code == 2 and f"is locked by process {first.pid}:" in said
            right += first.wait(LONGEST_S) == 0 and ingest.right(dataset)
    return Figure(
        f"second refused, the first named {refused}/{count}; the first undisturbed {right}/{count}",
        refused == right == count,
    )
