"""Ingestion: one Ray task per shard, skipped where its record says that it is done."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from contracts.errors import Corrupt, Misuse
from contracts.files import lock, sweep
from contracts.plan import PLAN_FILE, PlannedRow, read_plan
from contracts.reasons import FailureCode
from contracts.settings import canonical_digest
from contracts.shards import Shard, ShardRecord, open_shard, read_shard, write_shard
from preprocessing.build import IngestSettings, Lines, Samples, build_row, failed, steps

TRIES_AGAIN = 2  # of a shard whose worker died; then the row that kills workers is searched for
Progress = Callable[[int, int, str], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestReport:
    """How the rows of a dataset ended, and what this run did for it."""

    read: int
    kept: int
    rejected: dict[str, int]
    failed: dict[str, int]
    frames_decoded: int  # source frames, by this run; 0 where everything was reused
    shards_made: int
    shards_reused: int


@dataclass
class _Making:
    """A shard being made: its task's stream of rows done."""

    number: int
    stream: Any
    done: int = 0
    frames: int = 0


@dataclass
class _Run:
    """What all tasks of a run share."""

    dataset: Path
    data_root: Path
    settings: IngestSettings
    shards: dict[int, list[PlannedRow]]
    crashed: dict[int, frozenset[str]] = field(default_factory=dict)


def rows_digest(rows: list[PlannedRow]) -> str:
    """Identity of the planned rows of a shard."""
    return canonical_digest([row.model_dump(mode="json") for row in rows])


def pending(dataset: Path, settings: IngestSettings) -> list[int]:
    """Numbers of the shards to make: those without a fitting record. Needs the plan, and nothing heavy."""
    digest = settings.steps_digest
    return [number for number, rows in _shards(dataset).items() if not _done(dataset, number, rows, digest)]


def ingest(
    dataset: Path,
    data_root: Path,
    *,
    workers: int,
    settings: IngestSettings,
    progress: Progress | None = None,
) -> IngestReport:
    """Make what is missing of the planned dataset, ``workers`` shards at a time; the caller has started Ray.

    Bytes do not depend on ``workers``, nor on what was made before. Raises ``Misuse`` where there is no plan or
    another run holds the dataset, ``Transient`` where the disk is full.
    """
    with lock(dataset):
        sweep(dataset)
        shards = _shards(dataset)
        todo = [number for number in shards if number in set(pending(dataset, settings))]
        run = _Run(dataset.resolve(), data_root.resolve(), settings, shards)
        frames = _make_all(run, todo, workers, progress) if todo else 0
        return _report(dataset, shards, frames, len(todo))


def verify(dataset: Path) -> IngestReport:
    """Check every shard against its record, and all accounts against the plan; nothing is decoded.

    Raises ``Corrupt``, naming file and both digests, or ``Misuse`` where the dataset is not finished.
    """
    shards = _shards(dataset)
    for number, rows in shards.items():
        shard = _committed(dataset, number)
        shard.verify()
        lines = shard.ledger().select(["level", "key", "state"]).to_pylist()
        if [line["key"] for line in lines if line["level"] == "row"] != [row.key for row in rows]:
            raise Corrupt(shard.ledger_file, "holds other rows than the plan")
        kept = [line["key"] for line in lines if line["level"] == "span" and line["state"] == "kept"]
        if kept != shard.record.keys:
            raise Corrupt(shard.ledger_file, "counts other samples as kept than its shard holds")
    return _report(dataset, shards, 0, 0)


def make_shard(
    dataset: Path,
    data_root: Path,
    number: int,
    rows: list[PlannedRow],
    settings: IngestSettings,
    crashed: frozenset[str] = frozenset(),
) -> Iterator[int]:
    """Build and commit one shard; yields, after each row, the source frames decoded for it.

    Rows named in ``crashed`` are not touched: they end as failed(CRASHED).
    """
    for step in steps(_tools(), settings):
        step.open()
    samples: Samples = []
    lines: Lines = []
    for row in rows:
        if row.key in crashed:
            told = failed(row, FailureCode.CRASHED, "the worker process died on this row, twice")
        else:
            made, told = build_row(row, data_root, _tools(), settings)
            samples += made
        lines += told
        yield told[0].get("source_frames") or 0
    write_shard(dataset, number, samples, lines, steps=settings.steps_digest, rows=rows_digest(rows))


