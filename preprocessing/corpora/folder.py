"""A folder as manifest: every media file in it, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import Misuse
from contracts.manifest import SAMPLE_MEDIA, Row, row_from

CLIPS = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv"})


def read(folder: Path, data_root: Path) -> Iterator[Row]:
    """A row for each clip, still and speech file under ``folder``, in the order of their paths.

    Hidden files and other types are passed over; links to folders are not entered.
    Raises ``Misuse`` where ``folder`` lies outside ``data_root`` or holds no media.
    """
    base = folder.resolve()
    try:
        prefix = base.relative_to(data_root.resolve())
    except ValueError:
        raise Misuse(f"{folder} is not under the data root {data_root}: give --data-root {folder}") from None
    names = []
    for place, folders, files in os.walk(base):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = Path(name).suffix.lower()
            if not name.startswith(".") and (suffix in CLIPS or suffix in SAMPLE_MEDIA):
                names.append((prefix / Path(place).relative_to(base) / name).as_posix())
    if not names:
        raise Misuse(f"{folder} holds no clips, pictures or sound files")
    for name in sorted(names):
        yield row_from({"file": name})
