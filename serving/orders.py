"""What callers ask for and may see: jobs submitted, listed, watched, cancelled, forgotten; each its caller's own."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from contracts.settings import canonical_json
from serving.jobs import Inputs, Job
from serving.keys import Caller
from serving.ledger import Ledger, executions, items, jobs
from serving.queue import QUEUED

DAY_S = 86_400.0
QUEUE_LIMIT = 10_000  # executions waiting, of all callers together
OPEN = ("queued", "running")
STATES = ("queued", "running", "done", "rejected", "failed", "cancelled")
CHUNK = 500  # values in one IN (…)


class Busy(Exception):
    """The service takes no more now. ``retry_after_s`` says when to ask again."""

    def __init__(self, code: str, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry_after_s = code, detail, retry_after_s


@dataclass(frozen=True)
class Item:
    """One video asked for: admitted inputs, or why they are refused."""

    name: str
    inputs: Inputs | None = None
    job: Job | None = None
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Receipt:
    """What a submission is answered with; equal submissions of one caller have equal receipts."""

    job: str
    created: float
    items: int
    accepted: int
    rejected: int


@dataclass(frozen=True)
class ItemStatus:
    """An item as its caller sees it."""

    number: int
    name: str
    state: str
    done: int = 0  # frames
    frames: int = 0
    code: str | None = None
    detail: str | None = None
    execution: str | None = None  # digest of bundle, inputs, seed and settings
    seconds: float | None = None  # of the sound
    result: str | None = None  # SHA-256 of the video


@dataclass(frozen=True)
class JobStatus:
    """A job as its caller sees it."""

    job: str
    label: str
    created: float
    state: str  # queued, running, done (all items have ended), cancelled
    counts: dict[str, int] = field(default_factory=dict)  # items by state


class Orders:
    """The jobs of a ledger, as callers see them."""

    def __init__(self, ledger: Ledger, queue_limit: int = QUEUE_LIMIT) -> None:
        self.ledger, self.queue_limit = ledger, queue_limit

    def submit(
        self, caller: Caller, asked: Sequence[Item], label: str = "", prepare: Callable[[], None] | None = None
    ) -> Receipt:
        """Take a job on. The same items from the same caller are the same job, asked for however often.

        What failed, or was cancelled, is queued again; what is done is not done again. ``prepare`` is called while
        no job can be deleted. Raises ``Busy`` over a quota.
        """
        identity = _identity(caller, asked)
        now = self.ledger.clock()
        with self.ledger.writing(counting=True) as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == identity)).mappings().first()
            queue = {item.inputs.job: item for item in asked if item.inputs is not None}
            known = dict(_states(connection, queue))
            if row is None:
                self._check_quota(connection, caller, asked, known)
            if prepare is not None:
                prepare()
            for digest, item in queue.items():
                self._enqueue(connection, digest, item, known.get(digest), now)
            if row is None:
                connection.execute(insert(jobs).values(id=identity, key=caller.id, label=label, created=now))
                rows = [
                    {
                        "job": identity,
                        "number": number,
                        "name": item.name,
                        "execution": item.inputs.job if item.inputs else None,
                        "state": None if item.inputs else "rejected",
                        "code": item.code,
                        "detail": item.detail,
                    }
                    for number, item in enumerate(asked)
                ]
                connection.execute(insert(items), rows)
            else:
                revived = update(items).where(items.c.job == identity, items.c.state == "cancelled")
                connection.execute(revived.values(state=None))
        refused = sum(item.inputs is None for item in asked)
        created = now if row is None else row["created"]
        return Receipt(identity, created, len(asked), len(asked) - refused, refused)

    def page(self, caller: Caller, limit: int, before: int | None = None) -> tuple[list[JobStatus], int | None]:
        """The caller's jobs, newest first, and where the next page starts (None: nowhere)."""
        wanted = select(jobs).order_by(jobs.c.seq.desc()).limit(limit + 1)
        if "admin" not in caller.scopes:
            wanted = wanted.where(jobs.c.key == caller.id)
        if before is not None:
            wanted = wanted.where(jobs.c.seq < before)
        with self.ledger.reading() as connection:
            rows = connection.execute(wanted).mappings().all()
            told = [_job_status(connection, row) for row in rows[:limit]]
        return told, rows[limit - 1]["seq"] if len(rows) > limit else None

    def status(self, caller: Caller, job: str) -> JobStatus | None:
        """The job, or None where the caller has no such job."""
        with self.ledger.reading() as connection:
            row = _own(connection, caller, job)
            return None if row is None else _job_status(connection, row)

    def items(self, caller: Caller, job: str, start: int = 0, limit: int | None = None) -> list[ItemStatus] | None:
        """The job's items from number ``start`` on, or None where the caller has no such job."""
        wanted = _item_rows().where(items.c.job == job, items.c.number >= start).order_by(items.c.number).limit(limit)
        with self.ledger.reading() as connection:
            if _own(connection, caller, job) is None:
                return None
            return [_item_status(row) for row in connection.execute(wanted).mappings()]

    def cancel(self, caller: Caller, job: str) -> bool:
        """Stop what of the job has not ended. What another job waits for as well goes on. False: no such job."""
        with self.ledger.writing(counting=True) as connection:
            if _own(connection, caller, job) is None:
                return False
            mine = items.c.job == job, items.c.state.is_(None)
            pending = select(items.c.execution).join(executions).where(*mine, executions.c.state.in_(OPEN))
            digests = list(connection.scalars(pending))
            for some in _chunks(digests):
                stopped = update(items).where(*mine, items.c.execution.in_(some))
                connection.execute(stopped.values(state="cancelled"))
            self._stop(connection, digests)
        return True

    def forget(self, caller: Caller, job: str, remove: Callable[[list[str], list[str]], None]) -> bool:
        """Cancel the job and delete all that is known of it; False where the caller has no such job.

        ``remove`` is given the digests of results and of inputs that nothing refers to any more, to remove their
        files, while nothing new can be submitted.
        """
        with self.ledger.writing(counting=True) as connection:
            if _own(connection, caller, job) is None:
                return False
            digests = set(connection.scalars(select(items.c.execution).where(items.c.job == job)))
            connection.execute(delete(items).where(items.c.job == job))
            connection.execute(delete(jobs).where(jobs.c.id == job))
            remove(*_sweep(connection, sorted(filter(None, digests))))
        return True

    def unused_inputs(self, digests: Sequence[str]) -> list[str]:
        """Those of ``digests`` that no execution has as an input."""
        with self.ledger.reading() as connection:
            return _unused(connection, digests)

    def _check_quota(
        self, connection: Connection, caller: Caller, asked: Sequence[Item], known: dict[str, str]
    ) -> None:
        since = self.ledger.clock() - DAY_S
        own = select(func.count()).select_from(items).join(jobs).where(jobs.c.key == caller.id)
        today = connection.scalar(own.where(jobs.c.created > since)) or 0
        if today + len(asked) > caller.daily:
            detail = f"{today} items in the last 24 hours and {len(asked)} now: the key may ask for {caller.daily}"
            raise Busy("QUOTA", detail, 3600)
        open_ = own.join(executions, executions.c.digest == items.c.execution)
        pending = connection.scalar(open_.where(items.c.state.is_(None), executions.c.state.in_(OPEN))) or 0
        new = sum(item.inputs is not None and known.get(item.inputs.job) != "done" for item in asked)
        if pending + new > caller.unfinished:
            detail = f"{pending} items are unfinished and {new} are new: the key may have {caller.unfinished}"
            raise Busy("CONCURRENCY", detail, 30)
        queued = connection.scalar(select(func.count()).where(executions.c.state == "queued")) or 0
        fresh = len({item.inputs.job for item in asked if item.inputs is not None} - known.keys())
        if queued + fresh > self.queue_limit:
            raise Busy("OVERLOAD", f"{queued} videos are waiting; the queue holds {self.queue_limit}", 30)

    def _enqueue(self, connection: Connection, digest: str, item: Item, state: str | None, now: float) -> None:
        assert item.inputs is not None
        assert item.job is not None
        request = item.job.model_dump(mode="json")
        if state is None:
            values: dict[str, Any] = {
                "digest": digest,
                "bundle": item.inputs.bundle,
                "request": request,
                "audio": item.inputs.audio,
                "portrait": item.inputs.portrait,
                "video": item.inputs.video,
                "state": "queued",
                "created": now,
            }
            connection.execute(insert(executions).values(**values))
        elif state in ("failed", "cancelled"):
            again = update(executions).where(executions.c.digest == digest)
            connection.execute(again.values(**QUEUED, request=request))
        elif state == "queued":  # the newest place of the very same input: an older one may be gone
            connection.execute(update(executions).where(executions.c.digest == digest).values(request=request))

    @staticmethod
    def _stop(connection: Connection, digests: Sequence[str]) -> None:
        """Cancel those executions that no item waits for any more; a holder hears of it when it beats."""
        for some in _chunks(sorted(set(digests))):
            waited = select(items.c.execution).where(items.c.execution.in_(some), items.c.state.is_(None))
            idle = executions.c.digest.in_(some), executions.c.state.in_(OPEN), executions.c.digest.not_in(waited)
            connection.execute(update(executions).where(*idle).values(state="cancelled", claim=None))


