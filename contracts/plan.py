"""The plan of a dataset: which source row lies in which shard, fixed once and for all."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from contracts.consent import PeoplePolicy
from contracts.errors import Corrupt
from contracts.files import commit
from contracts.manifest import Row
from contracts.reasons import Reason

ROWS_PER_SHARD = 64
PLAN_FILE = "plan.parquet"
POLICY = "people"
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # position in the dataset, in manifest order; never reused
        ("shard", pa.int32()),
        ("key", pa.string()),
        ("sha256", pa.string()),  # of the source file; empty where it could not be read
        ("bytes", pa.int64()),
        ("reason", pa.string()),  # set where planning already refused the row
        ("detail", pa.string()),
        ("values", pa.string()),  # the manifest row as JSON
    ]
)


class PlannedRow(BaseModel):
    """One row of the plan. ``reason`` is set where the row was refused before any decoding."""

    model_config = ConfigDict(frozen=True)

    row: int
    shard: int
    key: str
    sha256: str = ""
    bytes: int = 0
    reason: Reason | None = None
    detail: str = ""
    values: Row


def shard_of(row: int, rows_per_shard: int = ROWS_PER_SHARD) -> int:
    """The shard of a row number: rows never move, a refused one leaves a gap.

    >>> shard_of(63), shard_of(64)
    (0, 1)
    """
    return row // rows_per_shard


def write_plan(dataset: Path, rows: list[PlannedRow], rows_per_shard: int, policy: PeoplePolicy | None = None) -> None:
    """Commit the plan of ``dataset``, with the policy (and its day) that its rows were judged by."""
    lines = [line.model_dump(mode="json") | {"values": line.values.model_dump_json()} for line in rows]
    told = {"rows_per_shard": str(rows_per_shard)} | ({POLICY: policy.model_dump_json()} if policy else {})
    table = pa.Table.from_pylist(lines, schema=SCHEMA.with_metadata(told))
    with commit(dataset / PLAN_FILE) as file:
        pq.write_table(table, file)


def read_plan(dataset: Path) -> tuple[list[PlannedRow], int] | None:
    """Return the plan and its rows per shard, or ``None`` where there is none yet.

    Raises ``Corrupt`` where the file cannot be read.
    """
    path = dataset / PLAN_FILE
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    rows, per_shard = _read(path.resolve(), (status.st_ino, status.st_mtime_ns, status.st_size))
    return list(rows), per_shard


@lru_cache(maxsize=1)  # one command asks for it several times, and the rows of a large corpus take seconds to read
def _read(path: Path, mark: tuple[int, int, int]) -> tuple[tuple[PlannedRow, ...], int]:
    """The plan at ``path``, whose file bears ``mark`` (inode, time, size). Rows are frozen: they may be shared."""
    try:
        table = pq.read_table(path)
        rows = tuple(
            PlannedRow.model_validate(line | {"values": Row.model_validate_json(line["values"])})
            for line in table.to_pylist()
        )
        return rows, int(table.schema.metadata[b"rows_per_shard"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise Corrupt(path, f"not a readable plan: {error}") from error


def read_policy(dataset: Path) -> PeoplePolicy | None:
    """The policy that the plan's rows were judged by, or ``None`` where none is told. Raises ``Corrupt``."""
    path = dataset / PLAN_FILE
    if not path.exists():
        return None
    try:
        told = (pq.read_schema(path).metadata or {}).get(POLICY.encode())
        return PeoplePolicy.model_validate_json(told) if told else None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Corrupt(path, f"not a readable plan: {error}") from error
