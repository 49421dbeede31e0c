"""Planning: every source file hashed, every row given its number and shard once and for all."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from itertools import chain
from pathlib import Path

from contracts.consent import REASONS, RECORDED, PeoplePolicy
from contracts.errors import Misuse, Reject
from contracts.files import commit_bytes, lock
from contracts.manifest import Row
from contracts.plan import ROWS_PER_SHARD, PlannedRow, read_plan, read_policy, shard_of, write_plan
from contracts.reasons import Reason, first
from contracts.settings import canonical_json
from preprocessing.corpora import BadLine
from preprocessing.sources import THREADS, Sources

BATCH = 16  # rows that a thread looks at in one go: fewer cost more to hand over than a missing file does to look for
FACTS = ("speaker", "gender", "age", "language", "licence", "consent")  # what a manifest says of people
CACHE_FILE = ".sources.json"  # size, time, inode and digest of each source, so that planning again reads nothing
Progress = Callable[[int, int, str], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What a row's file held when it was planned, or why it cannot be used."""

    sha256: str = ""
    bytes: int = 0
    reason: Reason | None = None
    detail: str = ""


def plan_dataset(
    dataset: Path,
    rows: list[Row | BadLine],
    data_root: Path | Sources,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    people: PeoplePolicy = RECORDED,
    progress: Progress | None = None,
) -> list[PlannedRow]:
    """The plan of ``dataset`` with ``rows`` in it, written to its folder.

    Rows already planned (same key, same bytes) stay where they are; new ones go to new shards, in manifest order,
    those that planning refuses (ids, paths, files, duplicates) among them. A row refused for its file fills its old
    place once the file can be used. A planned row whose file has changed keeps its digest: where its shard is made
    again, it ends as HASH_MISMATCH. What the manifest says of people is not fixed: it is taken over, and judged by
    ``people`` before a file is looked at, so that a row without consent is never opened and a consent withdrawn later
    refuses a planned row, whose shard is then made again without it.
    Raises ``Misuse`` where ``rows_per_shard`` is not that of the plan that stands.
    """
    with lock(dataset):
        standing = read_plan(dataset)
        planned, per_shard = standing or ([], rows_per_shard)
        if per_shard != rows_per_shard:
            raise Misuse(f"{dataset} was planned with {per_shard} rows a shard: give that number, or another folder")
        judged_by = read_policy(dataset)
        policy = people.frozen(judged_by, date.today())
        named = [(row.key, row) for row in map(stand_in, rows)]
        planned = _judge(planned, named, policy)
        sources = _hash(dataset, rows, Sources.of(data_root), policy, progress)
        seen = {_mark(row.sha256, row.values): row.key for row in planned if row.reason is None}
        new, mended = _compare(planned, named, sources)
        for index, values, source in mended:
            before = planned[index]
            source = _unless_seen(before.key, values, source, seen)
            found = {"sha256": source.sha256, "bytes": source.bytes, "reason": source.reason, "detail": source.detail}
            planned[index] = before.model_copy(update=found | {"values": values})
        start = math.ceil((planned[-1].row + 1) / per_shard) * per_shard if planned else 0
        for number, (key, values, source) in enumerate(new, start=start):
            source = _unless_seen(key, values, source, seen)
            shard = shard_of(number, per_shard)
            planned.append(
                PlannedRow(
                    row=number,
                    shard=shard,
                    key=key,
                    sha256=source.sha256,
                    bytes=source.bytes,
                    reason=source.reason,
                    detail=source.detail,
                    values=values,
                )
            )
        if standing is None or planned != standing[0] or policy != judged_by:
            write_plan(dataset, planned, per_shard, policy)
    return planned


def _judge(planned: list[PlannedRow], named: list[tuple[str, Row]], policy: PeoplePolicy) -> list[PlannedRow]:
    """The planned rows with what the manifest says of their people now, refused where ``policy`` refuses them."""
    said: dict[str, Row] = {}
    for key, row in named:
        if row.file:
            said.setdefault(key, row)  # of rows with the same name the first counts
    judged = []
    for before in planned:
        now = before
        if now.key in said:
            facts = {name: getattr(said[now.key], name) for name in FACTS}
            now = now.model_copy(update={"values": now.values.model_copy(update=facts)})
        refused = policy.verdict(now.values) if now.values.file else None  # no file: a stand-in for a bad line
        if refused and (now.reason is None or now.reason in REASONS or first([now.reason, refused[0]]) is refused[0]):
            update = {"sha256": "", "bytes": 0, "reason": refused[0], "detail": refused[1]}
            now = now.model_copy(update=update)
        judged.append(now)
    return judged