def item_place(results: Path, digest: str) -> Path:
    """Where the video of an execution stands under the folder of results."""
    return results / digest[:2] / f"{digest}.mp4"


def _identity(caller: Caller, asked: Sequence[Item]) -> str:
    """256 bits that only who knows the key's pepper could foretell; equal for equal items of one key."""
    told = [[item.name, item.inputs.job if item.inputs else None, item.code, item.detail] for item in asked]
    return hmac.digest(bytes.fromhex(caller.pepper), canonical_json(told).encode(), "sha256").hex()


def _own(connection: Connection, caller: Caller, job: str) -> RowMapping | None:
    wanted = select(jobs).where(jobs.c.id == job)
    if "admin" not in caller.scopes:
        wanted = wanted.where(jobs.c.key == caller.id)
    return connection.execute(wanted).mappings().first()


def _states(connection: Connection, digests: dict[str, Item]) -> Iterator[tuple[str, str]]:
    for some in _chunks(list(digests)):
        wanted = select(executions.c.digest, executions.c.state).where(executions.c.digest.in_(some))
        yield from ((digest, state) for digest, state in connection.execute(wanted))


def _item_rows() -> Any:
    shown = ("state", "code", "detail", "done", "frames", "seconds", "result")
    columns = [executions.c[name].label(f"execution_{name}") for name in shown]
    return select(items, *columns).outerjoin(executions, executions.c.digest == items.c.execution)


