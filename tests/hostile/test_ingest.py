"""All kinds of bad files in one manifest, through the real command: it ends with 0, and the account adds up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hostile import files, lines
from hostile.bench import GOOD, PEOPLE, Bench, Case
from hostile.factory import Factory

from contracts.index import read_index
from contracts.shards import committed

pytestmark = pytest.mark.cluster
CHEAP = (
    lines.escaping_ids, lines.duplicates, lines.escaping_paths, files.no_media, files.playlists, files.external_data,
    files.corrupt_group, files.lying_length, files.no_numbers, files.lying_wav, files.stills,
)  # fmt: skip


def test_bad_files_cost_themselves_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    root = tmp_path / "root"
    (tmp_path / "outside").mkdir()
    root.mkdir()
    for name in GOOD:
        os.link(tmp_path / "bench" / "goods" / name, root / name)
    factory = Factory(root, bench.speaker, seed=3)
    cases: list[Case] = []
    for make in CHEAP:
        cases += [case for case in make(factory, False).cases if case.values and not case.after_plan]
    manifest = tmp_path / "m.jsonl"
    values: list[dict[str, Any]] = [dict(case.values or {}) for case in cases]
    for number, line in enumerate(values):  # two rows of the matrix may use the same id
        line["corpus"] = "bad" if number % 2 else "worse"
    values += [{"file": name, **PEOPLE} for name in GOOD]
    manifest.write_text("\n".join(json.dumps(line) for line in values) + "\n")
    dataset = tmp_path / "D"
    argv = [sys.executable, "-m", "flows", "ingest", "--manifest", str(manifest), "--data-root", str(root)]
    argv += ["--out", str(dataset), "--work", str(tmp_path / "work"), "--workers", "1", "--json", "-q"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)["rows"]
    assert rows["read"] == len(values) == rows["kept"] + sum(rows["rejected"].values())
    assert rows["failed"] == {}
    ledger = read_index(dataset).to_pylist()
    told = [line for line in ledger if line["level"] == "row"]
    for case, line in zip(cases, told):
        if not case.ends[0].startswith("DUPLICATE"):  # ids and contents meet those of other rows here
            assert (line["reason"] or line["state"]) in (*case.ends, "DUPLICATE_CONTENT"), case.says
    assert Counter(line["state"] for line in told) == {"kept": rows["kept"], "rejected": sum(rows["rejected"].values())}
    members = {key: shard.read(key) for shard in committed(dataset) for key in shard.record.keys}
    good = [line for line in ledger if line["level"] == "span" and line["corpus"] == "corpus"]
    assert {line["file"]: members[line["key"]] for line in good} == bench.reference
