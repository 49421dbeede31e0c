"""One measurement on a dataset of very many, very small samples: ``ledger.py WHAT DATASET LINES`` (see scale.py)."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from contracts.manifest import Row, row_from
from contracts.plan import PlannedRow, shard_of, write_plan
from contracts.shards import write_shard
from preprocessing.accounts import pending, planned_shards, row_digest, steps_of, verify
from preprocessing.build import IngestSettings

PER_SHARD = 64
SETTINGS = IngestSettings(rows_per_shard=PER_SHARD)
SPEAKERS = 5000


def manifest(rows: int) -> list[Row]:
    """Rows of clips that are not there."""
    people = ({"speaker": f"s{n % SPEAKERS}", "gender": "fm"[n % 2]} for n in range(rows))
    return [row_from({"file": f"clips/{n}.mp4", **facts}) for n, facts in enumerate(people)]


def make(dataset: Path, rows: int) -> None:
    """Half the lines are rows, half their spans; a tenth of the rows is refused."""
    planned = [
        PlannedRow(row=n, shard=shard_of(n, PER_SHARD), key=row.key, sha256=f"{n:064x}", bytes=100_000, values=row)
        for n, row in enumerate(manifest(rows))
    ]
    write_plan(dataset, planned, PER_SHARD)
    for number, part in planned_shards(dataset).items():
        samples, lines = [], []
        for row in part:
            values = row.values
            line = {"row": row.row, "key": row.key, "state": "kept", "file": values.file, "kind": "clip"}
            line |= {"source_sha256": row.sha256, "source_bytes": row.bytes, "native_id": values.native_id}
            line |= {"corpus": values.corpus, "speaker": values.speaker, "gender": values.gender}
            refused = {"state": "rejected", "reason": "NO_FACE"} if row.row % 10 == 9 else {}
            scores = {"frames": 100, "side": 256, "face_px": 120.0, "loudness_dbfs": -20.0, "static": 0.01}
            lines += [line | {"level": "row"} | refused]
            lines += [line | {"level": "span", "span": 0, "key": f"{row.key}-s00"} | scores | refused]
            if not refused:
                samples.append((f"{row.key}-s00", {"json": b"{}"}))
        steps, digests = steps_of(part, SETTINGS), [row_digest(row) for row in part]
        write_shard(dataset, number, samples, lines, steps=steps, rows=digests)


def work(what: str, dataset: Path, rows: int) -> None:
    """One of the commands' cores."""
    match what:
        case "make":
            make(dataset, rows)
        case "plan":
            planned_shards(dataset)
        case "pending":
            assert pending(dataset, SETTINGS) == []
        case "verify":
            assert verify(dataset).read == rows
        case "index":
            from contracts.index import account, read_index

            assert account(read_index(dataset)).read == rows
        case "select":
            from flows.choice import choose
            from flows.params import SelectionParams

            rules = {"SILENT": "loudness_dbfs > -60", "STATIC_FRAMES": "static < 0.9"}
            selection, _ = choose(dataset, SelectionParams.model_validate({"rules": rules}))
            assert selection.samples


def main() -> None:
    what, dataset, lines = sys.argv[1:]
    began = time.monotonic()
    work(what, Path(dataset), int(lines) // 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"seconds": time.monotonic() - began, "peak_mb": peak}))


if __name__ == "__main__":
    main()
