"""Manifests of any corpus: a table (CSV, JSON lines, Parquet) or a folder of media becomes rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.errors import Misuse
from contracts.manifest import Row


@dataclass(frozen=True)
class BadLine:
    """A manifest line that is no row; in the ledger it is rejected as BAD_MANIFEST."""

    line: int  # counted from 1, the header included
    detail: str


def read_manifest(path: Path, data_root: Path) -> list[Row | BadLine]:
    """All rows of the manifest at ``path``, in order, bad lines in their places.

    ``path`` is a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` table, or a folder whose media files (relative to
    ``data_root``) are the rows. Raises ``Misuse`` where it is neither, or has no ``file`` column.
    """
    from preprocessing.corpora import folder, table

    if path.is_dir():
        return list(folder.read(path, data_root))
    if not path.is_file():
        raise Misuse(f"{path} does not exist: give a manifest (.csv, .jsonl, .parquet) or a folder of media")
    return table.read(path)
