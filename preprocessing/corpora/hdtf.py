"""HDTF (Zhang et al., CVPR 2021): four annotation files for each of the groups RD, WDA and WRA.

Per group, space-separated, without header: ``*_video_url.txt`` (name, address), ``*_resolution.txt`` (name.mp4, height
in pixels that boxes refer to), ``*_annotion_time.txt`` (name.mp4, then mm:ss-mm:ss per clip) and ``*_crop_wh.txt``
(name_i.mp4, left, width, top, height in that resolution); ``*_crop_ratio.txt`` (name_i.mp4, zoom) where it is there.
The annotations are CC BY 4.0; the videos stay their owners'.

The media: ``<name>.mp4``, whole videos (times and box apply); or ``--layout clips``, ``<name>_<clip>.mp4``, cut and
cropped as the corpus's authors do it (neither applies). Fields: group, name, clip.

A clip whose line, box or height is missing or broken is a bad line; so is a line that no clip uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import Misuse
from contracts.manifest import Row
from preprocessing.corpora import BadLine, Media
from preprocessing.corpora.lines import bad, fractions, real, row_or_bad, span, text_lines, whole

VIDEOS = {"hdtf": "{name}.mp4"}
CLIPS = {"hdtf": "{name}_{clip}.mp4"}
FIELDS = frozenset({"group", "name", "clip"})
HANDED_OUT_AS_CLIPS: frozenset[str] = frozenset()
INTERVAL = re.compile(r"(\d{1,3}):([0-5]\d)-(\d{1,3}):([0-5]\d)")
# The files give the reference height alone. Not in the annotations: the width, as of nearly all videos there
ASPECT = 16 / 9


@dataclass
class _Line:
    number: int
    cells: list[str]
    used: bool = False


class _Table:
    """One annotation file: its lines by name; those that are broken or named twice wait to be told."""

    def __init__(self, folder: Path, name: str, required: bool = True) -> None:
        self.label, self.lines, self.bad = name, dict[str, _Line](), list[BadLine]()
        path = folder / name
        if not path.is_file():
            if required:
                raise Misuse(f"{path} does not exist: give the folder with HDTF's annotation files, all four per group")
            return
        for line in text_lines(path, name):
            if isinstance(line, BadLine):
                self.bad.append(line)
                continue
            key, *cells = line[1].split()
            key = key.removesuffix(".mp4")
            if key in self.lines:
                self.bad.append(bad(name, line[0], f"{key} stands in line {self.lines[key].number} already"))
            else:
                self.lines[key] = _Line(line[0], cells)

    def get(self, name: str, cells: int) -> list[str]:
        """The cells of ``name``. Raises ``ValueError`` where there are none, or not ``cells`` of them."""
        line = self.lines.get(name)
        if line is None:
            raise ValueError(f"{name} has no line in {self.label}")
        line.used = True
        if len(line.cells) != cells:
            raise ValueError(f"{self.label} line {line.number}: {len(line.cells) + 1} fields, {cells + 1} are needed")
        return line.cells

    def number(self, name: str) -> str:
        return f"{self.label} line {self.lines[name].number}"

    def rest(self) -> Iterator[BadLine]:
        """What is broken here, and the lines that nothing asked for."""
        yield from self.bad
        yield from (bad(self.label, x.number, f"{name}: no clip") for name, x in self.lines.items() if not x.used)


def read(corpus: str, annotations: Path, media: Media) -> Iterator[Row | BadLine]:
    """A row per time interval of the folder ``annotations``, group by group, then the lines that gave none.

    The speaker is the name without its last number (WDA, WRA); in RD, where nobody is named, the video.
    """
    suffix = "_annotion_time.txt"
    groups = sorted(path.name.removesuffix(suffix) for path in annotations.glob(f"*{suffix}"))
    if not groups:
        raise Misuse(f"{annotations} holds no *{suffix}: give the folder with HDTF's annotation files")
    for group in groups:
        yield from _group(annotations, group, media)


def _group(folder: Path, group: str, media: Media) -> Iterator[Row | BadLine]:
    times = _Table(folder, f"{group}_annotion_time.txt")
    urls, heights = _Table(folder, f"{group}_video_url.txt"), _Table(folder, f"{group}_resolution.txt")
    crops = _Table(folder, f"{group}_crop_wh.txt")
    zooms = _Table(folder, f"{group}_crop_ratio.txt", required=False)
    for name, line in times.lines.items():
        line.used = bool(line.cells)
        for clip, interval in enumerate(line.cells):
            values: dict[str, Any] = {"corpus": "hdtf", "id": f"{name}_{clip}", "language": "en"}
            values |= {"speaker": name if group == "RD" else name.rstrip("0123456789") or name}
            values |= {"licence": "CC BY 4.0 (annotations)", "group": group}
            values["file"] = media.file(group=group, name=name, clip=clip)
            try:
                if f"{name}_{clip}" in zooms.lines:
                    values["crop_ratio"] = real(zooms.get(f"{name}_{clip}", 1)[0], "zoom")
                values["url"] = urls.get(name, 1)[0]
                box = _box(name, f"{name}_{clip}", heights, crops)
                start_s, end_s = _seconds(interval)
            except ValueError as error:
                yield bad(times.label, line.number, f"clip {clip}: {error}")
                continue
            if not media.cut:
                values |= {"start_s": start_s, "end_s": end_s, "box": box}
            yield row_or_bad(times.label, line.number, values)
    for name in urls.lines.keys() & heights.lines.keys() - times.lines.keys():
        heights.lines[name].used = True  # one video without times is told once
    for table in (times, urls, heights, crops, zooms):
        yield from table.rest()


def _seconds(interval: str) -> tuple[float, float]:
    match = INTERVAL.fullmatch(interval)
    if match is None:
        raise ValueError(f"{interval!r} is no interval mm:ss-mm:ss")
    m0, s0, m1, s1 = map(int, match.groups())
    return span(60.0 * m0 + s0, 60.0 * m1 + s1)


def _box(name: str, clip: str, heights: _Table, crops: _Table) -> tuple[float, ...]:
    """The crop of ``clip`` as fractions of the frame. Raises ``ValueError`` that names the broken line."""
    [height] = heights.get(name, 1)
    cells = crops.get(clip, 4)
    try:
        tall = whole(height, "height")
    except ValueError as error:
        raise ValueError(f"{heights.number(name)}: {error}") from None
    if tall == 0:
        raise ValueError(f"{heights.number(name)}: the reference height is 0")
    try:
        left, wide, top, high = (whole(cell, "crop") for cell in cells)
        return fractions(left, top, left + wide, top + high, tall * ASPECT, tall)
    except ValueError as error:
        raise ValueError(f"{crops.number(clip)}: {error}") from None
