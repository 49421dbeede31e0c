"""What an MP4 file's index says of itself, read before a demuxer is asked for more: whether it is to be believed.

Boxes: ISO/IEC 14496-12, the data reference box in §8.7.2. Only headers and fixed fields are read, never the media.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MOST_BOXES = 20_000
ENTERED = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"mvex"})
SELF_CONTAINED = 1  # flag of a data reference: the media lie in this very file


@dataclass(frozen=True)
class Index:
    """Of a file that is no MP4 nothing is claimed: all fields are at their defaults."""

    cut: bool = False  # the file ends inside its index
    elsewhere: bool = False  # media are said to lie in another file, or at an address
    samples: int = 0  # the most that a track claims; each takes at least a byte
    seconds: float = 0.0  # that the whole claims to last


def read_index(path: Path) -> Index:
    """The claims of the index of the file at ``path``; at most ``MOST_BOXES`` boxes are looked at."""
    size = path.stat().st_size
    cut = elsewhere = False
    samples, seconds = 0, 0.0
    with path.open("rb") as file:
        for kind, start, end in _boxes(file, size):
            if kind == b"moov" and end > size:
                cut = True
            elif kind == b"dref":
                elsewhere |= _elsewhere(file, start, min(end, size))
            elif kind in (b"stsz", b"stz2"):
                samples = max(samples, *_numbers(file, start, ">8xI"), 0)
            elif kind == b"mvhd":
                seconds = max(seconds, _seconds(file, start))
    return Index(cut, elsewhere, samples, seconds)


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Boxes of the file, those of the index with their children: type, start of the payload, end."""
    ends = [size]
    at = 0
    for _ in range(MOST_BOXES):
        while ends and at + 8 > ends[-1]:
            at = max(at, ends.pop())
        if not ends:
            return
        file.seek(at)
        head = file.read(16)
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), at + 16
        if length == 0:
            length = ends[-1] - at  # to the end of what it stands in
        if length < start - at:
            return
        yield kind, start, at + length
        if kind in ENTERED:
            ends.append(min(at + length, ends[-1]))
            at = start
        else:
            at += length


def _elsewhere(file: BinaryIO, start: int, end: int) -> bool:
    """Whether an entry of a data reference box points away from this file."""
    (count,) = _numbers(file, start, ">4xI") or (0,)
    at = start + 8
    for _ in range(min(count, MOST_BOXES)):
        entry = _numbers(file, at, ">II3xB") if at + 12 <= end else ()
        if not entry:
            return False
        length, _, flags = entry
        if not flags & SELF_CONTAINED:
            return True
        at += max(length, 12)
    return False


def _seconds(file: BinaryIO, start: int) -> float:
    (version,) = _numbers(file, start, ">B") or (0,)
    found = _numbers(file, start, ">20xIQ" if version == 1 else ">12xII")
    unknown = 2**64 - 1 if version == 1 else 2**32 - 1
    return found[1] / found[0] if found and found[0] and found[1] != unknown else 0.0


def _numbers(file: BinaryIO, at: int, form: str) -> tuple[int, ...]:
    """Fields at an offset; none where the file ends before."""
    file.seek(at)
    data = file.read(struct.calcsize(form))
    return struct.unpack(form, data) if len(data) == struct.calcsize(form) else ()
