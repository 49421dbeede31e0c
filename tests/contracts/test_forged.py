"""B32, B33: shards as somebody who can mend digests would forge them are Corrupt; nothing is written or unpickled."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import Corrupt
from contracts.files import sha256_file
from contracts.sample import decode_features
from contracts.shards import Shard, write_shard

KEY = "a-s00"
LIMIT = 100 * 2**20  # bytes that refusing may cost


class Canary:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("unpickled",)


def member(name: str, content: bytes = b"x", **fields: object) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        tar.addfile(info, io.BytesIO(content))

    return add


def sparse(tar: tarfile.TarFile) -> None:
    """A PAX member of a few bytes that expands to 2 GB."""
    info = tarfile.TarInfo("GNUSparseFile.0/x")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": f"{KEY}.wav",
        "GNU.sparse.size": str(2**31),
        "GNU.sparse.map": "0,1",
    }
    info.size = 1
    tar.addfile(info, io.BytesIO(b"x"))


FORGED = {
    "climbing": ("../../x.wav", member("../../x.wav")),
    "absolute": ("/tmp/x.wav", member("/tmp/x.wav")),
    "symlink": (f"{KEY}.wav", member(f"{KEY}.wav", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hardlink": (f"{KEY}.wav", member(f"{KEY}.wav", b"", type=tarfile.LNKTYPE, linkname=f"{KEY}.json")),
    "device": (f"{KEY}.wav", member(f"{KEY}.wav", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "fifo": (f"{KEY}.wav", member(f"{KEY}.wav", b"", type=tarfile.FIFOTYPE)),
    "folder": (f"{KEY}.wav", member(f"{KEY}.wav", b"", type=tarfile.DIRTYPE)),
    "sparse": (f"{KEY}.wav", sparse),
    "twice": (f"{KEY}.json", member(f"{KEY}.json")),
    "pickle": (f"{KEY}.pyd", member(f"{KEY}.pyd", pickle.dumps(Canary()))),
    "dotted": ("a.0.wav", member("a.0.wav")),
}


def shard(dataset: Path, forge: Callable[[Path], None]) -> Shard:
    """A shard whose tar is ``forge``d, and whose record fits it."""
    lines = [
        {"level": "row", "key": "a", "row": 0, "state": "kept", "kind": "clip"},
        {"level": "span", "key": KEY, "row": 0, "span": 0, "state": "kept", "kind": "clip"},
    ]
    record = write_shard(dataset, 0, [(KEY, {"json": b"{}"})], lines, steps="s", rows="r")
    tar = dataset / "shard-000000.tar"
    forge(tar)
    fitting = {"tar_sha256": sha256_file(tar), "tar_bytes": tar.stat().st_size}
    return Shard(dataset, record.model_copy(update=fitting))


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder inside an empty folder, in which we are: what is written elsewhere shows."""
    (tmp_path / "in" / "dataset").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in" / "dataset"


def refused(dataset: Path, forged: Shard, match: str) -> None:
    """``verify`` and ``read`` raise ``Corrupt`` with file and ``match``, cheaply, and leave no trace."""
    before = sorted(dataset.parents[1].rglob("*"))
    tracemalloc.start()
    try:
        for use in (forged.verify, lambda: forged.read(KEY)):
            with pytest.raises(Corrupt, match=match) as caught:
                use()
            assert caught.value.file == str(forged.tar)
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()
    assert sorted(dataset.parents[1].rglob("*")) == before


@pytest.mark.parametrize("kind", FORGED)
def test_b32_members_that_ours_never_are(dataset: Path, kind: str) -> None:
    name, add = FORGED[kind]

    def forge(path: Path) -> None:
        with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as tar:
            add(tar)

    refused(dataset, shard(dataset, forge), f"member '{name}'")


def test_b32_a_member_of_2_gb_is_not_read(dataset: Path) -> None:
    forged = shard(dataset, lambda tar: None)
    info = tarfile.TarInfo(f"{KEY}.wav")
    info.size = 2**31
    with forged.tar.open("r+b") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(512 + info.size + 1024)  # holes, no blocks
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt, match=f"member '{KEY}.wav' claims"):
            forged.read(KEY)
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()


def test_b33_a_gzip_bomb_named_tar(dataset: Path) -> None:
    def forge(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(200):
                file.write(bytes(2**20))

    refused(dataset, shard(dataset, forge), "not a readable shard")


def npz(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return made.getvalue()


def npy(array: np.ndarray, **changes: str) -> bytes:
    made = io.BytesIO()
    np.lib.format.write_array(made, array, allow_pickle=True)
    data = made.getvalue()
    for old, new in changes.items():
        data = data.replace(old.encode(), new.encode(), 1)
    return data


def claiming(shape: str) -> bytes:
    """An .npy of four floats that claims another shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)


def deflated(size: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("landmarks.npy", bytes(size))
    return made.getvalue()


HOSTILE = {
    "shape": npz(landmarks=claiming("(99999999999,)")),
    "negative": npz(landmarks=claiming("(-4,)")),
    "two negatives": npz(landmarks=claiming("(-2, -2)")),
    "overflow": npz(landmarks=claiming("(9223372036854775807, 4)")),
    "objects": npz(landmarks=npy(np.array([Canary()], dtype=object))),
    "bomb": deflated(150 * 2**20),
    "nested": npz(landmarks=claiming("(" * 5000)),
    "cut": npz(landmarks=npy(np.zeros(4, np.float32)))[:-30],
    "flipped": npz(landmarks=npy(np.arange(9.0))).replace(np.float64(3).tobytes(), np.float64(4).tobytes()),
    "empty": b"",
    "pickle": pickle.dumps(Canary()),
    "no zip": b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_b33_arrays_that_lie_are_refused_before_they_cost_anything(dataset: Path, kind: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r".+"):
            decode_features(HOSTILE[kind])
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()
    assert not Path("unpickled").exists()


def test_arrays_are_read_as_they_were_written() -> None:
    arrays = {
        "a": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "b": np.zeros((0, 3), np.float16),
        "c": np.array(True),
        "d": np.arange(5, dtype=">i4"),
    }
    made = io.BytesIO()
    np.savez(made, **arrays)
    found = decode_features(made.getvalue())
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable
    assert list(decode_features(made.getvalue(), ("c",))) == ["c"]
    with pytest.raises(KeyError):
        decode_features(made.getvalue(), ("z",))
