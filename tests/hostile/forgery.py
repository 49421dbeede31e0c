"""Bytes that lie: MP4 boxes, WAV and PNG headers, changed or written by hand."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta"}


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Every box of an MP4 file, parents first: its type, the offset of its payload, and its end."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        stop = end if size == 0 else start + size
        yield kind, start + head, stop
        if kind in CONTAINERS:
            yield from boxes(data, start + head, stop)
        start = stop


def payload(data: bytes, kind: bytes) -> list[int]:
    """Offsets of the payloads of all boxes of a type."""
    return [at for found, at, _ in boxes(data) if found == kind]


def claim_length(data: bytes, seconds: float) -> bytes:
    """The MP4 with every header claiming to be ``seconds`` long (version 0 boxes, as ffmpeg writes them)."""
    out = bytearray(data)
    for kind, scale, length in ((b"mvhd", 12, 16), (b"mdhd", 12, 16)):
        for at in payload(data, kind):
            (per_second,) = struct.unpack_from(">I", data, at + scale)
            struct.pack_into(">I", out, at + length, min(round(seconds * per_second), 2**32 - 2))
    (movie,) = payload(data, b"mvhd")
    (per_second,) = struct.unpack_from(">I", data, movie + 12)
    for at in payload(data, b"tkhd"):
        struct.pack_into(">I", out, at + 20, min(round(seconds * per_second), 2**32 - 2))
    for at in payload(data, b"elst"):
        struct.pack_into(">I", out, at + 8, min(round(seconds * per_second), 2**32 - 2))
    return bytes(out)


def claim_frames(data: bytes, count: int) -> bytes:
    """The MP4 whose first track claims ``count`` samples of one size, in one run of equal durations."""
    out = bytearray(data)
    struct.pack_into(">II", out, payload(data, b"stsz")[0] + 4, 100, count)  # one size for all
    struct.pack_into(">I", out, payload(data, b"stts")[0] + 8, count)
    struct.pack_into(">I", out, payload(data, b"stsc")[0] + 12, count)  # all in the first chunk
    return bytes(out)


def external(data: bytes, url: str) -> bytes:
    """The MP4 whose tracks say that their data lie at ``url``. Works where the index stands at the end."""
    address = url.encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(address), b"url ", 0) + address
    grown = len(entry) - 12
    out = bytearray(data)
    for at in sorted(payload(data, b"dref"), reverse=True):
        parents = [start for kind, start, stop in boxes(data) if start <= at < stop and kind in {*CONTAINERS, b"dref"}]
        out[at + 8 : at + 20] = entry
        for start in parents:
            (size,) = struct.unpack_from(">I", out, start - 8)
            struct.pack_into(">I", out, start - 8, size + grown)
    return bytes(out)


def wav_of_floats(samples: np.ndarray, rate: int = 16000) -> bytes:
    """A mono WAV of 32-bit floats, whatever they are."""
    data = samples.astype("<f4").tobytes()
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate, 4 * rate, 4, 32
    )  # fmt: skip
    return head + struct.pack("<4sI", b"data", len(data)) + data


def claim_bytes(wav: bytes, count: int) -> bytes:
    """The WAV whose header claims ``count`` bytes of sound."""
    out = bytearray(wav)
    struct.pack_into("<I", out, 4, count + 36)
    struct.pack_into("<I", out, 40, count)
    return bytes(out)


def png(width: int, height: int, chunks: bytes = b"") -> bytes:
    """A black PNG of one bit a pixel: a few kilobytes, whatever its size."""
    rows = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    data = b"".join(rows.compress(line * 64) for _ in range(height // 64)) + rows.compress(line * (height % 64))
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + chunks + png_chunk(b"IDAT", data + rows.flush()) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