def _hash(
    dataset: Path, rows: list[Row | BadLine], where: Sources, policy: PeoplePolicy, progress: Progress | None
) -> list[Source]:
    """A source per row; each file is read once, and not at all where the cache knows it."""
    cache_file = dataset / CACHE_FILE
    try:
        cache = json.loads(cache_file.read_bytes())
    except (OSError, ValueError):
        cache = {}
    files: dict[str, list[int | str]] = {}

    def look(row: Row | BadLine) -> Source:
        if isinstance(row, BadLine):
            return Source(reason=Reason.BAD_MANIFEST, detail=row.detail)
        try:
            row.check_id()
            policy.check(row)
            found = where.look(row.file)
            mark = [found.bytes, *found.mark]
            known = cache.get(found.place)
            if known and found.mark and known[:-1] == mark:
                digest, size = known[-1], found.bytes
            else:
                digest, size = where.digest(row.file, found)
        except Reject as error:
            return Source(reason=error.reason, detail=error.detail)
        except OSError as error:
            return Source(reason=Reason.UNREADABLE, detail=f"{row.file}: {error.strerror}")
        if found.mark:
            files[found.place] = [*mark, digest]
        return Source(digest, size)

    sources: list[Source] = []
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for source in chain.from_iterable(pool.map(lambda batch: [look(row) for row in batch], batches)):
                sources.append(source)
                if progress is not None:
                    progress(len(sources), len(rows), "hashing")
    finally:  # a store that breaks off costs what is not hashed yet
        known = cache | {place: files[place] for place in sorted(files)}
        if known != cache:
            commit_bytes(cache_file, canonical_json(known).encode())
    return sources


def _compare(
    planned: list[PlannedRow], named: list[tuple[str, Row]], sources: list[Source]
) -> tuple[list[tuple[str, Row, Source]], list[tuple[int, Row, Source]]]:
    """The rows that the plan lacks, and the refused ones (by position) whose file can be used now.

    Each has a key of its own: a repeated one is numbered and refused.
    """
    standing = {row.key: index for index, row in enumerate(planned)}
    times: dict[str, int] = {}
    new, mended = [], []
    for (key, values), source in zip(named, sources):
        times[key] = times.get(key, 0) + 1
        if times[key] > 1:
            detail = f"same name and span as {key}"
            key = f"{key}-d{times[key] - 1}"
            if source.reason is None or first([source.reason, Reason.DUPLICATE_ID]) is Reason.DUPLICATE_ID:
                source = Source(source.sha256, source.bytes, Reason.DUPLICATE_ID, detail)
        if key not in standing:
            new.append((key, values, source))
            continue
        before = planned[standing[key]]
        # planned as refused for its people, and now not, or for another reason
        cleared = before.reason in REASONS and not before.sha256 and source.reason != before.reason
        if before.sha256 == source.sha256 and not cleared:
            continue
        if cleared or (not before.sha256 and source.reason is None):
            mended.append((standing[key], values, source))
        else:
            log.warning("%s has changed since it was planned: its samples stay those of the planned bytes", values.file)
    return new, mended


def _unless_seen(key: str, values: Row, source: Source, seen: dict[str, str]) -> Source:
    """``source``, refused where the same bytes, span and face stand earlier in the plan."""
    if source.reason is not None:
        return source
    mark = _mark(source.sha256, values)
    if mark in seen:
        detail = f"same bytes, span and face as {seen[mark]}"
        return Source(source.sha256, source.bytes, Reason.DUPLICATE_CONTENT, detail)
    seen[mark] = key
    return source


def _mark(digest: str, row: Row) -> str:
    return canonical_json([digest, row.kind, row.start_s, row.end_s, row.face_x, row.face_y, row.box])


def stand_in(bad: Row | BadLine) -> Row:
    """The row itself, or one for a line that is none, so that it has a key and a place in the account."""
    if isinstance(bad, Row):
        return bad
    digest = sha256(bad.detail.encode("utf-8", "replace")).hexdigest()
    return Row.model_validate({"file": "", "id": f"line-{bad.line}-{digest[:8]}"})
