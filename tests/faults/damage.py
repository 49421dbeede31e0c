"""F8, F9, F10, F14: files that change at rest, in the dataset and in DVC's cache."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from faults.material import complete, digests
from faults.row import Figure, reached

from contracts.errors import Corrupt
from contracts.shards import committed, dataset_digest, read_shard

BLOCK = 512  # of a tar


def truncate(folder: Path, count: int) -> Figure:
    """F8: the tar cut at ``count`` places."""
    complete(folder, 8, 2)
    tar = folder / "shard-000000.tar"
    data, found, named = tar.read_bytes(), 0, 0
    for cut in range(count):
        tar.write_bytes(data[: cut * len(data) // count])
        try:
            for shard in committed(folder):
                shard.verify()
        except Corrupt as error:
            found += 1
            named += error.file == str(tar) and len({error.expected, error.actual, ""}) == 3
    return Figure(f"detected {found}/{count}, file and both digests named {named}", found == named == count)


def flip(folder: Path, count: int) -> Figure:
    """F9: one bit flipped in a tar (headers, contents, padding), a ledger or a record."""
    complete(folder, 9, 1)
    rng, found = random.Random(9), 0
    tar, ledger, record = (folder / f"shard-000000{suffix}" for suffix in (".tar", ".parquet", ".json"))
    offsets = [start for members in read_shard(folder, 0).offsets.values() for start, _ in members.values()]
    size = tar.stat().st_size
    for trial in range(count):
        path = (tar, tar, tar, ledger, record)[trial % 5]
        place = rng.randrange(path.stat().st_size)
        if trial % 5 == 0:
            place = rng.choice(offsets) - BLOCK + rng.randrange(BLOCK)  # a member's header
        elif trial % 5 == 1:
            place = size - 1 - rng.randrange(2 * BLOCK)  # the padding at the end
        data = path.read_bytes()
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        try:
            for shard in committed(folder):
                shard.verify()
        except Corrupt as error:
            found += error.file == str(path)
        path.write_bytes(data)
    read_shard(folder, 0).verify()
    return Figure(f"detected {found}/{count}, the file named", found == count)


def misplace(folder: Path, count: int) -> Figure:
    """F10: records that are missing, swapped or stale, or that have no shard."""
    complete(folder / "whole", 10, 3)
    complete(folder / "stale", 11, 3)
    whole, same = digests(folder / "whole"), 0

    def delete(dataset: Path) -> None:
        (dataset / "shard-000001.json").unlink()

    def swap(dataset: Path) -> None:
        one, other = dataset / "shard-000000.json", dataset / "shard-000001.json"
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)

    def stale(dataset: Path) -> None:
        for suffix in (".tar", ".parquet", ".json"):
            shutil.copy(folder / "stale" / f"shard-000002{suffix}", dataset)

    def alone(dataset: Path) -> None:
        for suffix in (".tar", ".parquet"):
            (dataset / f"shard-000002{suffix}").unlink()

    ways = (delete, swap, stale, alone)
    for trial in range(count):
        dataset = folder / f"misplaced-{trial}"
        shutil.copytree(folder / "whole", dataset)
        ways[trial % len(ways)](dataset)
        complete(dataset, 10, 3)
        same += digests(dataset) == whole
    return Figure(f"rebuilt identical {same}/{count} (deleted, swapped, stale, without its shard)", same == count)


def corrupt_cache(folder: Path, count: int) -> Figure:
    """F14: a byte of an object in DVC's cache changes, size and time stay; DVC checks it out; training looks first."""
    from dvc.repo import Repo

    from contracts.selection import Chosen, Selection
    from training.data import verify

    rng = random.Random(14)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = folder / "dataset"
    complete(dataset, 14, 3)
    facts = {"split": "train", "kind": "clip", "frames": 30, "speaker": "s", "gender": "f"}
    samples = [
        Chosen(key=key, shard=shard.record.shard, **facts) for shard in committed(dataset) for key in shard.offsets
    ]
    selection = Selection(dataset=dataset_digest(dataset), samples=tuple(samples), refused={})
    (dataset / ".lock").unlink()
    found = by_dvc = 0
    before = Path.cwd()
    os.chdir(folder)
    try:
        with Repo.init(str(folder), no_scm=True) as repository:
            with repository.config.edit("repo") as config:
                config["core"] = {"analytics": False, "check_update": False}
                config["cache"] = {"type": "copy"}
            repository.add("dataset")
            shards = {path.read_bytes(): path.name for path in dataset.iterdir()}
            objects = [path for path in (folder / ".dvc" / "cache").rglob("*") if path.is_file()]
            objects = sorted(path for path in objects if path.read_bytes() in shards)
            assert len(objects) == 9, "a tar, a ledger and a record of each of three shards"
            for trial in range(count):
                path = objects[trial % len(objects)]
                data, status = path.read_bytes(), path.stat()
                place = rng.randrange(len(data))
                path.chmod(0o644)
                path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
                path.chmod(0o444)
                shutil.rmtree(dataset)
                try:
                    repository.checkout(["dataset.dvc"], force=True)
                except Exception:  # of any kind: then it was DVC that noticed
                    by_dvc += 1
                try:
                    verify(dataset, selection)
                except Corrupt as error:
                    found += Path(error.file).name == shards[data]
                path.chmod(0o644)
                path.write_bytes(data)
                path.chmod(0o444)
                reached(trial + 1, count)
            shutil.rmtree(dataset)
            repository.checkout(["dataset.dvc"], force=True)
            verify(dataset, selection)
    finally:
        os.chdir(before)
    return Figure(f"detected before training {found}/{count} (DVC alone: {by_dvc})", found == count)
