"""F1, F3, F5, F11 again, through the command: ``voxface ingest`` on real clips, Prefect and Ray included."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from faults.disks import fill, small_disk, whole_and_accounted
from faults.material import digests, leftovers, record_clips, until
from faults.row import MARK, Figure, kill_marked, marked
from faults.sources import make_pending

from preprocessing.corpora import read_manifest
from preprocessing.plan import plan_dataset

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 5
CHAIN = 4  # interruptions of one dataset before a run is let go to its end
LONGEST_S = 600.0  # of one run


@dataclass
class Ingest:
    """A folder of clips, what becomes of them in an unbroken run, and the command that makes it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manifest = record_clips(self.folder / "clips", CLIPS)
        self.mark = secrets.token_hex(8)
        (self.folder / "r").mkdir()
        (self.folder / "params.yaml").write_text("ingest:\n  rows_per_shard: 1\n")
        plan_dataset(self.folder / "whole", read_manifest(self.manifest, self.root), self.root, rows_per_shard=1)
        make_pending(self.folder / "whole", self.root)
        self.whole = digests(self.folder / "whole")

    @property
    def root(self) -> Path:
        return self.manifest.parent

    def start(self, dataset: Path) -> subprocess.Popen[str]:
        """Start the command in a process group of its own."""
        options = {"manifest": self.manifest, "out": dataset, "work": self.folder / "work", "workers": 2}
        options["params"] = self.folder / "params.yaml"
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VOXFACE_"))}
        own = {MARK: self.mark, "RAY_TMPDIR": str(self.folder / "r"), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-m", "flows", "ingest", *words],
            env=inherited | own | self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, dataset: Path) -> tuple[int, str]:
        """Run the command to its end: exit code, and what it said on standard error."""
        process = self.start(dataset)
        try:
            return (process.wait(LONGEST_S), process.stderr.read() if process.stderr else "")
        finally:
            kill_marked(self.mark)

    def right(self, dataset: Path) -> bool:
        """Whether the dataset is what an unbroken run makes, and nothing else."""
        return digests(dataset) == self.whole and not leftovers(dataset)

    def moment(self, dataset: Path, process: subprocess.Popen[str], rng: random.Random) -> None:
        """Wait for some moment of the run: mostly one while shards are written."""
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0.2, 6.0))
            return
        before = len(digests(dataset)) if dataset.exists() else 0
        until(lambda: process.poll() is not None or len(list(dataset.glob("shard-*"))) > before, LONGEST_S)
        time.sleep(rng.uniform(0.0, 1.0))


@contextmanager
def ingesting(folder: Path, *, server: bool = False) -> Iterator[Ingest]:
    """Clips and the command; ``server``: one standing Prefect server for all runs. No process is left afterwards."""
    ingest = Ingest(folder)
    try:
        if server:
            ingest.environment["PREFECT_API_URL"] = prefect_server(folder, ingest.mark + "-server")
        yield ingest
    finally:
        kill_marked(ingest.mark)
        kill_marked(ingest.mark + "-server")


def prefect_server(folder: Path, mark: str) -> str:
    """Start Prefect's server on a free port; its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {MARK: mark, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    subprocess.Popen(
        [sys.executable, *words], env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def answers() -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).status == 200
        return False

    if not until(answers, 120):
        raise RuntimeError("Prefect's server does not answer")
    return f"http://127.0.0.1:{port}/api"


def interrupted(ingest: Ingest, count: int, act: Callable[[subprocess.Popen[str], Path], bool]) -> tuple[int, int, int]:
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
        code, _ = ingest.run(dataset)
        completed += 1
        right += code == 0 and ingest.right(dataset)
    return landed, completed, right


def kill_ingest(folder: Path, count: int) -> Figure:
    """F1: the command's whole tree of processes gets SIGKILL at some moment; then the same command again."""
    rng, cut = random.Random(11), 0
    with ingesting(folder, server=count > CHAIN) as ingest:

        def kill(process: subprocess.Popen[str], dataset: Path) -> bool:
            nonlocal cut
            ingest.moment(dataset, process, rng)
            alive = process.poll() is None
            kill_marked(ingest.mark)
            cut += leftovers(dataset)
            return alive and process.wait() == -signal.SIGKILL

        landed, completed, right = interrupted(ingest, count, kill)
    said = f"{landed} kills landed ({cut} files cut); identical after them {right}/{completed} datasets"
    return Figure(said, landed == count and completed == right > 0)


def stop_ingest(folder: Path, count: int) -> Figure:
    """F3: SIGTERM to the command, or Ctrl-C (SIGINT to its process group), in turn."""
    rng, codes, recorded, kept, orphans = random.Random(3), 0, 0, 0, 0
    seconds: list[float] = []
    with ingesting(folder, server=count > CHAIN) as ingest:

        def stop(process: subprocess.Popen[str], dataset: Path) -> bool:
            nonlocal codes, recorded, kept, orphans
            ingest.moment(dataset, process, rng)
            if process.poll() is not None:
                return False
            number = (signal.SIGTERM, signal.SIGINT)[len(seconds) % 2]
            began = time.monotonic()
            if number == signal.SIGTERM:
                process.terminate()
            else:
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            seconds.append(time.monotonic() - began)
            ended = process.returncode if process.returncode is not None else 0  # 0: it hangs
            # a negative status: before the command had begun to listen
            codes += ended in (128 + number, -number)
            orphans += not until(lambda: not marked(ingest.mark), 3)
            kill_marked(ingest.mark)
            record = ingest.folder / "work" / "runs"
            told = [json.loads(path.read_bytes()) for path in record.glob(f"*-{process.pid}.json")]
            recorded += ended < 0 or [each["exit_code"] for each in told] == [128 + number]
            there = digests(dataset) if dataset.exists() else {}
            kept += there.items() <= ingest.whole.items()
            return True

        landed, completed, right = interrupted(ingest, count, stop)
    said = f"exit code 143 or 130 {codes}/{landed}, slowest exit {max(seconds, default=0):.1f} s, "
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
                code = process.wait(LONGEST_S)
                said = process.stderr.read() if process.stderr else ""
                told += code == 75 and "NO_SPACE" in said and str(dataset) in said
                whole += whole_and_accounted(dataset) and digests(dataset).items() < ingest.whole.items()
                filler.unlink()
                right += ingest.run(dataset)[0] == 0 and ingest.right(dataset)
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
            code = second.wait(LONGEST_S)
            said = second.stderr.read() if second.stderr else ""
            refused += code == 2 and f"is locked by process {first.pid}:" in said
            right += first.wait(LONGEST_S) == 0 and ingest.right(dataset)
    return Figure(
        f"second refused, the first named {refused}/{count}; the first undisturbed {right}/{count}",
        refused == right == count,
    )