def _item_status(row: RowMapping) -> ItemStatus:
    own = row["state"] is not None
    state = row["state"] or row["execution_state"]
    shown = not own and row["execution"] is not None
    return ItemStatus(
        number=row["number"],
        name=row["name"],
        state=state,
        done=row["execution_done"] if shown else 0,
        frames=row["execution_frames"] if shown else 0,
        code=row["code"] if own else row["execution_code"],
        detail=row["detail"] if own else row["execution_detail"],
        execution=row["execution"],
        seconds=row["execution_seconds"] if shown else None,
        result=row["execution_result"] if shown else None,
    )


def _job_status(connection: Connection, row: RowMapping) -> JobStatus:
    state = func.coalesce(items.c.state, executions.c.state)
    wanted = (
        select(state, func.count())
        .select_from(items)
        .outerjoin(executions, executions.c.digest == items.c.execution)
        .where(items.c.job == row["id"])
        .group_by(state)
    )
    counts = Counter({name: count for name, count in connection.execute(wanted)})
    if counts["running"] or (counts["queued"] and counts["done"]):
        shown = "running"
    elif counts["queued"]:
        shown = "queued"
    else:
        shown = "cancelled" if counts["cancelled"] else "done"
    return JobStatus(row["id"], row["label"], row["created"], shown, {name: counts[name] for name in STATES})


def _sweep(connection: Connection, digests: Sequence[str]) -> tuple[list[str], list[str]]:
    """Delete executions that no item has; their digests, and those of inputs that no other has."""
    gone: list[str] = []
    inputs: set[str] = set()
    for some in _chunks(digests):
        used = select(items.c.execution).where(items.c.execution.in_(some))
        idle = executions.c.digest.in_(some), executions.c.digest.not_in(used)
        columns = executions.c.digest, executions.c.audio, executions.c.portrait, executions.c.video
        for digest, *files in connection.execute(select(*columns).where(*idle)).all():
            gone.append(digest)
            inputs |= {file for file in files if file}
        connection.execute(delete(executions).where(*idle))
    # one that only cancelled items have left needs to run no more
    Orders._stop(connection, digests)
    return gone, _unused(connection, sorted(inputs))


def _unused(connection: Connection, digests: Sequence[str]) -> list[str]:
    used: set[str] = set()
    for some in _chunks(digests):
        for column in (executions.c.audio, executions.c.portrait, executions.c.video):
            used |= set(connection.scalars(select(column).where(column.in_(some))))
    return [digest for digest in digests if digest not in used]


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]
