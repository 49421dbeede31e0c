"""VFHQ (Xie et al., CVPRW 2022): a text file per clip, ``meta_info/Clip+<id>+P<person>+C<clip>+F<first>-<last>.txt``.

What this stands on: none of its files was at hand. The names, the lines and the frame numbers are as three public
readers of them agree (yunyu/vfhq-downloader, anjieyang/VFHQ-downloader, jinwonkim93/vfhq_processing, read 2026-11):
lines that begin with ``H``, ``W``, ``FPS`` and ``CROP`` and end in one number, ``CROP`` in four (x0 y0 x1 y1, pixels of
the W x H frame); times are frame numbers over FPS. Two of the three leave out the first and last frame, as we do.
The corpus states no licence that we could read; none is set.

The media: ``<id>.mp4``, whole videos (times and box apply); or ``--layout clips``, ``<name of the text file>.mp4``, cut
and cropped (neither applies). VFHQ is also handed out as pictures, without sound: those are no clips here.
Fields: id, name, person, clip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import Misuse
from contracts.manifest import Row
from preprocessing.corpora import BadLine, Media
from preprocessing.corpora.lines import bad, fractions, real, row_or_bad, span, text_lines

VIDEOS = {"vfhq": "{id}.mp4"}
CLIPS = {"vfhq": "{name}.mp4"}
FIELDS = frozenset({"id", "name", "person", "clip"})
HANDED_OUT_AS_CLIPS: frozenset[str] = frozenset()
NAME = re.compile(r"Clip\+(?P<id>[A-Za-z0-9_-]{11})\+P(?P<person>\d+)\+C(?P<clip>\d+)\+F(?P<first>\d+)-(?P<last>\d+)")
CELLS = {"H": 1, "W": 1, "FPS": 1, "CROP": 4}


def read(corpus: str, annotations: Path, media: Media) -> Iterator[Row | BadLine]:
    """A row per text file of the folder ``annotations``, by name; the speaker is the person of that video."""
    files = sorted(annotations.rglob("Clip+*.txt")) if annotations.is_dir() else []
    if not files:
        raise Misuse(f"{annotations} holds no Clip+*.txt: give the folder meta_info of VFHQ")
    for path in files:
        yield _clip(path, path.relative_to(annotations).as_posix(), media)


def _clip(path: Path, label: str, media: Media) -> Row | BadLine:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return bad(label, 1, "its name is not Clip+<id>+P<person>+C<clip>+F<first>-<last>")
    found: dict[str, list[float]] = {}
    number = 1
    for line in text_lines(path, label):
        if isinstance(line, BadLine):
            return line
        number, text = line
        kind, *cells = text.replace(":", " ").split()
        if kind in CELLS:
            try:
                found[kind] = [real(cell, kind) for cell in cells[-CELLS[kind] :]]
            except ValueError as error:
                return bad(label, number, str(error))
            if len(found[kind]) != CELLS[kind]:
                return bad(label, number, f"{kind} has {len(cells)} numbers, {CELLS[kind]} are needed")
    if missing := CELLS.keys() - found.keys():
        return bad(label, number, f"ends without {', '.join(sorted(missing))}")
    try:
        return row_or_bad(label, 1, _values(match, found, media))
    except ValueError as error:
        return bad(label, number, str(error))


def _values(match: re.Match[str], found: dict[str, list[float]], media: Media) -> dict[str, Any]:
    [fps], [width], [height] = found["FPS"], found["W"], found["H"]
    if fps <= 0:
        raise ValueError(f"FPS: {fps:g} frames per second")
    x0, y0, x1, y1 = found["CROP"]
    box = fractions(x0, y0, x1, y1, width, height)
    start_s, end_s = span((int(match["first"]) + 1) / fps, (int(match["last"]) - 1) / fps)
    name = match.group(0)
    values: dict[str, Any] = {
        "file": media.file(id=match["id"], name=name, person=match["person"], clip=match["clip"]),
        "id": name,
        "corpus": "vfhq",
        "speaker": f"{match['id']}+P{match['person']}",
        "video": match["id"],
    }
    return values if media.cut else values | {"start_s": start_s, "end_s": end_s, "box": box}