def build_alone(row: PlannedRow, data_root: Path, settings: IngestSettings) -> None:
    """Build one row for nothing, to see whether its worker survives it."""
    build_row(row, data_root, _tools(), settings)


@cache
def _tools() -> Any:
    """The detectors of this worker process, loaded once."""
    from preprocessing.step import Tools

    return Tools()


def _make_all(run: _Run, todo: list[int], workers: int, progress: Progress | None) -> int:
    """Make the shards ``todo`` as Ray tasks; return the source frames decoded."""
    import ray
    from ray.exceptions import RayTaskError, WorkerCrashedError

    task = ray.remote(num_cpus=1, num_returns="streaming", max_retries=TRIES_AGAIN)(make_shard)
    waiting, going, frames, done = list(todo), {}, 0, 0
    total = sum(len(run.shards[number]) for number in todo)

    def start(number: int) -> None:
        rows, crashed = run.shards[number], run.crashed.get(number, frozenset())
        stream = task.remote(run.dataset, run.data_root, number, rows, run.settings, crashed)
        going[stream] = _Making(number, stream)

    try:
        while waiting or going:
            while waiting and len(going) < max(1, workers):
                start(waiting.pop(0))
            ready, _ = ray.wait(list(going), timeout=1.0)
            for stream in ready:
                making = going[stream]
                try:
                    making.frames += ray.get(next(stream))
                    making.done += 1
                except StopIteration:
                    del going[stream]
                    done += making.done
                    frames += making.frames
                    making.done = 0
                except RayTaskError as error:
                    raise error.cause from None
                except WorkerCrashedError:
                    del going[stream]
                    if making.number in run.crashed:
                        raise
                    run.crashed[making.number] = _find_crashers(run, making.number)
                    waiting.insert(0, making.number)
            if progress is not None:
                progress(done + sum(m.done for m in going.values()), total, f"{len(going)} shards in work")
    finally:
        for stream in going:
            ray.cancel(stream, force=True)
    return frames


def _find_crashers(run: _Run, number: int) -> frozenset[str]:
    """Keys of the rows on which a worker process dies, each tried alone, twice."""
    import ray
    from ray.exceptions import WorkerCrashedError

    task = ray.remote(num_cpus=1, max_retries=1)(build_alone)
    found = set()
    for row in run.shards[number]:
        try:
            ray.get(task.remote(row, run.data_root, run.settings))
        except WorkerCrashedError:
            log.error("%s: a worker died on it, twice", row.values.file)
            found.add(row.key)
    return frozenset(found)


def _shards(dataset: Path) -> dict[int, list[PlannedRow]]:
    """The planned rows of each shard, in order. Raises ``Misuse`` where there is no plan."""
    plan = read_plan(dataset)
    if plan is None:
        raise Misuse(f"{dataset / PLAN_FILE} does not exist: run voxface ingest")
    shards: dict[int, list[PlannedRow]] = {}
    for row in plan[0]:
        shards.setdefault(row.shard, []).append(row)
    return shards


def _done(dataset: Path, number: int, rows: list[PlannedRow], steps: str) -> bool:
    shard = open_shard(dataset, number)
    return shard is not None and shard.record.steps == steps and shard.record.rows == rows_digest(rows)


def _committed(dataset: Path, number: int) -> Shard:
    path = dataset / f"shard-{number:06d}.json"
    if not path.exists():
        raise Misuse(f"{path} does not exist: the dataset is not finished, run voxface ingest")
    return read_shard(dataset, number)


def _report(dataset: Path, shards: dict[int, list[PlannedRow]], frames: int, made: int) -> IngestReport:
    rejected: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    read = kept = 0
    for number, rows in shards.items():
        record: ShardRecord = _committed(dataset, number).record
        if record.read != len(rows) or record.read != record.kept + sum(
            (*record.rejected.values(), *record.failed.values())
        ):
            raise Corrupt(dataset / f"shard-{number:06d}.json", "its account does not add up with the plan")
        read += record.read
        kept += record.kept
        rejected.update(record.rejected)
        failed.update(record.failed)
    return IngestReport(
        read, kept, dict(sorted(rejected.items())), dict(sorted(failed.items())), frames, made, len(shards) - made
    )
