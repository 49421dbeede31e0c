"""F19: workers of a Ray Train group, and whole nodes, that are killed; the group begins again from a checkpoint."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults.row import Figure
from faults.row import reached as told
from faults.workers import ray
from faults_train.material import CODER, LONGEST_S, TOY, Kind, Workshop, apart, losses, reached, starts, workshop

from flows.cluster import cluster
from training.distributed import RESTARTS, train_system

SLOW = Kind("tones", "coder", TOY | {"pause": 0.03})  # time to be killed in
EVERY = int(TOY["checkpoint_every"])


@dataclass
class Ended:
    """What became of the trainings that were disturbed."""

    whole: Path  # an unbroken one
    trainings: int = 0
    landed: int = 0
    alike: int = 0
    difference: float = 0.0
    redone: list[int] = field(default_factory=list)  # steps, by kill
    seconds: list[float] = field(default_factory=list)  # from each kill to the next start

    def train(self, shop: Workshop, out: Path, killer: Killer) -> None:
        """One training to its end, and what is left of it."""
        killer.start()
        train_system(replace(shop.request(SLOW, out), only=["coder"]), lambda *_: None)
        killer.join(LONGEST_S)
        self.trainings += 1
        self.landed += len(killer.seconds)
        self.redone += killer.redone
        self.seconds += killer.seconds
        self.alike += losses(out, "coder") == losses(self.whole, "coder")
        self.difference = max(self.difference, apart(out, self.whole, "coder"))

    def figure(self, count: int) -> Figure:
        said = f"{self.landed} kills in {self.trainings} trainings; finished with the losses and weights of an "
        said += f"unbroken one {self.alike}/{self.trainings}, max difference {self.difference}; steps redone "
        said += f"{', '.join(map(str, self.redone))} of {EVERY} between checkpoints; back at work after "
        said += f"{sum(self.seconds) / max(1, self.landed):.0f} s on average"
        held = self.landed >= count and self.alike == self.trainings and self.difference == 0.0
        return Figure(said, held and max(self.redone, default=0) <= EVERY)


def kill_group(folder: Path, count: int) -> Figure:
    """F19: each training loses as many workers as its group may."""
    rng, ended = random.Random(19), Ended(folder / "whole")
    with workshop(folder) as shop, ray(folder):
        shop.run(CODER, ended.whole)
        while ended.landed < count and ended.trainings < count:
            out = folder / f"killed-{ended.trainings}"
            ended.train(shop, out, Killer(out, min(RESTARTS, count - ended.landed), rng, kill_worker))
            told(ended.landed, count)
    return ended.figure(count)


def kill_node(folder: Path, count: int) -> Figure:
    """F19: three nodes, of which two can train; the one that does goes dark in the middle of the stage."""
    from nodes.nodes import nodes

    rng, ended = random.Random(1919), Ended(folder / "whole")
    with workshop(folder) as shop:
        shop.run(CODER, ended.whole)
        for trial in range(count):
            with nodes(3, cpus=2, head=0) as three, cluster(three.address):
                out = folder / f"killed-{trial}"

                def lose(three=three) -> bool:  # type: ignore[no-untyped-def]
                    at_work = [node for node in three.training() if node]
                    for node in at_work[:1]:
                        three.lose(node)
                    return bool(at_work)

                ended.train(shop, out, Killer(out, 1, rng, lose))
            told(ended.landed, count)
    return ended.figure(count)


class Killer(threading.Thread):
    """Strikes, ``times`` times, at what trains, each time some steps after it began."""

    def __init__(self, out: Path, times: int, rng: random.Random, strike: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.out, self.times, self.rng, self.strike = out, times, rng, strike
        self.seconds: list[float] = []  # from each death to the next start
        self.redone: list[int] = []

    def run(self) -> None:
        for number in range(1, self.times + 1):
            if not self._until(lambda begun, number=number: begun == number):  # type: ignore[misc]
                return
            goal = starts(self.out, "coder")[-1] + self.rng.randint(1, 15)
            if not self._until(lambda _, goal=goal: reached(self.out, "coder") >= goal):  # type: ignore[misc]
                return
            if not self.strike():
                return
            died = time.monotonic()
            at = reached(self.out, "coder")
            if not self._until(lambda begun, number=number: begun > number):  # type: ignore[misc]
                return
            self.seconds.append(time.monotonic() - died)
            self.redone.append(at - starts(self.out, "coder")[-1])

    def _until(self, happened: Callable[[int], bool]) -> bool:
        """Wait for what is asked of the number of starts so far; whether it came."""
        ended = time.monotonic() + LONGEST_S
        while not (held := happened(len(starts(self.out, "coder")))) and time.monotonic() < ended:
            time.sleep(0.02)
        return held


def kill_worker() -> bool:
    """Kill -9 the oldest worker of Ray Train that descends from this process."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])

    def below(process: int) -> bool:
        return process == os.getpid() or (process in parents and below(parents[process]))

    workers = sorted(process for process, title in titles.items() if "RayTrainWorker" in title and below(process))
    for worker in workers[:1]:
        os.kill(worker, signal.SIGKILL)
    return bool(workers)
