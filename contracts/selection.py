"""A selection: which samples of a dataset are used, each in which split, and why the others are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import Corrupt, Misuse
from contracts.files import commit, commit_bytes, sha256_file
from contracts.settings import canonical_digest, canonical_json

TABLE_FILE = "selection.parquet"
RECORD_FILE = "selection.json"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("kind", pa.string()),
        ("frames", pa.int64()),
        ("speaker", pa.string()),
        ("gender", pa.string()),
        ("split", pa.string()),
    ]
)
REFUSED_SCHEMA = pa.schema([("key", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
REFUSED_FILE = "refused.parquet"


class Chosen(BaseModel):
    """One selected sample. ``frames`` at 25 per second; ``speaker`` is never empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    shard: int
    kind: Literal["clip", "face", "speech"]
    frames: int
    speaker: str  # where the manifest names none: a name that every sample of the same source shares
    gender: Literal["f", "m", "unknown"]
    split: Literal["train", "val"]


class Selection(BaseModel):
    """The chosen samples of one dataset, in row order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str  # digest of the dataset that was selected from
    samples: tuple[Chosen, ...]
    refused: dict[str, int] = Field(default_factory=dict)  # reason -> samples
    rules: dict[str, str] = Field(default_factory=dict)  # reason -> what had to hold
    split: str = ""  # digest of the frozen split that gave the sides; empty where this selection made its own

    @property
    def digest(self) -> str:
        """Identity of the choice: dataset, keys, speakers and splits; not the rules that led to it."""
        return canonical_digest([self.dataset, [sample.model_dump(mode="json") for sample in self.samples]])


class SelectionRecord(BaseModel):
    """``selection.json``, written last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    dataset: str
    digest: str
    table_sha256: str
    refused: dict[str, int]
    rules: dict[str, str]
    split: str = ""  # digest of the frozen split, where one was used
    counts: dict[str, int]  # samples and speakers per split, for people to read


def write_selection(folder: Path, selection: Selection, refused: pa.Table | None = None) -> None:
    """Commit ``selection``; ``refused`` (``REFUSED_SCHEMA``) says why the dataset's other samples are not in it."""
    lines = [sample.model_dump(mode="json") for sample in selection.samples]
    with commit(folder / REFUSED_FILE) as file:
        pq.write_table(REFUSED_SCHEMA.empty_table() if refused is None else refused.cast(REFUSED_SCHEMA), file)
    with commit(folder / TABLE_FILE) as file:
        pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), file)
    counts = {}
    for split in ("train", "val"):
        members = [sample for sample in selection.samples if sample.split == split]
        counts[f"{split}_samples"] = len(members)
        counts[f"{split}_speakers"] = len({sample.speaker for sample in members})
    record = SelectionRecord(
        dataset=selection.dataset,
        digest=selection.digest,
        table_sha256=sha256_file(folder / TABLE_FILE),
        refused=selection.refused,
        rules=selection.rules,
        split=selection.split,
        counts=counts,
    )
    commit_bytes(folder / RECORD_FILE, canonical_json(record.model_dump(mode="json")).encode())


def read_record(folder: Path) -> SelectionRecord | None:
    """The record of the selection in ``folder``, or ``None`` where there is none. Raises ``Corrupt``."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return SelectionRecord.model_validate(json.loads(path.read_bytes()))
    except (ValueError, ValidationError, RecursionError) as error:
        raise Corrupt(path, f"not a readable selection: {str(error).splitlines()[0]}") from error


def read_selection(folder: Path) -> Selection:
    """The selection in ``folder``, checked. Raises ``Misuse`` where there is none, ``Corrupt`` where it is damaged."""
    record = read_record(folder)
    if record is None:
        raise Misuse(f"{folder / RECORD_FILE} does not exist: select first: voxface dataset select")
    path = folder / TABLE_FILE
    actual = sha256_file(path) if path.is_file() else "no file"
    if actual != record.table_sha256:
        raise Corrupt(path, "is not what its record says", record.table_sha256, actual)
    try:
        samples = tuple(Chosen.model_validate(line) for line in pq.read_table(path).to_pylist())
    except (ValueError, pa.ArrowException) as error:
        raise Corrupt(path, f"not a readable selection: {str(error).splitlines()[0]}") from error
    selection = Selection(
        dataset=record.dataset, samples=samples, refused=record.refused, rules=record.rules, split=record.split
    )
    if selection.digest != record.digest:
        raise Corrupt(path, "does not fit its record", record.digest, selection.digest)
    return selection
