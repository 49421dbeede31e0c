"""Ingestion: one Ray task per shard, on whatever nodes there are, through the death of workers and nodes."""

from __future__ import annotations

import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.errors import Misuse, Transient
from contracts.files import commit_bytes, lock, sweep
from preprocessing.accounts import IngestReport, Shards, pending, planned_shards, report, verify
from preprocessing.build import IngestSettings
from preprocessing.copies import sweep_copies
from preprocessing.shard import RUN_FILE, ShardTask, Told, build_alone, make_shard
from preprocessing.sources import Sources

__all__ = ["IngestReport", "IngestSettings", "Observer", "ingest", "pending", "verify"]

TRIES_AGAIN = 2  # of a shard whose worker died; then the row that kills workers is searched for
SEARCHES = 3  # of one shard; where workers still die then, it is no row's doing
NODE_LOSSES = 20  # of one shard, before the cluster is given up
Progress = Callable[[int, int, str], None]

log = logging.getLogger(__name__)


class Observer:
    """Hears of the work as it goes; this one does not listen."""

    def begins(self, shards: int, rows: int) -> None:
        """So much is to be made."""

    def told(self, told: Told) -> None:
        """A worker has told of a row, or of a commit. A shard that is lost afterwards is told of again."""

    def committed(self, rows: list[Told]) -> None:
        """A shard stands; it holds these."""

    def lost_shard(self, why: str) -> None:
        """A shard's work was lost with its worker (``worker``) or its node (``node``), and begins again."""


@dataclass
class _Making:
    """A shard being made: its task's stream, and what it has told."""

    number: int
    stream: Any
    rows: list[Told] = field(default_factory=list)


class _Run:
    """Shards on their way through the cluster."""

    def __init__(self, tasks: Iterable[ShardTask], workers: int | None, observer: Observer) -> None:
        self.tasks = {task.number: task for task in tasks}
        self.workers = workers
        self.observer = observer
        self.waiting = list(self.tasks)
        self.going: dict[Any, _Making] = {}
        self.rows_done = 0
        self.frames = 0
        self.deaths: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()
        self.searches: Counter[int] = Counter()
        self.crashed: defaultdict[int, frozenset[str]] = defaultdict(frozenset)

    def make_all(self, progress: Progress | None) -> None:
        """Make every shard. Raises what a task raised, and ``Transient`` where workers or nodes die without end."""
        import ray

        total = sum(len(task.rows) for task in self.tasks.values())
        self.observer.begins(len(self.tasks), total)
        try:
            with _interruptible():
                while self.waiting or self.going:
                    while self.waiting and len(self.going) < self._width():
                        self._start(self.waiting.pop(0))
                    ready, _ = ray.wait(list(self.going), timeout=1.0)
                    for stream in ready:
                        self._hear(stream)
                    if progress is not None:
                        done = self.rows_done + sum(len(making.rows) for making in self.going.values())
                        progress(done, total, f"{len(self.going)} shards in work")
        finally:
            for stream in self.going:
                ray.cancel(stream, force=True)

    def _width(self) -> int:
        """Shards in work at a time: as many as workers are wanted, or as the cluster has processors now."""
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)) if self.workers is None else self.workers)

    def _start(self, number: int) -> None:
        import ray

        # a task that Ray runs again would hide what its worker died of: whom to blame is decided here
        options = {"num_cpus": 1, "num_returns": "streaming", "max_retries": 0, "scheduling_strategy": "SPREAD"}
        task = self.tasks[number]
        told = ShardTask(**{**task.__dict__, "crashed": self.crashed[number]})
        stream = ray.remote(**options)(make_shard).remote(told)
        self.going[stream] = _Making(number, stream)

    def _hear(self, stream: Any) -> None:
        """Take the next thing that a task tells, or how it ended."""
        import ray
        from ray.exceptions import (
            NodeDiedError,
            ObjectLostError,
            OutOfMemoryError,
            RayTaskError,
            WorkerCrashedError,
        )

        making = self.going[stream]
        try:
            told: Told = ray.get(next(stream))
        except StopIteration:
            del self.going[stream]
            self.rows_done += len(making.rows)
            self.frames += sum(row.frames for row in making.rows)
            self.observer.committed(making.rows)
        except RayTaskError as error:
            raise error.cause from None
        except (NodeDiedError, ObjectLostError) as error:
            self._node_lost(making, error)
        except (WorkerCrashedError, OutOfMemoryError) as error:
            self._worker_died(making, error)
        else:
            self.observer.told(told)
            if told.key:
                making.rows.append(told)

    def _node_lost(self, making: _Making, error: BaseException) -> None:
        """The shard begins again elsewhere; no row is to blame."""
        self._again(making, "node")
        self.losses[making.number] += 1
        log.warning("shard %d: its node is lost (%s); it begins again", making.number, _line(error))
        if self.losses[making.number] > NODE_LOSSES:
            raise Transient(f"shard {making.number} lost its node {NODE_LOSSES + 1} times: look after the cluster")

    def _worker_died(self, making: _Making, error: BaseException) -> None:
        """The shard begins again; after ``TRIES_AGAIN`` times, without the row on which workers die."""
        self._again(making, "worker")
        number = making.number
        self.deaths[number] += 1
        log.warning("shard %d: its worker died after %d rows (%s)", number, len(making.rows), _line(error))
        if self.deaths[number] <= TRIES_AGAIN:
            return
        if self.searches[number] == SEARCHES and not self.crashed[number]:
            raise Transient(f"workers keep dying on shard {number}, and on no row of it alone: look after the machine")
        self.searches[number] += 1
        self.deaths[number] = 0
        self.crashed[number] |= self._culprit(number, len(making.rows))

    def _again(self, making: _Making, why: str) -> None:
        del self.going[making.stream]
        self.waiting.insert(0, making.number)
        self.observer.lost_shard(why)

    def _culprit(self, number: int, told: int) -> frozenset[str]:
        """The key of the first row, of those not told of, on which a worker process dies alone, twice; or none.

        Tried on the node of this process, which lives as long as the run does.
        """
        import ray
        from ray.exceptions import OutOfMemoryError, WorkerCrashedError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        alone = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(build_alone)
        task = self.tasks[number]
        for row in task.rows[told:]:
            deaths = 0
            while row.key not in self.crashed[number] and row.reason is None and deaths < 2:
                try:
                    ray.get(alone.remote(row, task.data_root, task.settings))
                    break
                except (WorkerCrashedError, OutOfMemoryError):
                    deaths += 1
            if deaths == 2:
                log.error("%s: a worker died on it, twice", row.values.file)
                return frozenset({row.key})
        return frozenset()


