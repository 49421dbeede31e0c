"""What is done of a planned dataset, and whether its accounts add up: read from the records alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import Corrupt, Misuse
from contracts.plan import PLAN_FILE, PlannedRow, read_plan
from contracts.settings import canonical_digest
from contracts.shards import Shard, ShardRecord, open_shard, read_shard
from preprocessing.build import IngestSettings

Shards = dict[int, list[PlannedRow]]  # the planned rows of each shard, in order


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


def planned_shards(dataset: Path) -> Shards:
    """The planned rows of each shard. Raises ``Misuse`` where there is no plan."""
    plan = read_plan(dataset)
    if plan is None:
        raise Misuse(f"{dataset / PLAN_FILE} does not exist: run voxface ingest")
    shards: Shards = {}
    for row in plan[0]:
        shards.setdefault(row.shard, []).append(row)
    return shards


def row_digest(row: PlannedRow) -> str:
    """Identity of a planned row: 64 bits are plenty among the rows of one shard."""
    return canonical_digest(row.model_dump(mode="json"))[:16]


def steps_of(rows: list[PlannedRow], settings: IngestSettings) -> dict[str, str]:
    """Digest of the steps for each kind that ``rows`` hold; rows that planning refused meet no step."""
    kinds = sorted({row.values.kind for row in rows if row.reason is None})
    return {kind: settings.steps_digest(kind) for kind in kinds}


def pending(dataset: Path, settings: IngestSettings, shards: Shards | None = None) -> list[int]:
    """Numbers of the shards to make: those without a fitting record. Needs the plan, and nothing heavy."""
    shards = planned_shards(dataset) if shards is None else shards
    return [number for number, rows in shards.items() if not done(dataset, number, rows, settings)]


def done(dataset: Path, number: int, rows: list[PlannedRow], settings: IngestSettings) -> bool:
    """Whether the shard's record fits its planned rows and the steps that they go through."""
    shard = open_shard(dataset, number)
    if shard is None or shard.record.steps != steps_of(rows, settings):
        return False
    return shard.record.rows == [row_digest(row) for row in rows]


def verify(dataset: Path) -> IngestReport:
    """Check every shard against its record, and all accounts against the plan; nothing is decoded.

    Raises ``Corrupt``, naming file and both digests, or ``Misuse`` where the dataset is not finished.
    """
    shards = planned_shards(dataset)
    for number, rows in shards.items():
        shard = _committed(dataset, number)
        shard.verify()
        lines = shard.ledger().select(["level", "key", "state"]).to_pylist()
        if [line["key"] for line in lines if line["level"] == "row"] != [row.key for row in rows]:
            raise Corrupt(shard.ledger_file, "holds other rows than the plan")
        kept = [line["key"] for line in lines if line["level"] == "span" and line["state"] == "kept"]
        if kept != shard.record.keys:
            raise Corrupt(shard.ledger_file, "counts other samples as kept than its shard holds")
    return report(dataset, shards, 0, 0)


def report(dataset: Path, shards: Shards, frames: int, made: int) -> IngestReport:
    """The sum of the records. Raises ``Corrupt`` where one does not add up, ``Misuse`` where one is missing."""
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


def _committed(dataset: Path, number: int) -> Shard:
    path = dataset / f"shard-{number:06d}.json"
    if not path.exists():
        raise Misuse(f"{path} does not exist: the dataset is not finished, run voxface ingest")
    return read_shard(dataset, number)
