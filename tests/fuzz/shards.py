"""Mutated shards: tar, ledger and record, as accidents leave them and as someone would who also mends the digests."""

from __future__ import annotations

import json
import tarfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutation import mutate

from contracts.errors import Corrupt, Misuse
from contracts.files import sha256_file
from contracts.settings import canonical_digest, canonical_json
from contracts.shards import SEAL, read_shard, write_shard

NAMES = ("shard-000000.tar", "shard-000000.parquet", "shard-000000.json")


def prepare(folder: Path) -> None:
    """A shard of one speech sample and one still, made by the code that makes shards."""
    from PIL import Image

    from contracts.sample import Meta, encode

    folder.mkdir()
    rng = np.random.default_rng(0)
    picture = BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(picture, "JPEG")
    samples, lines = [], []
    for row, kind in enumerate(("face", "speech")):
        key = f"fuzz-{kind}-{row:012x}"
        meta = Meta(
            key=f"{key}-s00", kind=kind, frames=int(kind == "face"), side=64 if kind == "face" else 0, corpus="fuzz",
            native_id=kind, file=f"{kind}.x", source_sha256=f"{row:064x}", start_s=0.0, end_s=0.5,
        )  # fmt: skip
        features = {"landmarks": np.zeros((1, 478, 3), np.float32)} if kind == "face" else {}
        sound = rng.integers(-99, 99, 8000).astype(np.int16) if kind == "speech" else None
        jpegs = [picture.getvalue()] if kind == "face" else []
        samples.append((meta.key, encode(meta, features, sound, jpegs)))
        facts: dict[str, Any] = {"row": row, "state": "kept", "kind": kind}
        lines.append(facts | {"level": "row", "key": key})
        lines.append(facts | {"level": "span", "key": meta.key, "span": 0})
    write_shard(folder, 0, samples, lines, steps={"face": "f", "speech": "s"}, rows=["0", "1"])


@cache
def _seeds(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


def make(rng: np.random.Generator, seeds: Path, root: Path) -> str:
    """A mutated shard under ``root``: any file changed, in half of the cases with digests that fit again."""
    files = dict(_seeds(seeds))
    name = NAMES[int(rng.integers(3))]
    way = int(rng.integers(4))
    if name == NAMES[2] and way:
        files[name] = _edited_record(rng, files[name])
    elif name == NAMES[0] and way >= 2:
        files[name] = _edited_tar(rng, files[name])
    else:
        files[name] = mutate(rng, files[name], list(files.values()))
    for each, data in files.items():
        (root / each).write_bytes(data)
    if rng.integers(2):
        _reseal(root)
    return name


def _edited_tar(rng: np.random.Generator, data: bytes) -> bytes:
    """The same tar with a member added, renamed, doubled or changed inside."""
    out = BytesIO()
    with tarfile.open(fileobj=BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        chosen = int(rng.integers(len(old.getmembers())))
        for number, info in enumerate(old.getmembers()):
            member = old.extractfile(info)
            content = member.read() if member else b""
            if number == chosen:
                content = mutate(rng, content, [data]) if rng.integers(2) else content
                names = (
                    "../../escaped",
                    "/escaped",
                    "a.pyd",
                    "x.json",
                    info.name,
                    "A.wav",
                    "a\nb.npz",
                    "",
                    "..",
                    "a/b.npz",
                )
                info.name = names[int(rng.integers(len(names)))]
                kinds = (tarfile.REGTYPE,) * 4 + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
                info.type = kinds[int(rng.integers(len(kinds)))]
                info.linkname = "/etc/passwd" if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            new.addfile(info, BytesIO(content))
    return out.getvalue()


def _edited_record(rng: np.random.Generator, data: bytes) -> bytes:
    """The record with members of other types and sizes."""
    members = json.loads(data)
    values = (
        None,
        -1,
        2**63,
        1.5,
        "",
        "../../escaped",
        [],
        {},
        [[]],
        ["x"] * 9,
        True,
        float("inf"),
        "\ud800",
        {"a": 1},
    )
    for _ in range(int(rng.integers(1, 3))):
        names = sorted(members)
        name = names[int(rng.integers(len(names)))]
        how = int(rng.integers(4))
        if how == 0:
            del members[name]
        elif how == 1:
            members[f"new{int(rng.integers(9))}"] = 1
        else:
            members[name] = values[int(rng.integers(len(values)))]
    return json.dumps(members).encode()


def _reseal(root: Path) -> None:
    """Make digests and sizes in the record fit the files, as far as it can still be read."""
    path = root / NAMES[2]
    try:
        members = json.loads(path.read_bytes())
        members.pop(SEAL, None)
        members |= {
            "tar_sha256": sha256_file(root / NAMES[0]),
            "tar_bytes": (root / NAMES[0]).stat().st_size,
            "ledger_sha256": sha256_file(root / NAMES[1]),
        }
        path.write_bytes(canonical_json(members | {SEAL: canonical_digest(members)}).encode())
    except (ValueError, TypeError, AttributeError):
        return


def run(name: str, root: Path, _: Any) -> str:
    """Open, verify and read everything, as training does."""
    from contracts.sample import Frames, decode_features, decode_meta, decode_wav

    readers = {"json": decode_meta, "npz": decode_features, "wav": decode_wav, "frames": Frames}
    try:
        shard = read_shard(root, 0)
        shard.verify()
        shard.ledger().to_pylist()
        for key in shard.record.keys:
            for extension, data in shard.read(key).items():
                try:
                    content: Any = readers[extension](data)
                    if extension == "frames":
                        [content[i] for i in range(len(content))]
                except ValueError:  # what they say that they raise
                    return "ValueError"
    except (Corrupt, Misuse) as error:
        return type(error).__name__
    return "read"