def ingest(
    dataset: Path,
    data_root: Path | Sources,
    *,
    workers: int | None,
    settings: IngestSettings,
    progress: Progress | None = None,
    observer: Observer | None = None,
    again: frozenset[str] | None = None,
) -> IngestReport:
    """Make what is missing of the planned dataset, ``workers`` shards at a time; the caller has started Ray.

    ``workers`` ``None`` means as many as the cluster has processors. Bytes do not depend on it, nor on what was made
    before. ``again`` (keys of rows) makes those rows anew instead, and touches no shard without one of them.
    Raises ``Misuse`` where there is no plan, another run holds the dataset or a node does not see it, ``Transient``
    where the disk is full.
    """
    with lock(dataset):
        sweep(dataset)
        sweep_copies()
        shards = planned_shards(dataset)
        todo = pending(dataset, settings, shards) if again is None else _holding(shards, again)
        if not todo:
            return report(dataset, shards, 0, 0)
        mark = secrets.token_hex(16)
        commit_bytes(dataset / RUN_FILE, mark.encode())
        try:
            run = _Run(_tasks(dataset, data_root, shards, todo, settings, again, mark), workers, observer or Observer())
            run.make_all(progress)
        finally:
            sweep(dataset)  # of killed workers too, and of nodes given up that still write
        return report(dataset, shards, run.frames, len(todo))


def _tasks(
    dataset: Path,
    data_root: Path | Sources,
    shards: Shards,
    todo: list[int],
    settings: IngestSettings,
    again: frozenset[str] | None,
    mark: str,
) -> Iterable[ShardTask]:
    sources = Sources.of(data_root)
    for number in todo:
        keys = frozenset(row.key for row in shards[number] if again and row.key in again)
        yield ShardTask(dataset.resolve(), sources, number, shards[number], settings, again=keys, mark=mark)


def _holding(shards: Shards, keys: frozenset[str]) -> list[int]:
    """Numbers of the shards that hold one of ``keys``. Raises ``Misuse`` for a key that none holds."""
    unknown = keys - {row.key for rows in shards.values() for row in rows}
    if unknown:
        raise Misuse(f"{min(unknown)} is not in the plan of this dataset")
    return [number for number, rows in shards.items() if any(row.key in keys for row in rows)]


@contextmanager
def _interruptible() -> Iterator[None]:
    """A signal's exception that comes just as Ray answers is raised itself, not Python's complaint about it."""
    try:
        yield
    except SystemError as error:  # "returned a result with an exception set"
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
