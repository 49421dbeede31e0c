"""A version of a dataset without one person, and the proof that nothing of them is left in it."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.consent import RECORDED, mark
from contracts.errors import Misuse
from contracts.files import commit, commit_folder
from contracts.identity import FOLDER as SCORES
from contracts.plan import PLAN_FILE, PlannedRow, read_plan, read_policy, write_plan
from contracts.shards import Shard, committed, write_shard

GONE = "(forgotten)"  # stands where a text named a row that is gone
BLOCK = 1 << 24  # bytes searched at once
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Person:
    """What there is of a speaker in a dataset. Rows of the same source bytes go with theirs, whoever they name."""

    name: str
    rows: tuple[PlannedRow, ...]
    samples: frozenset[str]  # keys

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(row.key for row in self.rows)

    @property
    def sources(self) -> frozenset[str]:
        return frozenset(row.sha256 for row in self.rows if row.sha256)


def find_person(dataset: Path, speaker: str) -> Person:
    """The rows and samples of ``speaker``. Raises ``Misuse`` where the plan names nobody so."""
    plan = read_plan(dataset)
    if plan is None:
        raise Misuse(f"{dataset / PLAN_FILE} does not exist: it says whose rows are whose")
    own = {row.key for row in plan[0] if row.values.speaker == speaker}
    if not own:
        names = sorted({row.values.speaker for row in plan[0] if row.values.speaker})
        raise Misuse(f"{dataset} names no speaker {speaker!r}: it has {', '.join(names[:20])}")
    sources = {row.sha256 for row in plan[0] if row.key in own and row.sha256}
    rows = tuple(row for row in plan[0] if row.key in own or row.sha256 in sources)
    keys = {row.key for row in rows}
    held = (key for shard in committed(dataset) for key in shard.record.keys)
    return Person(speaker, rows, frozenset(key for key in held if key.rpartition("-s")[0] in keys))


def forget(dataset: Path, person: Person, out: Path, progress: Progress | None = None) -> dict[str, int]:
    """Write to ``out`` the version of ``dataset`` without ``person``; counts of shards linked, rewritten, dropped.

    Rows of others keep number, shard and bytes; the plan remembers a digest of the name, so that a manifest that still
    names the person has those rows refused. Raises ``Misuse`` where ``out`` exists.
    """
    from preprocessing.accounts import row_digest

    if out.exists():
        raise Misuse(f"{out} exists: a version is written once, name another folder")
    standing = read_plan(dataset)
    assert standing is not None  # find_person has read it
    rows = [_redacted(row, person.keys) for row in standing[0] if row.key not in person.keys]
    of_shard: dict[int, list[PlannedRow]] = {}
    for row in rows:
        of_shard.setdefault(row.shard, []).append(row)
    policy = read_policy(dataset) or RECORDED
    policy = policy.model_copy(update={"forgotten": tuple(sorted({*policy.forgotten, mark(person.name)}))})
    counts = {"linked": 0, "rewritten": 0, "dropped": 0}
    tars: dict[str, str] = {}  # digest before -> after
    shards = list(committed(dataset))
    with commit_folder(out) as folder:
        write_plan(folder, rows, standing[1], policy)
        for done, shard in enumerate(shards, start=1):
            left = of_shard.get(shard.record.shard, [])
            lines = shard.ledger().to_pylist()
            if not left:
                counts["dropped"] += 1
            elif not _mentions(lines, person.keys):
                counts["linked"] += 1
                _link(shard, folder)
                tars[shard.record.tar_sha256] = shard.record.tar_sha256
            else:
                counts["rewritten"] += 1
                lines = [
                    _without(line, person.keys) for line in lines if line["key"] not in person.samples | person.keys
                ]
                lines = [line for line in lines if line["key"].rpartition("-s")[0] not in person.keys]
                samples = [(key, shard.read(key)) for key in shard.record.keys if key not in person.samples]
                kinds = {row.values.kind for row in left if row.reason is None} | {""}
                steps = {kind: digest for kind, digest in shard.record.steps.items() if kind in kinds}
                digests = [row_digest(row) for row in left]
                told = write_shard(folder, shard.record.shard, samples, lines, steps=steps, rows=digests)
                tars[shard.record.tar_sha256] = told.tar_sha256
            if progress is not None:
                progress(done, len(shards), "shards")
        _scores(dataset, folder, person.samples, tars)
    return counts


def search(folder: Path, person: Person) -> dict[str, Any]:
    """What is left of ``person`` in ``folder``: every file read to its end.

    Keys and source digests are searched for in all bytes, and in every cell of every table, which are compressed;
    the name, the ids and the source files as the whole of a cell. ``found`` names file and what; empty is the proof.
    """
    needles = {*person.keys, *person.sources}
    whole = {person.name, *(name for row in person.rows for name in (row.values.file, row.values.native_id))}
    found: list[str] = []
    files = searched = cells = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        files += 1
        searched += path.stat().st_size
        found += [f"{path}: {needle}" for needle in _in_bytes(path, needles)]
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            metadata = b" ".join((table.schema.metadata or {}).values()).decode("utf-8", "replace")
            for text in (metadata, *_texts(table)):
                cells += 1
                if text in whole or any(needle in text for needle in needles) or _names(text, person.name):
                    found.append(f"{path}: {text[:120]}")
    return {
        "files": files,
        "bytes": searched,
        "cells": cells,
        "searched_for": len(needles) + len(whole),
        "found": found,
    }


def _names(text: str, name: str) -> bool:
    """Whether a cell that holds a row as JSON names the speaker."""
    return text.startswith("{") and f'"speaker":{_quoted(name)}' in text


def _quoted(name: str) -> str:
    import json

    return json.dumps(name, ensure_ascii=False)


def _texts(table: pa.Table) -> Iterable[str]:
    for column in table.columns:
        if pa.types.is_string(column.type):
            yield from (value for value in column.to_pylist() if value)


def _in_bytes(path: Path, needles: set[str]) -> set[str]:
    sought = {needle: needle.encode() for needle in needles}
    overlap = max((len(data) for data in sought.values()), default=1) - 1
    hits: set[str] = set()
    with path.open("rb") as file:
        tail = b""
        while block := file.read(BLOCK):
            window = tail + block
            hits |= {needle for needle, data in sought.items() if data in window}
            tail = window[-overlap:] if overlap else b""
    return hits


def _mentions(lines: list[dict[str, Any]], keys: frozenset[str]) -> bool:
    return any(
        line["key"] in keys
        or line["key"].rpartition("-s")[0] in keys
        or any(key in (line["detail"] or "") for key in keys)
        for line in lines
    )


def _without(line: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return line | {"detail": _gone(line["detail"], keys)}


def _redacted(row: PlannedRow, keys: frozenset[str]) -> PlannedRow:
    return row.model_copy(update={"detail": _gone(row.detail, keys)})


def _gone(text: str, keys: frozenset[str]) -> str:
    for key in sorted(keys, key=len, reverse=True):
        text = text.replace(key, GONE) if text else text
    return text


def _link(shard: Shard, folder: Path) -> None:
    """The shard's three files under another folder: hard links where the disk allows, they are never edited."""
    for path in (shard.tar, shard.ledger_file, shard.tar.with_suffix(".json")):
        try:
            os.link(path, folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)


def _scores(dataset: Path, folder: Path, samples: frozenset[str], tars: dict[str, str]) -> None:
    """Tables beside the shards, without the lines of ``samples``; those that name a shard name the new one."""
    for path in sorted((dataset / SCORES).glob("*.parquet")):
        table = pq.read_table(path)
        if "key" not in table.column_names:
            continue
        lines = [line for line in table.to_pylist() if line["key"] not in samples]
        if "tar_sha256" in table.column_names:
            lines = [line | {"tar_sha256": tars.get(line["tar_sha256"], "")} for line in lines]
        packed = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(lines, schema=table.schema), packed)
        with commit(folder / SCORES / path.name) as file:
            file.write(packed.getbuffer())
