"""Shards: deterministic tar, ledger, and the record that makes them count."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, field_validator

from contracts.errors import Corrupt
from contracts.files import commit_bytes, commit_written, sha256_file, sha256_tree
from contracts.index import ledger
from contracts.manifest import KEY
from contracts.sample import MEMBERS
from contracts.settings import canonical_digest, canonical_json

RECORD = re.compile(r"shard-(\d{6})\.json")
SCHEMA = 2  # of a record
MEMBER_BYTES = 2**31 - 1  # of one member: half an hour of frames has less; what claims more is not read
SEAL = "record_sha256"  # member of a record's file: the digest of all its other members


class ShardRecord(BaseModel):
    """Written last. A shard without a fitting record does not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    shard: int
    tar_sha256: str
    tar_bytes: int
    ledger_sha256: str
    keys: list[str]
    read: int  # rows, kept + rejected + failed
    kept: int
    rejected: dict[str, int]
    failed: dict[str, int]
    steps: dict[str, str]  # by kind of row: digest of the steps that touch it, and their settings
    rows: list[str]  # digest of each planned row (key, source digest, values) it was made from

    @field_validator("steps", mode="before")
    @classmethod
    def _one_for_all(cls, value: object) -> object:
        return {"": value} if isinstance(value, str) else value

    @field_validator("rows", mode="before")
    @classmethod
    def _all_in_one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


def write_shard(
    dataset: Path,
    number: int,
    samples: list[tuple[str, dict[str, bytes]]],
    lines: list[dict[str, Any]],
    *,
    steps: dict[str, str] | str,
    rows: list[str] | str,
) -> ShardRecord:
    """Commit one shard: tar, ledger, then the record. Equal inputs give equal bytes.

    ``samples`` are ``(key, members by extension)`` in order; ``lines`` the ledger's. ``steps`` and ``rows`` say what
    it was made by and from, as the record keeps it (a plain text stands for all kinds, all rows).
    Raises ``ValueError`` where the ledger's rows do not add up or a key is not a plain name.
    """
    from contracts.index import account

    base = dataset / f"shard-{number:06d}"
    table = ledger(lines)
    count = account(table)
    count.check()
    packed = io.BytesIO()
    pq.write_table(table, packed)
    tar_sha256 = commit_written(base.with_suffix(".tar"), lambda file: _write_tar(file, samples))
    ledger_sha256 = commit_written(base.with_suffix(".parquet"), lambda file: file.write(packed.getbuffer()))
    record = ShardRecord.model_validate(
        {
            "shard": number,
            "tar_sha256": tar_sha256,
            "tar_bytes": base.with_suffix(".tar").stat().st_size,
            "ledger_sha256": ledger_sha256,
            "keys": [key for key, _ in samples],
            "read": count.read,
            "kept": count.kept,
            "rejected": {str(reason): n for reason, n in sorted(count.rejected.items())},
            "failed": dict(sorted(count.failed.items())),
            "steps": steps,
            "rows": rows,
        }
    )
    commit_bytes(base.with_suffix(".json"), _sealed(record))
    return record


def _sealed(record: ShardRecord) -> bytes:
    """The record's file: its members and their digest, so that a flipped bit shows in any of them."""
    members = record.model_dump(mode="json")
    return canonical_json(members | {SEAL: canonical_digest(members)}).encode()


