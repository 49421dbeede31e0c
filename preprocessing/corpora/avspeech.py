"""AVSpeech (Ephrat et al., SIGGRAPH 2018): a CSV of YouTube id, start, end, and the face's centre.

The official files have no header: ``id,start_s,end_s,x,y``, the centre as fractions of the frame at the start. Copies
written by pandas have one, and an index before the id. Ids are eleven characters and may begin with ``-`` (a
spreadsheet breaks such ones, which is then a bad line). The list is CC BY 4.0; the videos stay their owners'.

The media: ``<id>.mp4``, whole videos (the times apply); or ``--layout clips``, ``<id>_<start>_<end>.mp4`` with the
times as the file writes them. The centre applies to both. Fields: id, start, end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contracts.errors import Misuse
from contracts.manifest import Row
from preprocessing.corpora import BadLine, Media
from preprocessing.corpora.lines import YOUTUBE_ID, bad, real, row_or_bad, span, text_lines

VIDEOS = {"avspeech": "{id}.mp4"}
CLIPS = {"avspeech": "{id}_{start}_{end}.mp4"}
FIELDS = frozenset({"id", "start", "end"})
HANDED_OUT_AS_CLIPS: frozenset[str] = frozenset()
COLUMNS = ["id", "start", "end", "x", "y"]


def read(corpus: str, annotations: Path, media: Media) -> Iterator[Row | BadLine]:
    """A row per line of the CSV ``annotations``, or of every CSV of that folder. The split is in the file's name."""
    files = sorted(annotations.glob("*.csv")) if annotations.is_dir() else [annotations]
    if not files or not files[0].is_file():
        raise Misuse(
            f"{annotations} is no CSV and holds none: give avspeech_train.csv, avspeech_test.csv or their folder"
        )
    for path in files:
        yield from _file(path, media)


def _file(path: Path, media: Media) -> Iterator[Row | BadLine]:
    split = next((name for name in ("train", "test") if name in path.stem.lower()), None)
    columns = COLUMNS
    for line in text_lines(path, path.name):
        if isinstance(line, BadLine):
            yield line
            continue
        number, text = line
        cells = [cell.strip() for cell in text.split(",")]
        if number == 1 and {"start", "end"} <= {cell.lower() for cell in cells}:
            columns = [cell.lower() for cell in cells]
            if not set(COLUMNS) <= set(columns):
                raise Misuse(f"{path}: its header lacks one of {', '.join(COLUMNS)}")
            continue
        if len(cells) != len(columns):
            yield bad(path.name, number, f"{len(cells)} fields, {len(columns)} are needed")
            continue
        named = dict(zip(columns, cells))
        try:
            yield row_or_bad(path.name, number, _values(named, media) | {"split": split})
        except ValueError as error:
            yield bad(path.name, number, str(error))


def _values(cells: dict[str, str], media: Media) -> dict[str, object]:
    name, start, end = cells["id"], cells["start"], cells["end"]
    if not YOUTUBE_ID.fullmatch(name):
        raise ValueError(f"id: {name!r} is no YouTube id")
    start_s, end_s = span(real(start, "start"), real(end, "end"))
    values: dict[str, object] = {
        "file": media.file(id=name, start=start, end=end),
        "id": f"{name}_{start}_{end}",
        "corpus": "avspeech",
        "face_x": real(cells["x"], "x"),
        "face_y": real(cells["y"], "y"),
        "licence": "CC BY 4.0 (annotations)",
        "video": name,
    }
    return values if media.cut else values | {"start_s": start_s, "end_s": end_s}
