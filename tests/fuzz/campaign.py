"""``make fuzz``: mutated media files, shards and manifests; nothing crashes, hangs, or writes where it should not.

``python tests/fuzz/campaign.py --count 200`` is a quick one; ``--seed 0 --only media:123`` tries one case again and
keeps its file; ``--resume`` goes on where an interrupted campaign of the same seed stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from fuzz import manifests, media, shards
from scoreboard import Scoreboard

KINDS: dict[str, ModuleType] = {"media": media, "shard": shards, "manifest": manifests}
WORKERS = 2
DEADLINE_S = 60.0  # of a case, on a machine that may be shared; a usual one takes a fraction of a second
MEMORY = 8 << 30  # address space of a worker: what would take more fails, and is told
UNCLASSIFIED = 0.01
TOLD = 20  # faults printed


def prepare(folder: Path) -> None:
    """The valid files of every kind."""
    for kind, module in KINDS.items():
        if not (folder / kind).exists():
            making = folder / f"{kind}.new"
            shutil.rmtree(making, ignore_errors=True)
            module.prepare(making)
            making.rename(folder / kind)


def case(kind: str, number: int, seed: int, seeds: Path, place: Path, tools: Any) -> str:
    """Make and run one case in ``place``: how it ended; INTERNAL where it ended in no way of ours."""
    shutil.rmtree(place, ignore_errors=True)
    for name in ("root", "cwd", "tmp"):
        (place / name).mkdir(parents=True)
    rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
    name = KINDS[kind].make(rng, seeds / kind, place / "root")
    os.chdir(place / "cwd")
    os.environ["TMPDIR"] = tempfile.tempdir = str(place / "tmp")
    before = _tree(place)
    try:
        ended = str(KINDS[kind].run(name, place / "root", tools))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        ended = f"INTERNAL {type(error).__name__}: {str(error)[:160]!r} at {Path(where.filename).name}:{where.lineno}"
    after = {path: mark for path, mark in _tree(place).items() if not path.startswith("root/out")}
    return ended if after == before else f"OUTSIDE {sorted(set(after.items()) ^ set(before.items()))[:3]}"


def _tree(place: Path) -> dict[str, tuple[int, int]]:
    """Every file of the place, and what stands beside it: a name that climbs would show there."""
    found = {}
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            found[path.relative_to(place).as_posix()] = (status.st_size, status.st_mtime_ns)
    for top in (place.parent, Path("/"), Path("/tmp")):
        found |= {f"{top} {name}": (0, 0) for name in os.listdir(top) if "escaped" in name or "canary" in name}
    return found


def serve(pipe: Connection, seed: int, seeds: Path, place: Path) -> None:
    """A worker: cases in, endings out."""
    from preprocessing.step import Tools

    logging.disable(logging.WARNING)
    os.dup2(os.open(place.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)  # libraries talk much
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tools = Tools()
    while (job := pipe.recv()) is not None:
        pipe.send(case(*job, seed, seeds, place, tools))


class Worker:
    """A process, the case that it works on, and since when."""

    def __init__(self, number: int, seed: int, seeds: Path, folder: Path) -> None:
        self._start = (seed, seeds, folder / f"worker{number}")
        self.job: tuple[str, int] | None = None
        self.since = 0.0
        self._spawn()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *self._start), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, job: tuple[str, int]) -> None:
        self.job, self.since = job, time.monotonic()
        self.pipe.send(job)

    def take(self) -> str:
        """How its case ended; another process stands ready where this one died."""
        try:
            return str(self.pipe.recv())
        except EOFError:
            self.process.join()
            status = self.process.exitcode
            self._spawn()
            return f"CRASH exit status {status}"

    def end(self) -> str:
        """Stop a case that does not end."""
        self.process.kill()
        self.process.join()
        self._spawn()
        return "HANG"

    def close(self) -> None:
        self.process.kill()
        self.process.join()


def campaign(jobs: list[tuple[str, int]], seed: int, folder: Path, done: dict[str, str], log: Path) -> dict[str, str]:
    """Run ``jobs``; ``done`` and ``log`` take each ending as it comes."""
    prepare(folder)
    workers = [Worker(number, seed, folder, folder) for number in range(WORKERS)]
    waiting = [job for job in jobs if f"{job[0]}:{job[1]}" not in done][::-1]
    todo, finished, began, told = len(waiting), 0, time.monotonic(), 0.0
    try:
        with log.open("a") as file:
            while waiting or any(worker.job for worker in workers):
                for worker in workers:
                    if waiting and worker.job is None:
                        worker.give(waiting.pop())
                ready = wait([worker.pipe for worker in workers if worker.job], timeout=1.0)
                for worker in workers:
                    late = worker.job is not None and time.monotonic() - worker.since > DEADLINE_S
                    if worker.job is None or not (worker.pipe in ready or late):
                        continue
                    name = f"{worker.job[0]}:{worker.job[1]}"
                    done[name] = worker.take() if worker.pipe in ready else worker.end()
                    file.write(json.dumps([name, done[name]]) + "\n")
                    file.flush()
                    worker.job, finished = None, finished + 1
                if time.monotonic() - told > 2 and finished:
                    told = time.monotonic()
                    left = (told - began) / finished * (todo - finished)
                    print(f"\r{finished} of {todo}, about {left:.0f} s left   ", end="", file=sys.stderr, flush=True)
    finally:
        for worker in workers:
            worker.close()
    print("\r", end="", file=sys.stderr)
    return done


def tell(board: Scoreboard, kind: str, done: dict[str, str], seed: int) -> None:
    """The line of one kind, and each fault with the way to try it again."""
    mine = {name: ended for name, ended in done.items() if name.startswith(f"{kind}:")}
    if not mine:
        return
    words = Counter(ended.split()[0] for ended in mine.values())
    bad = {word: words.pop(word, 0) for word in ("CRASH", "HANG", "OUTSIDE", "INTERNAL")}
    told = ", ".join(f"{word} {count}" for word, count in words.most_common(6))
    figure = (
        f"{len(mine)} cases: crashes {bad['CRASH']}, hangs {bad['HANG']}, outside {bad['OUTSIDE']}, "
        f"unclassified {bad['INTERNAL']} ({bad['INTERNAL'] / len(mine):.2%}); {told}"
    )
    held = not (bad["CRASH"] or bad["HANG"] or bad["OUTSIDE"]) and bad["INTERNAL"] < UNCLASSIFIED * len(mine)
    board.check(kind, f"mutated {kind}", figure, f"0, 0, 0, < {UNCLASSIFIED:.0%}", held)
    faults = {name: ended for name, ended in mine.items() if ended.split()[0] in bad}
    for name, ended in list(faults.items())[:TOLD]:
        print(f"              --seed {seed} --only {name}: {ended}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one case, as media:123, or one kind")
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    work = Path(os.environ.get("VOXFACE_WORK", "work")).resolve() / "campaigns"
    work.mkdir(parents=True, exist_ok=True)
    kind, _, number = (asked.only or "").partition(":")
    if kind not in ("", *KINDS) or not (number or "0").isdecimal():
        print(f"voxface: --only: a case is named as media:123, a kind as {' or '.join(KINDS)}", file=sys.stderr)
        return 2
    if number:
        return _once(kind, int(number), asked.seed, work)
    log = work / f"fuzz-{asked.seed}.jsonl"
    if not asked.resume:
        log.unlink(missing_ok=True)
    done = dict(json.loads(line) for line in log.read_text().splitlines()) if log.exists() else {}
    jobs = [(name, i) for i in range(asked.count) for name in KINDS if kind in ("", name)]
    board = Scoreboard("fuzz")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        campaign(jobs, asked.seed, Path(folder), done, log)
    for name in KINDS:
        tell(board, name, done, asked.seed)
    return board.close()


def _once(kind: str, number: int, seed: int, work: Path) -> int:
    from preprocessing.step import Tools

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        prepare(Path(folder))
        place = work / f"fuzz-{kind}-{number}"
        print(case(kind, number, seed, Path(folder), place, Tools()))
        print(f"its files lie in {place / 'root'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