def _write_tar(file: Any, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    """USTAR with fixed owner, mode and time: the bytes depend on the samples alone."""
    seen: set[str] = set()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            if not KEY.fullmatch(key) or key in seen:
                raise ValueError(f"not a plain, new key: {key!r}")
            seen.add(key)
            for extension in MEMBERS:
                if extension in members:
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(members[extension])
                    info.mode = 0o644
                    tar.addfile(info, io.BytesIO(members[extension]))


@dataclass(frozen=True)
class Shard:
    """A committed shard of a dataset, opened through its record."""

    folder: Path
    record: ShardRecord

    @property
    def tar(self) -> Path:
        return self.folder / f"shard-{self.record.shard:06d}.tar"

    @property
    def ledger_file(self) -> Path:
        return self.tar.with_suffix(".parquet")

    def verify(self) -> None:
        """Raise ``Corrupt``, naming file and both digests, unless both files are what the record says."""
        for path, expected in ((self.tar, self.record.tar_sha256), (self.ledger_file, self.record.ledger_sha256)):
            if not path.is_file():
                raise Corrupt(path, "is missing", expected, "no file")
            actual = sha256_file(path)
            if actual != expected:
                raise Corrupt(path, "is not what its record says", expected, actual)
        names = [f"{key}" for key in self.offsets]
        if names != self.record.keys:
            raise Corrupt(self.tar, "holds other keys than its record names")

    def ledger(self) -> pa.Table:
        """The shard's ledger. Raises ``Corrupt`` where its digest differs, or it is none."""
        actual = sha256_file(self.ledger_file) if self.ledger_file.is_file() else "no file"
        if actual != self.record.ledger_sha256:
            raise Corrupt(self.ledger_file, "is not what its record says", self.record.ledger_sha256, actual)
        try:
            return pq.read_table(self.ledger_file)
        except (pa.ArrowException, OSError) as error:
            raise Corrupt(self.ledger_file, f"not a readable ledger: {str(error).splitlines()[0]}") from error

    @cached_property
    def offsets(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Byte offset and length of every member: ``{key: {extension: (offset, bytes)}}``.

        Raises ``Corrupt`` for anything but plain files named ``<key>.<extension>``, each once, none with holes or huge.
        """
        found: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(self.tar, "r:") as tar:
                for info in tar:
                    key, _, extension = info.name.partition(".")
                    # not info.isreg(): to tarfile a sparse file, which expands on reading, is a regular one
                    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and info.sparse is None
                    if not plain or not KEY.fullmatch(key) or extension not in MEMBERS:
                        raise Corrupt(self.tar, f"unexpected member {info.name!r}")
                    if extension in found.setdefault(key, {}):
                        raise Corrupt(self.tar, f"member {info.name!r} stands twice")
                    if info.size > MEMBER_BYTES:
                        raise Corrupt(self.tar, f"member {info.name!r} claims {info.size} bytes")
                    found[key][extension] = (info.offset_data, info.size)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise Corrupt(self.tar, f"not a readable shard: {error}") from error
        return found

    def read(self, key: str, extensions: tuple[str, ...] = MEMBERS) -> dict[str, bytes]:
        """The wanted members of one sample, by extension; those it lacks are left out."""
        members = {}
        with self.tar.open("rb") as file:
            for extension in extensions:
                if extension in self.offsets[key]:
                    offset, size = self.offsets[key][extension]
                    file.seek(offset)
                    members[extension] = file.read(size)
                    if len(members[extension]) != size:
                        raise Corrupt(self.tar, f"ends inside {key}.{extension}")
        return members


def open_shard(dataset: Path, number: int) -> Shard | None:
    """The shard, or ``None`` where it has no readable record or lacks a file (it is then made anew)."""
    try:
        return read_shard(dataset, number)
    except Corrupt:
        return None


def read_shard(dataset: Path, number: int) -> Shard:
    """The committed shard; its files' digests are not checked, only that they are there and the tar is whole.

    Raises ``Corrupt``, naming the file at fault, and for a file that is missing or cut both digests.
    """
    path = dataset / f"shard-{number:06d}.json"
    try:
        data = path.read_bytes()
        members = json.loads(data)
        members.pop(SEAL, None)
        if members.get("schema_version", SCHEMA) != SCHEMA:
            raise Corrupt(path, "was written by another version of this program: voxface ingest makes its shard anew")
        record = ShardRecord.model_validate(members)
    except FileNotFoundError:
        raise Corrupt(path, "is missing") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(path, f"not a readable record: {(str(error).splitlines() or [''])[0]}") from error
    if _sealed(record) != data:
        raise Corrupt(path, "does not have the digest that it names")
    if record.shard != number:
        raise Corrupt(path, f"is the record of shard {record.shard}")
    shard = Shard(dataset, record)
    for file, expected in ((shard.tar, record.tar_sha256), (shard.ledger_file, record.ledger_sha256)):
        if not file.is_file():
            raise Corrupt(file, "is missing", expected, "no file")
    found = shard.tar.stat().st_size
    if found != record.tar_bytes:
        raise Corrupt(shard.tar, f"has {found} of {record.tar_bytes} bytes", record.tar_sha256, sha256_file(shard.tar))
    return shard


def committed(dataset: Path) -> Iterator[Shard]:
    """The committed shards of a dataset, in order.

    Raises ``Corrupt`` as :func:`read_shard` where a record stands but it or its files are damaged.
    """
    for path in sorted(dataset.glob("shard-*.json")):
        found = RECORD.fullmatch(path.name)
        if found:
            yield read_shard(dataset, int(found[1]))


def dataset_digest(dataset: Path) -> str:
    """One digest of all committed shards: tars and ledgers by their records."""
    files = {}
    for shard in committed(dataset):
        files[shard.tar.name] = shard.record.tar_sha256
        files[shard.ledger_file.name] = shard.record.ledger_sha256
    return sha256_tree(files)
