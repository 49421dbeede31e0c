"""The making of one shard: rows whose work stands are carried over, the others built, all committed at once."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from contracts.errors import Corrupt, Misuse
from contracts.files import TEMPORARY
from contracts.plan import PlannedRow
from contracts.reasons import FailureCode
from contracts.shards import open_shard, write_shard
from preprocessing.accounts import row_digest, steps_of
from preprocessing.build import IngestSettings, Lines, Samples, build_row, failed, steps
from preprocessing.costs import Cost, Costs, peak_bytes
from preprocessing.sources import Sources

# holds the mark of the run at work: who reads another one, or none, sees another folder
RUN_FILE = f"{TEMPORARY}run"
SEEN_WITHIN_S = 10.0  # a network file system may show a new file late

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTask:
    """One shard to make, as it is sent to a worker. Paths are absolute."""

    dataset: Path
    data_root: Path | Sources
    number: int
    rows: list[PlannedRow]
    settings: IngestSettings
    crashed: frozenset[str] = frozenset()  # keys of rows not to touch: they end as failed(CRASHED)
    again: frozenset[str] = frozenset()  # keys of rows to build although their work stands
    mark: str = ""  # of the run, in RUN_FILE; empty: not looked for


@dataclass(frozen=True)
class Told:
    """What a worker tells after each row, and once more, without a row, when the shard is committed."""

    key: str = ""
    ended: str = ""  # kept, REASON or CODE
    state: str = ""  # kept, rejected or failed
    frames: int = 0  # of the source, decoded for it
    carried: bool = False
    costs: dict[str, Cost] = field(default_factory=dict)
    worker: str = ""  # host and process
    peak_bytes: int = 0  # most memory of the worker so far


def make_shard(task: ShardTask) -> Iterator[Told]:
    """Build and commit one shard; tells of every row once it is done, and of the commit.

    Rows of the shard that stands are carried over, byte for byte, where neither they nor the steps for their kind
    have changed. Raises ``Misuse`` where the run's folders are not to be seen from here, and what ``build_row`` does.
    """
    require_folders(task)
    costs = Costs()
    with costs.of("looking at what stands"):
        stands = _standing(task)
    if any(row.reason is None and row.key not in task.crashed and row.key not in stands for row in task.rows):
        with costs.of("loading detectors"):
            for step in steps(_tools(), task.settings):
                step.open()
    samples: Samples = []
    lines: Lines = []
    for row in task.rows:
        if row.key in task.crashed:
            told = failed(row, FailureCode.CRASHED, "the worker process died on this row, twice")
        elif row.key in stands:
            made, told = stands.pop(row.key)
            samples += made
            yield _told(told[0], costs, carried=True)
            lines += told
            continue
        else:
            made, told = build_row(row, task.data_root, _tools(), task.settings, costs)
            samples += made
        lines += told
        yield _told(told[0], costs)
    with costs.of("commit"):
        digests = [row_digest(row) for row in task.rows]
        steps_by_kind = steps_of(task.rows, task.settings)
        write_shard(task.dataset, task.number, samples, lines, steps=steps_by_kind, rows=digests)
    yield Told(costs=costs.take(), worker=_worker(), peak_bytes=peak_bytes())


def build_alone(row: PlannedRow, data_root: Path | Sources, settings: IngestSettings) -> None:
    """Build one row for nothing, to see whether its worker survives it."""
    build_row(row, data_root, _tools(), settings)


def require_folders(task: ShardTask) -> None:
    """Raise ``Misuse`` unless the dataset seen from here is the run's own, and the sources can be reached."""
    if not task.mark:
        return
    deadline = time.monotonic() + SEEN_WITHIN_S
    while _mark(task.dataset) != task.mark:
        if time.monotonic() > deadline:
            raise Misuse(
                f"{task.dataset} on {socket.gethostname()} is not the folder that this run writes to: all nodes must "
                "see the dataset at the same path (a shared file system), or use --address local"
            )
        time.sleep(0.2)
    folder = Sources.of(task.data_root).folder
    if folder is not None and not folder.is_dir():
        raise Misuse(
            f"{folder} is not a folder on {socket.gethostname()}: all nodes must see the sources at the same "
            "path (a shared file system), or use --address local"
        )


def _mark(dataset: Path) -> str:
    try:
        return (dataset / RUN_FILE).read_text()
    except OSError:
        return ""


def _standing(task: ShardTask) -> dict[str, tuple[Samples, Lines]]:
    """Samples and ledger lines, by row key, of the committed shard's rows that need not be built again."""
    shard = open_shard(task.dataset, task.number)
    if shard is None:
        return {}
    fit, made_from = steps_of(task.rows, task.settings), set(shard.record.rows)
    keys = {
        row.key
        for row in task.rows
        if row.reason is None
        and row.key not in task.again | task.crashed
        and shard.record.steps.get(row.values.kind) == fit[row.values.kind]
        and row_digest(row) in made_from
    }
    if not keys:
        return {}
    stands: dict[str, tuple[Samples, Lines]] = {}
    try:
        shard.verify()
        key = ""
        for line in shard.ledger().to_pylist():
            told = {name: value for name, value in line.items() if value is not None}
            if line["level"] == "row":
                key = line["key"]
                stands[key] = ([], [])
            stands[key][1].append(told)
            if line["level"] == "span" and line["state"] == "kept":
                stands[key][0].append((line["key"], shard.read(line["key"])))
    except Corrupt as error:
        log.warning("%s; the whole shard is made again", error)
        return {}
    return {key: stood for key, stood in stands.items() if key in keys}


def _told(line: dict[str, Any], costs: Costs, *, carried: bool = False) -> Told:
    """What to tell of a row, from its ledger line."""
    return Told(
        key=line["key"],
        ended=line.get("reason") or line["state"],
        state=line["state"],
        frames=0 if carried else line.get("source_frames") or 0,
        carried=carried,
        costs=costs.take(),
        worker=_worker(),
        peak_bytes=peak_bytes(),
    )


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@cache
def _tools() -> Any:
    """The detectors of this worker process, loaded once."""
    from preprocessing.step import Tools

    return Tools()
