"""The flow that turns a manifest into a dataset: plan, shards, report."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from contracts.index import Account, account, read_index
from contracts.manifest import COLUMNS, Row
from contracts.plan import PlannedRow, read_plan
from contracts.query import NUMBERS, matching
from contracts.reasons import Reason
from flows.console import Progress

if TYPE_CHECKING:
    from flows.retry import Retry
    from preprocessing.corpora import BadLine
    from preprocessing.run import IngestReport, IngestSettings
    from preprocessing.sources import Sources

SECONDS_PER_ROW = 4.0  # on one core, for a clip of a few seconds
STORED_PER_SOURCE_BYTE = 1.5  # a shard's bytes over its sources', at most, on clips of the usual rates
LEAST_BYTES = 50_000_000


@dataclass(frozen=True)
class IngestJob:
    """What to ingest, and where to."""

    dataset: Path
    data_root: Path | Sources
    rows: list[Row | BadLine]
    settings: IngestSettings
    workers: int | None  # None: as many as the cluster has processors
    address: str
    again: Retry | None = None  # these rows alone, and none that is new
    metrics_port: int | None = None
    metrics_file: Path | None = None


def where(rows: list[Row | BadLine], text: str) -> list[Row | BadLine]:
    """The rows for which the query holds, in order. A bad line has no columns: nothing holds for it."""
    if not text.strip():
        return rows
    names = [name for name in COLUMNS if name != "box"]
    plain = [(place, row) for place, row in enumerate(rows) if isinstance(row, Row)]
    extras = sorted({name for _, row in plain for name in row.extra})
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(row, name) for _, row in plain], pa.float64() if name in NUMBERS else pa.string())
        for name in names
    }
    columns |= {f"extra.{name}": pa.array([row.extra.get(name) for _, row in plain], pa.string()) for name in extras}
    columns["place"] = pa.array([place for place, _ in plain], pa.int64())
    table = pa.table(columns)
    return [rows[place] for place in matching(table, text)["place"].to_pylist()]


def covers(dataset: Path, rows: list[Row | BadLine]) -> bool:
    """Whether the plan of ``dataset`` names all ``rows`` already (planning again is then quick)."""
    from preprocessing.plan import stand_in

    plan = read_plan(dataset)
    if plan is None:
        return False
    named = {planned.key for planned in plan[0]}
    return all(stand_in(row).key in named for row in rows)


def odd_lines(rows: list[Row | BadLine]) -> list[dict[str, Any]]:
    """Every line that is no row: its file (empty: the manifest itself), its number, and why."""
    return [{"file": row.file, "line": row.line, "detail": row.detail} for row in rows if not isinstance(row, Row)]


def estimate(job: IngestJob) -> dict[str, Any]:
    """Counts, seconds and bytes of a job that has not run, from the sizes of the sources; no file is read.

    Files are counted once for each row that names them, their bytes once. ``refused_files`` are those that no run could
    use as they are (a folder, an address that is not allowed); ``addresses`` on allowed hosts are not asked.
    """
    from preprocessing.sources import Sources, count_sources

    named = [row.file for row in job.rows if isinstance(row, Row)]
    files, refused = count_sources(Sources.of(job.data_root), named)
    elsewhere = [name for name in named if files.get(name) == 0]
    return {
        "rows": len(job.rows),
        "bad_lines": len(odd_lines(job.rows)),
        "missing_files": refused.pop(Reason.MISSING_FILE, 0),
        "empty_files": refused.pop(Reason.EMPTY_FILE, 0),
        "refused_files": sum(refused.values()),
        "addresses": len(elsewhere),
        "source_files": len(files),
        "source_bytes": sum(files.values()),
        "rows_per_shard": job.settings.rows_per_shard,
        "estimated_seconds": round(
            SECONDS_PER_ROW * sum(name in files for name in named) / (job.workers or os.cpu_count() or 1)
        ),
        "estimated_bytes": round(STORED_PER_SOURCE_BYTE * sum(files.values())) + LEAST_BYTES,
    }


def make_plan(job: IngestJob, progress: Progress) -> list[PlannedRow]:
    """Extend the plan of the dataset by the rows it lacks."""
    from preprocessing.plan import plan_dataset

    size, people = job.settings.rows_per_shard, job.settings.people
    return plan_dataset(job.dataset, job.rows, job.data_root, rows_per_shard=size, people=people, progress=progress)


def summary(dataset: Path, report: IngestReport | None = None) -> dict[str, Any]:
    """The accounts of a dataset for people: rows, spans, and what this run did."""
    index = read_index(dataset)
    rows, spans = account(index, "row"), account(index, "span")
    rows.check()
    spans.check()
    return {
        "dataset": str(dataset),
        "rows": _counts(rows),
        "spans": _counts(spans),
        "frames_decoded": report.frames_decoded if report else 0,
        "shards_made": report.shards_made if report else 0,
        "shards_reused": report.shards_reused if report else len(list(dataset.glob("shard-*.json"))),
    }


def _counts(accounts: Account) -> dict[str, Any]:
    return {
        "read": accounts.read,
        "kept": accounts.kept,
        "rejected": {str(reason): count for reason, count in sorted(accounts.rejected.items())},
        "failed": dict(sorted(accounts.failed.items())),
    }


def ingest(job: IngestJob, plan_progress: Progress, shard_progress: Progress) -> dict[str, Any]:
    """Run the flow; return :func:`summary`. Whatever its tasks raise comes through."""
    from prefect import flow, task
    from prefect.artifacts import create_markdown_artifact

    from flows.cluster import cluster
    from flows.meter import Meter
    from flows.metrics import published
    from flows.retries import RETRIES
    from flows.retry import outcome
    from flows.server import shield_server

    shield_server()

    meter = Meter()

    @task(name="plan", **RETRIES)
    def plan() -> int:
        with meter.driver.of("planning"):
            return len(make_plan(job, plan_progress))

    @task(name="make shards", **RETRIES)
    def shards() -> IngestReport:
        from preprocessing.run import ingest as make

        with ExitStack() as stack:
            with meter.driver.of("starting Ray"):
                stack.enter_context(cluster(job.address))
            return make(
                job.dataset,
                job.data_root,
                workers=job.workers,
                settings=job.settings,
                progress=paced,
                observer=meter,
                again=job.again.keys if job.again else None,
            )

    @task(name="account", **RETRIES)
    def accounts(report: IngestReport) -> dict[str, Any]:
        from preprocessing.report import write_dataset_report

        with meter.driver.of("report"):
            write_dataset_report(job.dataset, job.dataset / "report.html", None)
            result = summary(job.dataset, report)
        if job.again:
            result["tried_again"] = outcome(job.dataset, job.again)
        create_markdown_artifact(markdown(result), key="dataset-accounts", description=str(job.dataset))
        return result

    def paced(done: int, total: int, note: str) -> None:
        shard_progress(done, total, f"{meter.pace(done, total)}, {note}")
        publish()

    @flow(name="ingest", validate_parameters=False)
    def run(dataset: str, rows: int) -> dict[str, Any]:
        plan()
        return accounts(shards())

    with published(meter, job.metrics_port, job.metrics_file) as publish:
        result: dict[str, Any] = run(str(job.dataset), len(job.rows))
    return result | meter.result()


def markdown(result: dict[str, Any]) -> str:
    """The accounts as a table for Prefect's page."""
    lines = ["| level | read | kept | rejected | failed |", "|---|---|---|---|---|"]
    for level in ("rows", "spans"):
        counts = result[level]
        refused, failed = (
            ", ".join(f"{name} {count}" for name, count in counts[how].items()) or "0" for how in ("rejected", "failed")
        )
        lines.append(f"| {level} | {counts['read']} | {counts['kept']} | {refused} | {failed} |")
    return "\n".join(lines)
