"""Manifests of any corpus: a table, a folder of media, or the annotation files of a known corpus become rows."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contracts.errors import Misuse
from contracts.manifest import Row


@dataclass(frozen=True)
class BadLine:
    """A manifest line that is no row; in the ledger it is rejected as BAD_MANIFEST."""

    line: int  # counted from 1, the header included
    detail: str
    file: str = ""  # among several annotation files, the one it stands in


@dataclass(frozen=True)
class Media:
    """How the media of a corpus lie under the data root.

    ``cut``: each file is one clip, so that the annotated times (and, where clips are also cropped, boxes) no longer
    apply. ``template``: the file's name with the reader's fields in braces. ``frame``: width and height in pixels that
    boxes refer to, where the annotation does not say.
    """

    template: str
    cut: bool = False
    frame: tuple[int, int] | None = None

    def file(self, **fields: str | int) -> str:
        """The file of a clip, relative to the data root."""
        return self.template.format(**fields)


class Reader(Protocol):
    """A module of this folder that knows the annotation files of one or more corpora."""

    VIDEOS: dict[str, str]  # corpus -> template of whole videos
    CLIPS: dict[str, str]  # corpus -> template of clips cut from them
    FIELDS: frozenset[str]  # what a template may name
    HANDED_OUT_AS_CLIPS: frozenset[str]  # corpora whose default is their clips, though whole videos can be read

    def read(self, corpus: str, annotations: Path, media: Media) -> Iterator[Row | BadLine]:
        """Rows and bad lines, in the order of the files. Raises ``Misuse`` where the files are not there."""


MODULES = {
    "hdtf": "hdtf",
    "voxceleb1": "voxceleb",
    "voxceleb2": "voxceleb",
    "avspeech": "avspeech",
    "lrs2": "lrs",
    "lrs3": "lrs",
    "vfhq": "vfhq",
}
CORPORA = tuple(MODULES)


def read_manifest(path: Path, data_root: Path | str) -> list[Row | BadLine]:
    """All rows of the manifest at ``path``, in order, bad lines in their places.

    ``path`` is a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` table, or a folder whose media files (relative to
    ``data_root``) are the rows. Raises ``Misuse`` where it is neither, or has no ``file`` column.
    """
    from preprocessing.corpora import folder, table

    if path.is_dir():
        return list(folder.read(path, Path(data_root)))
    if not path.is_file():
        raise Misuse(f"{path} does not exist: give a manifest (.csv, .jsonl, .parquet) or a folder of media")
    return table.read(path)


def read_corpus(
    corpus: str,
    annotations: Path,
    *,
    layout: str = "",
    template: str = "",
    frame: tuple[int, int] | None = None,
) -> list[Row | BadLine]:
    """All rows of a known corpus (``CORPORA``), from its own annotation files, bad lines in their places.

    ``layout`` is ``videos`` (whole videos, the annotated times apply) or ``clips`` (one file per clip); by default the
    one that the corpus is handed out in. ``template`` names the files otherwise than the reader does.
    Raises ``Misuse`` for an unknown corpus, layout or field, and where the annotation files are not there.
    """
    from importlib import import_module

    if corpus not in MODULES:
        raise Misuse(f"{corpus!r} is no corpus we can read: choose {', '.join(CORPORA)}, or give --manifest")
    reader: Reader = import_module(f"preprocessing.corpora.{MODULES[corpus]}")
    layouts = {"videos": reader.VIDEOS.get(corpus, ""), "clips": reader.CLIPS.get(corpus, "")}
    known = [name for name, default in layouts.items() if default]
    layout = layout or ("clips" if corpus in reader.HANDED_OUT_AS_CLIPS else known[0])
    if layout not in known:
        raise Misuse(f"{corpus} has no layout {layout!r}: choose {' or '.join(known)}")
    _check_template(template, reader.FIELDS)
    rows = list(reader.read(corpus, annotations, Media(template or layouts[layout], layout == "clips", frame)))
    if not any(isinstance(row, Row) for row in rows):
        first = f"; the first odd line: {rows[0].detail}" if rows and isinstance(rows[0], BadLine) else ""
        raise Misuse(f"{annotations} holds no row of {corpus}{first}")
    return rows


def _check_template(template: str, fields: frozenset[str]) -> None:
    try:
        named = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise Misuse(f"--media {template!r}: {error}") from None
    if not named <= fields:
        raise Misuse(f"--media {template!r}: may name {', '.join(sorted('{' + name + '}' for name in fields))}")
