"""F1, F2, F11: writers that are killed, at random and between any two steps of a commit; two on one folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from faults.material import SHARDS, complete, digests, leftovers, lost_and_doubled, samples_of
from faults.row import Figure, reached
from forks import forking

from contracts.errors import Misuse
from contracts.files import lock

SEEDS = 5  # datasets, and writers at a time: much of theirs is waiting
FEW = 6  # shards of a folder where one shard is what matters
POINTS = ("opened", "written", "synced", "renamed")  # of each file's commit
FILES = ("tar", "ledger", "record")


def processes() -> AbstractContextManager[Any]:
    """Starts bare processes quickly: they are forked from a clean one that has imported the writer."""
    return forking("faults.material", "pyarrow.parquet", "faults.kills")


def kill_at_random(folder: Path, count: int) -> Figure:
    """F1: SIGKILL at a random moment of a run that writes many shards, then the same run again."""
    rng, seeds = random.Random(1), range(SEEDS)
    landed = attempts = same = lost = doubled = left = cut = 0
    with processes() as context:
        to_end(context, [(folder / f"whole-{seed}", seed) for seed in seeds])
        began = time.monotonic()  # of the second time: the first waits for what is forked from
        to_end(context, [(folder / f"again-{seed}", seed) for seed in seeds])
        seconds = time.monotonic() - began
        whole = [digests(folder / f"whole-{seed}") for seed in seeds]
        keys = [[key for number in range(SHARDS) for key, _ in samples_of(seed, number)[0]] for seed in seeds]
        while landed < count and attempts < 10 * count:
            wave = [(folder / f"killed-{attempts + seed}", seed) for seed in seeds]
            attempts += len(wave)
            writers = [context.Process(target=complete, args=job) for job in wave]
            hit = [job for job, died in zip(wave, killed(writers, rng, seconds)) if died][: count - landed]
            landed += len(hit)
            reached(landed, count)
            cut += sum(leftovers(dataset) for dataset, _ in hit)
            to_end(context, hit)
            for dataset, seed in hit:
                same += digests(dataset) == whole[seed]
                missing, twice = lost_and_doubled(dataset, keys[seed])
                lost, doubled, left = lost + missing, doubled + twice, left + leftovers(dataset)
            for dataset, _ in wave:
                shutil.rmtree(dataset, ignore_errors=True)
    said = f"lost {lost}, doubled {doubled}, byte-identical {same}/{landed}, leftover temporaries {left}"
    return Figure(
        f"{said} ({attempts} attempts, {cut} files cut)", landed == same == count and not (lost or doubled or left)
    )


def to_end(context: Any, jobs: list[tuple[Any, ...]]) -> None:
    """Run ``complete`` for all ``jobs`` at once, each in a process of its own."""
    writers = [context.Process(target=complete, args=job) for job in jobs]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


def killed(writers: list[Any], rng: random.Random, seconds: float) -> list[bool]:
    """Start ``writers`` and kill each at a random moment within ``seconds``: which of them that found at work."""
    for writer in writers:
        writer.start()
    began, alive = time.monotonic(), {}
    for moment, writer in sorted(((rng.uniform(0, seconds), writer) for writer in writers), key=lambda each: each[0]):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        alive[writer] = writer.is_alive()
        writer.kill()
    for writer in writers:
        writer.join()
    return [alive[writer] and writer.exitcode == -signal.SIGKILL for writer in writers]


def die_at(event: int, dataset: str, seed: int) -> None:
    """Make the shards, and die of SIGKILL at commit event number ``event``: four to a file, twelve to a shard."""
    opened, replaced, synced, seen = Path.open, Path.replace, os.fsync, 0

    def now() -> None:
        nonlocal seen
        if seen == event:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    def open_file(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = opened(path, mode, *rest, **more)
        if mode == "wb":
            now()
        return file

    def replace(path: Path, target: Any) -> Any:
        now()
        return replaced(path, target)

    def sync(handle: int) -> None:
        now()
        synced(handle)

    Path.open, Path.replace, os.fsync = open_file, replace, sync  # type: ignore[method-assign,assignment]
    complete(Path(dataset), seed, FEW)


def kill_between_steps(folder: Path, count: int) -> Figure:
    """F2: SIGKILL at each of the twelve steps by which a shard becomes visible, then the same run again."""
    rng, same, died = random.Random(2), 0, 0
    steps = len(FILES) * len(POINTS)
    with processes() as context:
        to_end(context, [(folder / f"whole-{seed}", seed, FEW) for seed in range(SEEDS)])
        whole = [digests(folder / f"whole-{seed}") for seed in range(SEEDS)]
        for first in range(0, count, SEEDS):
            wave = [(folder / f"killed-{trial}", trial % SEEDS) for trial in range(first, min(count, first + SEEDS))]
            events = [steps * rng.randrange(FEW) + trial % steps for trial in range(first, first + len(wave))]
            writers = [
                context.Process(target=die_at, args=(event, str(dataset), seed))
                for event, (dataset, seed) in zip(events, wave)
            ]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
                died += writer.exitcode == -signal.SIGKILL
            to_end(context, [(*job, FEW) for job in wave])
            same += sum(digests(dataset) == whole[seed] and not leftovers(dataset) for dataset, seed in wave)
            reached(first + len(wave), count)
    return Figure(f"{same}/{count} identical, {died} died at {min(count, steps)} steps", same == died == count)


def hold(dataset: str, seed: int, ready: Any) -> None:
    """Write some shards, then stand still, the lock held."""
    folder = Path(dataset)
    complete(folder, seed, FEW // 2)
    with lock(folder):
        ready.set()
        time.sleep(600)


def two_at_once(folder: Path, count: int) -> Figure:
    """F11: a second run on the same folder while the first holds it, then after the first was killed."""
    complete(folder / "whole", 0, FEW)
    whole = digests(folder / "whole")
    named = same = 0
    slowest = 0.0
    with processes() as context:
        for trial in range(count):
            dataset, ready = folder / f"both-{trial}", context.Event()
            holder = context.Process(target=hold, args=(str(dataset), 0, ready))
            holder.start()
            assert ready.wait(60)
            before = digests(dataset)
            try:
                complete(dataset, 0, FEW)
            except Misuse as error:
                named += f"locked by process {holder.pid}:" in str(error) and digests(dataset) == before
            holder.kill()
            began = time.monotonic()
            while True:
                try:
                    with lock(dataset):
                        break
                except Misuse:
                    time.sleep(0.01)
            slowest = max(slowest, time.monotonic() - began)
            holder.join()
            complete(dataset, 0, FEW)
            same += digests(dataset) == whole
            reached(trial + 1, count)
    said = (
        f"second run refused, holder named {named}/{count}; identical {same}/{count}; slowest takeover {slowest:.2f} s"
    )
    return Figure(said, named == same == count and slowest < 2)
