"""An MP4's own index: read within bounds whatever it holds, believed only where the file can keep its word."""

import struct

import numpy as np
import pytest

from preprocessing.media.boxes import MOST_BOXES, Index, read_index


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def movie(*, flags: int = 1, samples: int = 5, seconds: float = 2.0) -> bytes:
    reference = struct.pack(">II", 0, 1) + box(b"url ", struct.pack(">I", flags))
    tables = box(b"stbl", box(b"stsz", struct.pack(">III", 0, 0, samples)))
    media = box(b"minf", box(b"dinf", box(b"dref", reference)) + tables)
    head = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, round(1000 * seconds)))
    return box(b"ftyp", b"isom") + box(b"moov", head + box(b"trak", box(b"mdia", media))) + box(b"mdat", bytes(9))


def test_what_it_claims(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(movie())
    assert read_index(path) == Index(cut=False, elsewhere=False, samples=5, seconds=2.0)
    path.write_bytes(movie(flags=0, samples=10**9, seconds=36000))
    assert read_index(path) == Index(cut=False, elsewhere=True, samples=10**9, seconds=36000.0)
    path.write_bytes(movie()[:100])
    assert read_index(path).cut


@pytest.mark.parametrize("length", [0, 1, 7, 8, 2**32 - 1])
def test_lengths_that_lead_nowhere_end_the_reading(tmp_path, length):
    data = bytearray(movie())
    struct.pack_into(">I", data, data.index(b"trak") - 4, length)
    (tmp_path / "x.mp4").write_bytes(data)
    read_index(tmp_path / "x.mp4")


def test_any_bytes_are_read_to_an_end(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "x.mp4"
    good = np.frombuffer(movie(), np.uint8)
    for _ in range(500):
        data = good.copy()
        data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(data.tobytes()[: rng.integers(0, len(data))])
        read_index(path)
    path.write_bytes(box(b"free", b"") * (2 * MOST_BOXES) + movie(flags=0))
    assert not read_index(path).elsewhere  # not reached: it is the demuxer's turn
