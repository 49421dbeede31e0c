"""Versions of a dataset: how two differ, and where a sample comes from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from contracts.errors import Misuse
from contracts.files import sha256_file
from contracts.index import read_index
from contracts.plan import read_plan
from contracts.selection import REFUSED_FILE, read_record, read_selection
from contracts.shards import Shard, committed, dataset_digest


def difference(a: Path, b: Path) -> dict[str, Any]:
    """What ``b`` has, lacks and has otherwise than ``a``: rows by key, samples by the digests of their members."""
    before, after = _Version(a), _Version(b)
    rows: dict[str, list[Any]] = {
        "added": sorted(after.rows.keys() - before.rows.keys()),
        "removed": sorted(before.rows.keys() - after.rows.keys()),
        "changed": [
            {"key": key, "before": before.rows[key], "after": after.rows[key]}
            for key in sorted(before.rows.keys() & after.rows.keys())
            if before.rows[key] != after.rows[key]
        ],
    }
    samples: dict[str, list[Any]] = {
        "added": sorted(after.shards.keys() - before.shards.keys()),
        "removed": sorted(before.shards.keys() - after.shards.keys()),
        "changed": [
            {"key": key, "members": members}
            for key in sorted(before.shards.keys() & after.shards.keys())
            if (members := _changed(before.shards[key], after.shards[key], key))
        ],
    }
    counts = {
        level: {how: len(found) for how, found in told.items()}
        for level, told in (("rows", rows), ("samples", samples))
    }
    return {
        "before": {"dataset": str(a), "digest": before.digest},
        "after": {"dataset": str(b), "digest": after.digest},
        "same": before.digest == after.digest,
        "counts": counts,
        "rows": rows,
        "samples": samples,
    }


class _Version:
    """A dataset's rows (key to how it ended) and samples (key to its shard)."""

    def __init__(self, dataset: Path) -> None:
        self.digest = dataset_digest(dataset)
        self.shards = {key: shard for shard in committed(dataset) for key in shard.record.keys}
        self.rows = {
            line["key"]: " ".join(filter(None, (line["state"], line["reason"])))
            for line in read_index(dataset).select(["level", "key", "state", "reason"]).to_pylist()
            if line["level"] == "row"
        }


def _changed(a: Shard, b: Shard, key: str) -> list[str]:
    """Members of a sample whose bytes differ; equal shards are not read."""
    if a.record.tar_sha256 == b.record.tar_sha256:
        return []
    left, right = ({k: hashlib.sha256(v).digest() for k, v in shard.read(key).items()} for shard in (a, b))
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def trace(dataset: Path, what: str, selection: Path | None = None) -> list[dict[str, Any]]:
    """The way of each sample, row or source that ``what`` names: shard, sample, source bytes, time span, manifest row.

    ``what``: a sample's or a row's key, the corpus's own id, a source file as the manifest names it or by its path, or
    a source's SHA-256. Raises ``Misuse`` where nothing of that name is in ``dataset``.
    """
    index = read_index(dataset).to_pylist()
    digest = sha256_file(Path(what)) if Path(what).is_file() else what
    rows = {
        line["row"]
        for line in index
        if what in (line["key"], line["file"], line["native_id"]) or digest == line["source_sha256"]
    }
    if not rows:
        raise Misuse(f"{dataset} holds nothing named {what!r}: give a key, a source file or its SHA-256")
    plan = read_plan(dataset)
    planned = {row.row: row for row in plan[0]} if plan is not None else {}
    shards = {key: shard for shard in committed(dataset) for key in shard.record.keys}
    chosen = _sides(selection)
    exact = [line for line in index if line["key"] == what and line["level"] == "span"]
    lines = exact or [line for line in index if line["row"] in rows]
    with_spans = {line["row"] for line in lines if line["level"] == "span"}
    found = []
    for line in lines:
        if line["level"] == "row" and line["row"] in with_spans:
            continue  # its spans say the same and more
        entry: dict[str, Any] = {
            "key": line["key"],
            "state": " ".join(filter(None, (line["state"], line["reason"]))),
            "shard": None,
            "source": {"file": line["file"], "sha256": line["source_sha256"], "bytes": line["source_bytes"]},
            "span": {"start_s": line["start_s"], "end_s": line["end_s"], "frames": line["frames"]},
        }
        if line["key"] in shards:
            shard = shards[line["key"]]
            members = {name: list(place) for name, place in shard.offsets[line["key"]].items()}
            entry["shard"] = {"file": shard.tar.name, "sha256": shard.record.tar_sha256, "offset_bytes": members}
        row = planned.get(line["row"])
        if row is not None:
            said = row.values.model_dump(mode="json", exclude_defaults=True)
            entry["manifest_row"] = {"row": row.row, "key": row.key} | said
        if chosen:
            entry["selection"] = chosen.get(line["key"], "not in it")
        found.append(entry)
    return found


def _sides(selection: Path | None) -> dict[str, str]:
    """Sample key to its split, or to the reason that it is left out."""
    import pyarrow.parquet as pq

    if selection is None or read_record(selection) is None:
        return {}
    sides = {sample.key: str(sample.split) for sample in read_selection(selection).samples}
    path = selection / REFUSED_FILE
    lines = pq.read_table(path).to_pylist() if path.is_file() else []
    return sides | {line["key"]: f"left out: {line['reason']}" for line in lines}
